--- Values and look-ups: spans, addresses, batches, errors, names, interfaces.

local ip = require "ip"
local api = require "spec.fuzz.api"
local faults = require "spec.fuzz.faults"
local world = require "spec.fuzz.world"

local actions = {}

local function text(r)
  local length = r:int(0, 40)
  local bytes = {}
  for i = 1, length do bytes[i] = string.char(r:int(0, 255)) end
  return table.concat(bytes)
end

-- Any argument, mostly of the kind that the function is for.
local function any(r)
  local kind = r:int(1, 9)
  if kind <= 2 then return r:int(-1, 45) end
  if kind <= 4 then return text(r) end
  if kind == 5 then return ip.byte_span.append(text(r)) end
  if kind == 6 then return r:pick { ">I4", "<i2z", "s1", "d", "!8 I8" } end
  if kind == 7 then return r:pick { "::1", "127.0.0.1", "fe80::1%lo", "1.2.3.4:5", "[::1]:80" } end
  if kind == 8 then return r:pick { 0.5, math.maxinteger, math.mininteger, true, {}, print } end
  return nil
end

local function span(r)
  if #world.spans == 0 or r:one_in(5) then
    world.keep(world.spans, ip.byte_span.new(r:int(0, 60), r:one_in(2) and r:int(60, 200) or nil))
  end
  return r:pick(world.spans)
end

local function plays_any(functions, self)
  local names = {}
  for name, fn in pairs(functions) do
    if type(fn) == "function" then names[#names + 1] = name end
  end
  table.sort(names)
  return function(r)
    for _ = 1, r:int(1, 6) do
      local name = r:pick(names)
      world.try(name, functions[name], self(r), any(r), any(r), any(r))
    end
  end
end

-- A span against a string with the same bytes.
function actions.span_model(r)
  local bytes = text(r)
  local own = api.byte_span.append(bytes)
  local first, last = r:int(1, #bytes + 1), r:int(0, #bytes)
  if api.span.sub(own, first, last) ~= bytes:sub(first, last) then world.fault("span:sub") end
  local part = text(r):sub(1, r:int(0, 2))
  if api.span.find(own, part, first) ~= bytes:find(part, first, true) then
    world.fault(("span:find: %q in %q from %d"):format(part, bytes, first))
  end
  if tostring(api.span.append(own, part)) ~= bytes .. part then world.fault("span:append") end
  if api.get("span", own, "capacity") < #own then world.fault("capacity") end
end

actions.span_call = plays_any(api.span, span)

local function any_address(r)
  return ip.address.new(r:pick { "::1", "127.0.0.1", "fe80::1%lo", "ff02::2", "::ffff:1.2.3.4", "1.2.3.4" })
end

actions.address_call = plays_any(api.addr, any_address)
actions.address_module = plays_any(api.address, any)
actions.span_module = plays_any(api.byte_span, any)

function actions.address_properties(r)
  local address = any_address(r)
  for _, name in ipairs(api.properties.address) do world.try(name, api.get, "address", address, name) end
  if api.address.new(tostring(address)) ~= address then world.fault("the text gives another address") end
  local key = api.ip.endpoint_key(address, 7)
  local again, port = api.ip.endpoint_from_key(key)
  if api.ip.endpoint_key(again, port) ~= key then world.fault("endpoint keys") end
  again, port = api.ip.toendpoint(api.ip.tostring(address, 7))
  if again ~= address or port ~= 7 then world.fault("toendpoint") end
end

local function batch(r)
  if #world.batches == 0 or r:one_in(8) then
    world.keep(world.batches, api.udp.new_batch(r:int(1, 8), r:int(0, 50)))
  end
  return r:pick(world.batches)
end

actions.batch_call = plays_any(api.batch, batch)

function actions.batch_properties(r)
  local own = batch(r)
  for _, name in ipairs(api.properties.batch) do api.get("batch", own, name) end
  for i = 1, own.slots do
    world.keep(world.spans, own[i]) -- it outlives its batch
    world.try("resize", api.batch.resize, own, i, r:int(0, own.capacity))
  end
  local max_ready = r:pick { 1, 3, math.maxinteger, 0, "1" }
  local before = own.max_ready
  local ok = world.try("max_ready", function() own.max_ready = max_ready end)
  local valid = math.type(max_ready) == "integer" and max_ready > 0
  if ok and not valid then world.fault("max_ready") end -- a valid one may fail where the C stack is full
  if own.max_ready ~= (ok and max_ready or before) then world.fault("max_ready is not what was set") end
end

function actions.error_values(r)
  local err = ip.error[r:pick { "EAGAIN", "EAI_NONAME", "INTERRUPTED" }]
  if api.error.togeneric(err) == err and err.category == "system" then world.fault("togeneric") end
  world.try("togeneric", api.error.togeneric, any(r))
end

local hosts = { "127.0.0.1", "::1", "localhost", "no such host", "", "%" }

local flag_names = {}
for name in pairs(ip.address_info_flag) do flag_names[#flag_names + 1] = name end
table.sort(flag_names)

local function lookup_flags(r)
  local flags = 0
  while r:one_in(2) do flags = flags | ip.address_info_flag[r:pick(flag_names)] end
  return flags
end

function actions.look_up(r)
  local name = r:pick { "get_address_info", "get_address_v4_info", "get_address_v6_info" }
  world.try(name, api.udp[name], r:pick(hosts), r:pick { 53, "domain", "no service" },
    lookup_flags(r))
end

function actions.look_up_name(r)
  world.try("get_name_info", api.udp.get_name_info, r:pick { "127.0.0.1", "::1" }, r:int(0, 65535), lookup_flags(r))
end

-- uv_interface_addresses of libuv 1.44 does not look whether its own strdup has failed (src/unix/linux-core.c).
function actions.machine(r)
  if #api.ip.host_name() == 0 then world.fault("no host name") end
  faults.hold()
  local ok, err = pcall(api.ip.interfaces, r:pick { true, false, 1 })
  faults.release()
  if not ok then world.check_error("interfaces", err) end
end

return actions
