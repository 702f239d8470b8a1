-- That the reference and the code agree: every public name is documented, every documented name exists, and
-- signatures are those of the functions.
local ip = require "ip"
local core = require "ip.core"
local support = require "spec.support"
local pages = require "spec.support.pages"

local scan, expect_none = pages.scan, pages.expect_none

-- --- what there is ---

local classes = {
  byte_span = core.class_members "byte_span",
  address = core.class_members "ip.address",
  error = core.class_members "ip.error",
  socket = core.class_members "ip.udp.socket",
  batch = core.class_members "ip.udp.batch",
  fiber = core.class_members "ip.fiber",
  file_descriptor = core.class_members "ip.file_descriptor",
  listener = core.class_members "ip.udp.listener",
  session = core.class_members "ip.udp.session",
  queue = core.class_members "ip.fiber.queue",
  condition = core.class_members "ip.fiber.condition",
  semaphore = core.class_members "ip.fiber.semaphore",
  group = core.class_members "ip.fiber.group",
}

-- The fields of ip.fiber.loop come from its metatable.
local function loop_members()
  local members = { pollfd = "property", spin = "property" }
  local index = debug.getmetatable(ip.fiber.loop).__index
  for i = 1, math.huge do
    local name, value = debug.getupvalue(index, i)
    if name == nil then break end
    if name == "loop" then
      for key, field in pairs(value) do members[key] = type(field) == "function" and field or "property" end
    end
  end
  return members
end
classes.loop = loop_members()

local options = {}
for _, name in ipairs(core.option_names()) do options[name] = "option" end

-- Owner -> name -> what it is. Owners with a dot at the end are tables, those with a colon classes.
local public = { ["option "] = options }
for class, members in pairs(classes) do public[class .. ":"] = members end
for path, fields in pairs {
  ip = ip,
  ["ip.udp"] = ip.udp,
  ["ip.udp.socket"] = ip.udp.socket,
  ["ip.udp.batch"] = ip.udp.batch,
  ["ip.fiber"] = ip.fiber,
  ["ip.address"] = ip.address,
  ["ip.file_descriptor"] = ip.file_descriptor,
  ["ip.message_flag"] = ip.message_flag,
  ["ip.address_info_flag"] = ip.address_info_flag,
  byte_span = ip.byte_span,
} do
  public[path .. "."] = fields
end

-- --- what is documented ---

-- Names that the pages use for objects and modules.
local objects = {
  sock = "socket", socket = "socket", batch = "batch", span = "byte_span", address = "address", err = "error",
  fd = "file_descriptor", fiber = "fiber", ["fiber.loop"] = "loop", loop = "loop", queue = "queue",
  condition = "condition", semaphore = "semaphore", group = "group", listener = "listener",
  session = "session",
}
local modules = { fiber = "ip.fiber" }

-- Tables whose first column are names of one owner: page and heading.
local name_tables = {
  ["address.md Properties"] = "address:",
  ["error.md Error values"] = "error:",
  ["fiber.md Properties"] = "fiber:",
  ["listener.md Properties of a listener"] = "listener:",
  ["listener.md Properties of a session"] = "session:",
  ["waiting.md Properties of a queue"] = "queue:",
  ["waiting.md Properties of a semaphore"] = "semaphore:",
  ["waiting.md Properties of a group"] = "group:",
  ["udp_socket.md Properties"] = "socket:",
  ["message.md Options"] = "option ",
  ["options.md The options"] = "option ",
  ["resolver.md `ip.address_info_flag`"] = "ip.address_info_flag.",
  ["udp_transfer.md Flags"] = "ip.message_flag.",
}

-- Owner and name of what stands before an argument list, or of a qualified name: "sock:send", "ip.udp.bind".
local function resolve(text)
  local object, method = text:match("^([%w_.]+):([%a_][%w_]*)$")
  if object then return objects[object] and objects[object] .. ":", method end
  local path, name = text:match("^([%w_.]+)%.([%a_][%w_]*)$")
  if path == nil then return nil end
  path = modules[path] or path
  if public[path .. "."] then return path .. ".", name end
  return objects[path] and objects[path] .. ":", name
end

local entries = {}                                       -- of { where, owner, name, arguments or nil }
local unreadable = {}

local function add(where, owner, name, arguments)
  entries[#entries + 1] = { where = where, owner = owner, name = name, arguments = arguments }
end

-- Operators and the fields of ip.error, which are not listed anywhere.
local function is_operator(code)
  return code:find("^[%w_.]+%[") or code:find("^tostring%(") or code:find("^[ab] [=<]") or code:find("^#")
    or code:find("^local ")
end

local function heading_entry(where, code, last_owner)
  if is_operator(code) then return last_owner end
  code = code:gsub("^for .- in ", "")
  local callee, arguments = code:match("^([%w_.:]+)(%b())")
  local text = callee or code:match("^[%w_.]+$")
  local owner, name
  if text then owner, name = resolve(text) end
  if text and owner == nil and callee and not text:find("[.:]") then owner, name = last_owner, text end
  if owner == nil then
    unreadable[#unreadable + 1] = where .. ": " .. code
    return last_owner
  end
  add(where, owner, name, arguments)
  return owner
end

local function row_entries(where, cell, owner)
  for code in cell:gmatch("`([^`]+)`") do
    if owner then
      add(where, owner, code)
    elseif code:find("^[%a_][%w_]*%.[%w_.]+$") and _G[code:match("^[%w_]+")] == nil then
      local found, name = resolve(code)
      if found then
        add(where, found, name)
      else
        unreadable[#unreadable + 1] = where .. ": " .. code
      end
    end
  end
end

for _, page in ipairs(pages.reference) do
  local base, heading = page:match("[^/]+$"), ""
  scan(page, function(line, number)
    if base == "emilua.md" then return end               -- globals of other programs
    local where = page .. ":" .. number
    local level, title = line:match("^(#+) (.*)$")
    if level then
      heading = title
      local owner
      for code in title:gmatch("`([^`]+)`") do
        if #level > 1 and code ~= "ip.error" then owner = heading_entry(where, code, owner) end
      end
      return
    end
    local cell = line:match("^| ([^|]*) |")
    if cell then row_entries(where, cell, name_tables[base .. " " .. heading]) end
  end)
end

local function is_there(owner, name)
  local members = public[owner]
  return members ~= nil and members[name] ~= nil
end

describe("the reference", function()
  it("has an entry for every public name, with a signature where it is a function", function()
    local documented, called, missing = {}, {}, {}
    for _, entry in ipairs(entries) do
      documented[entry.owner .. entry.name] = true
      if entry.arguments then called[entry.owner .. entry.name] = true end
    end
    for owner, members in pairs(public) do
      for name, value in pairs(members) do
        local there = type(value) == "function" and called or documented
        if not there[owner .. name] then missing[#missing + 1] = "no entry for " .. owner .. name end
      end
    end
    expect_none(missing)
  end)

  it("has only entries of what exists", function()
    local wrong = { table.unpack(unreadable) }
    for _, entry in ipairs(entries) do
      if not is_there(entry.owner, entry.name) then
        wrong[#wrong + 1] = ("%s: there is no %s%s"):format(entry.where, entry.owner, entry.name)
      end
    end
    expect_none(wrong)
  end)

  it("gives fiber.coroutine the functions of Lua's coroutine", function()
    for name in pairs(coroutine) do assert.is_function(ip.fiber.coroutine[name], name) end
    for name in pairs(ip.fiber.coroutine) do assert.is_function(coroutine[name], name) end
  end)
end)

-- --- names in running text ---

-- A dotted path from `ip`; nil where it leads nowhere.
local function at_path(path)
  local value = { ip = ip }
  for step in path:gmatch("[^.]+") do
    if type(value) ~= "table" then return nil end
    local known, found = pcall(function() return value[step] end) -- ip.error raises for what it does not have
    if not known or found == nil then return nil end
    value = found
  end
  return value
end

local module_names = { ["ip.core"] = true, ["ip.emilua"] = true }

local function check_code(where, code, wrong)
  for path in code:gmatch("%f[%w_.]ip%.[%w_.]*[%w_]") do
    if not module_names[path] and at_path(path) == nil then wrong[#wrong + 1] = where .. ": there is no " .. path end
  end
  for object, name in code:gmatch("%f[%w_.](%a+):([%a_][%w_]*)%f[^%w_]") do
    if objects[object] and not is_there(objects[object] .. ":", name) then
      wrong[#wrong + 1] = ("%s: there is no %s:%s"):format(where, object, name)
    end
  end
  local constant = code:match("^E[A-Z][A-Z0-9_]+$")
  if constant and at_path("ip.error." .. constant) == nil then
    wrong[#wrong + 1] = where .. ": there is no error " .. constant
  end
end

it("The text of all pages names only methods, functions and errors that exist", function()
  local wrong = {}
  for _, page in ipairs(pages.guides) do
    scan(page, function(line, number)
      for code in line:gmatch("`([^`]+)`") do check_code(page .. ":" .. number, code, wrong) end
    end)
  end
  expect_none(wrong)
end)

-- --- signatures ---

-- "(a, b[, c[, d]])" -> 2 required, 4 at most, whether "..." is among them
local function count_arguments(arguments)
  local inner = arguments:sub(2, -2)
  local function count(text)
    local found = 0
    for _ in text:gmatch("[^,%[%]%s]+") do found = found + 1 end
    return found
  end
  if inner:find("...", 1, true) then
    return count((inner:gsub("%[.*", ""):gsub("[%w_]*%.%.%.", ""))), count((inner:gsub("[%w_]*%.%.%.", ""))), true
  end
  return count((inner:gsub("%[.*", ""))), count(inner), false
end

local function with_signature(visit)
  for _, entry in ipairs(entries) do
    local members = public[entry.owner]
    local fn = members and members[entry.name]
    if entry.arguments and type(fn) == "function" then visit(entry, fn, count_arguments(entry.arguments)) end
  end
end

it("Documented signatures are those of functions, and have the arguments that Lua functions have", function()
  local wrong, reached = {}, {}
  for _, entry in ipairs(entries) do
    local members = public[entry.owner]
    if entry.arguments and members and type(members[entry.name]) ~= "function" then
      wrong[#wrong + 1] = ("%s: %s%s is no function"):format(entry.where, entry.owner, entry.name)
    end
  end
  with_signature(function(entry, fn, _, most, open_ended)
    local info = debug.getinfo(fn, "uS")
    if info.what == "C" then return end
    local count = info.nparams - (entry.owner:find(":$") and 1 or 0)
    local key = entry.owner .. entry.name
    reached[key] = reached[key] or most == count and open_ended == info.isvararg
    if most > count and not info.isvararg or open_ended and not info.isvararg then
      wrong[#wrong + 1] = ("%s: %s takes %d arguments"):format(entry.where, key, count)
    end
  end)
  for key, exact in pairs(reached) do
    if not exact then wrong[#wrong + 1] = "no entry has all arguments of " .. key end
  end
  expect_none(wrong)
end)

-- Functions that may be called without their first argument: where it is checked before anything is done.
local harmless = {
  ["byte_span."] = "new",
  ["byte_span:"] = "copy ends_with fill find find_first_not_of find_first_of find_last_not_of find_last_of pack resize "
    .. "rfind starts_with sub unpack",
  ["ip."] = "endpoint_from_key endpoint_key toendpoint tostring",
  ["ip.address."] = "from_bytes parse",
  ["address:"] = "with_scope_id",
  ["ip.udp.batch."] = "new",
  ["batch:"] = "get resize set",
  ["ip.file_descriptor."] = "new",
  ["ip.fiber."] = "every semaphore shield sleep spawn wait_any wait_fd wait_signal with_timeout",
  ["queue:"] = "put try_put",
  ["group:"] = "spawn",
  ["ip.udp."] = "bind connect get_name_info listen",
  ["socket:"] = "assign bind connect get_option get_raw_option io_control open receive receive_from receive_loop "
    .. "receive_many receive_message reply_message send send_many send_message send_to send_to_with send_with serve "
    .. "set_option set_raw_option shutdown try_receive try_receive_from try_receive_many try_receive_message try_send "
    .. "try_send_many try_send_message try_send_to",
  ["session:"] = "receive send send_with try_receive try_send",
}

-- A session whose peer has sent nothing more, and which does not wait.
local function session()
  local listener = ip.udp.listen("127.0.0.1", 0, { receive_timeout = 0 })
  ip.udp.connect("127.0.0.1", listener.local_port):send("x")
  local accepted = listener:accept()
  accepted:receive_string()
  return accepted, listener
end

-- What a method is called on: open and closed objects do.
local function receivers()
  local accepted, listener = session()
  return {
    ["session:"] = accepted,
    ["listener:"] = listener,
    ["byte_span:"] = ip.byte_span.new(1),
    ["address:"] = ip.address.any_v6(),
    ["batch:"] = ip.udp.batch.new(1, 1),
    ["queue:"] = ip.fiber.queue(),
    ["condition:"] = ip.fiber.condition(),
    ["semaphore:"] = ip.fiber.semaphore(9),
    ["group:"] = ip.fiber.group(),
    ["socket:"] = ip.udp.socket.new(),
  }
end

-- Calls by name, so that messages have the name.
local function message_without_arguments(receiver, name)
  local call = "local receiver = ...; local result = receiver." .. name .. "(); return result"
  if type(receiver) == "userdata" then call = call:gsub("receiver%." .. name, "receiver:" .. name) end
  local ok, err = pcall(load(call), receiver)
  return not ok and tostring(err)
end

it("A required first argument that is left out is refused under the function's own name", support.with_loop(function()
  local wrong, known, on = {}, {}, receivers()
  for owner, names in pairs(harmless) do
    for name in names:gmatch("%S+") do known[owner .. name] = true end
  end
  with_signature(function(entry, _, required)
    local key = entry.owner .. entry.name
    if required == 0 or not known[key] then return end
    known[key] = nil
    local receiver = on[entry.owner] or at_path((entry.owner:gsub("^byte", "ip.byte"):gsub("%.$", "")))
    local message = message_without_arguments(receiver, entry.name)
    local told = message and (message:find("bad argument #1 to '" .. entry.name .. "'", 1, true)
      or message:find(": " .. entry.name .. ": .*%(EBADF%)"))
    if not told then wrong[#wrong + 1] = ("%s: %s() says %s"):format(entry.where, key, message or "nothing") end
  end)
  for key in pairs(known) do wrong[#wrong + 1] = "no required argument is documented for " .. key end
  expect_none(wrong)
end))

-- Arguments that C functions take; what Lua cannot tell of them is found by calling them.
local accepted = {
  ["byte_span."] = { new = { 1, 2 } },
  ["byte_span:"] = {
    copy = { "x" }, ends_with = { "x" }, fill = { 1 }, find = { "x", 1 }, find_first_not_of = { "x", 1 },
    find_first_of = { "x", 1 }, find_last_not_of = { "x", 1 }, find_last_of = { "x", 1 }, resize = { 1 },
    rfind = { "x", 1 }, slice = { 1, 1 }, starts_with = { "x" }, sub = { 1, 1 }, trimmed = { " " },
    unpack = { "B", 1 },
  },
  ["ip."] = {
    endpoint_from_key = { ip.endpoint_key("::1", 9) }, endpoint_key = { "::1", 9 }, host_name = {},
    interfaces = { true },
    toendpoint = { "[::1]:9" }, tostring = { "::1", 9 },
  },
  ["ip.address."] = {
    any_v4 = {}, any_v6 = {}, broadcast_v4 = {}, from_bytes = { "1234" }, loopback_v4 = {}, loopback_v6 = {},
    new = { "::1" }, parse = { "::1" },
  },
  ["address:"] = { to_bytes = {}, to_v6 = {}, with_scope_id = { 1 } },
  ["ip.udp."] = {
    get_address_info = { "127.0.0.1", 9, 0 }, get_address_v4_info = { "127.0.0.1", 9, 0 },
    get_address_v6_info = { "::1", 9, 0 }, get_name_info = { "127.0.0.1", 9, 0 },
  },
  ["ip.fiber."] = { condition = {}, group = {}, list = {}, queue = { 1 }, semaphore = { 1 } },
  ["queue:"] = { close = {}, try_get = {}, values = {} },
  ["condition:"] = { notify_all = {}, notify_one = {} },
  ["semaphore:"] = { acquire = {}, hold = {}, release = {}, try_acquire = {} },
  ["group:"] = { interrupt = {}, join = {} },
  ["ip.udp.batch."] = { new = { 1, 1 } },
  ["batch:"] = { clear = {}, get = { 1 }, info = { 1, {} }, resize = { 1, 1 }, set = { 1, "x", "::1", 9, {} } },
  ["ip.udp.socket."] = { new = {} },
  ["socket:"] = {
    bind = { "127.0.0.1", 0 }, cancel = {}, close = {}, connect = { "127.0.0.1", 9 }, disconnect = {},
    get_option = { "broadcast" }, open = { "v4" }, receive = { ip.byte_span.new(1), 0 },
    get_raw_option = { 1, 12, 4 }, set_raw_option = { 1, 12, 4 }, -- SOL_SOCKET, SO_PRIORITY
    receive_error = { ip.byte_span.new(1) }, receive_from = { ip.byte_span.new(1), 0 },
    receive_many = { ip.udp.batch.new(1, 1), 0 }, receive_message = { ip.byte_span.new(1), {}, 0 },
    receive_string = { 1, 0 }, release = {}, reply_message = { "x", { address = "127.0.0.1", port = 9 }, 0 },
    send = { "x", 0 }, send_many = { ip.udp.batch.new(1, 1), 1, 1 },
    send_message = { "x", { address = "127.0.0.1", port = 9 }, 0 }, send_to = { "x", "127.0.0.1", 9, 0 },
    shutdown = { "both" }, try_receive = { ip.byte_span.new(1), 0 }, try_receive_from = { ip.byte_span.new(1), 0 },
    try_receive_many = { ip.udp.batch.new(1, 1), 0 }, try_receive_message = { ip.byte_span.new(1), {}, 0 },
    try_receive_string = { 1, 0 }, try_send = { "x", 0 }, try_send_many = { ip.udp.batch.new(1, 1), 1, 1 },
    try_send_message = { "x", { address = "127.0.0.1", port = 9 }, 0 }, try_send_to = { "x", "127.0.0.1", 9, 0 },
  },
  ["listener:"] = { close = {}, sessions = {}, try_accept = {} },
  ["session:"] = {
    close = {}, receive = { ip.byte_span.new(1), 0 }, receive_string = { 1, 0 }, send = { "x", 0 },
    try_receive = { ip.byte_span.new(1), 0 }, try_receive_string = { 1, 0 }, try_send = { "x", 0 },
  },
}

-- What no function takes.
local misfit = coroutine.create(print)

-- The message of the call by name with `arguments` but a misfit at `position`, which may be the one behind
-- them.
local function message_with_misfit(owner, name, arguments, position)
  local sock <close> = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 0 })
  local on = receivers()
  on["socket:"] = sock
  local receiver = on[owner] or at_path((owner:gsub("^byte", "ip.byte"):gsub("%.$", "")))
  local passed = table.move(arguments, 1, #arguments, 1, {})
  passed[position] = misfit
  local call = "local receiver, n, passed = ...; local result = receiver%s%s(table.unpack(passed, 1, n)); return result"
  call = call:format(owner:sub(-1), name)
  local _, err = pcall(load(call), receiver, #passed, passed)
  return tostring(err)
end

it("C functions look at as many arguments as their signatures have, and at no more", support.with_loop(function()
  local most_of, wrong = {}, {}
  with_signature(function(entry, _, _, most, open_ended)
    if not (accepted[entry.owner] or {})[entry.name] then return end
    local key = entry.owner .. entry.name
    most_of[key] = math.max(most_of[key] or 0, open_ended and math.huge or most)
  end)
  for owner, functions in pairs(accepted) do
    for name, arguments in pairs(functions) do
      local key = owner .. name
      if most_of[key] ~= #arguments then
        wrong[#wrong + 1] = ("%s: documented with %s arguments, not %d"):format(key, most_of[key], #arguments)
      end
      for position = 1, #arguments + 1 do
        local message = message_with_misfit(owner, name, arguments, position)
        local refused = message:find(("bad argument #%d to '%s'"):format(position, name), 1, true) ~= nil
        if refused ~= (position <= #arguments) then
          wrong[#wrong + 1] = ("%s: %s as argument %d: %s"):format(key, type(misfit), position, message)
        end
      end
    end
  end
  expect_none(wrong)
end))
