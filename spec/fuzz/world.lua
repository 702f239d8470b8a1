--- What the actions of a run share: the stable sockets and their ledger, the wild sockets, descriptors,
--- fibers and coroutines, the log, and the calls that are under way.

local ip = require "ip"
local core = require "ip.core"
local api = require "spec.fuzz.api"
local faults = require "spec.fuzz.faults"
local ledger = require "spec.fuzz.ledger"
local random = require "spec.fuzz.random"

local world = {
  step = 0, -- the number of the step that runs
  wild = {}, fds = {}, spans = {}, batches = {}, handles = {}, threads = {}, generators = {}, holders = {},
  listeners = {}, sessions = {},
  all_threads = setmetatable({}, { __mode = "k" }), -- thread -> facts, of this epoch
  all_wild = setmetatable({}, { __mode = "k" }),
  all_listeners = setmetatable({}, { __mode = "k" }),
  all_fibers = setmetatable({}, { __mode = "k" }),
  signals = { "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGHUP" },
  recording = setmetatable({}, { __mode = "k" }), -- coroutines that have a result of actions_waiting to note
  modes = {}, -- how often each mode of the collector was chosen
}

local LAST = 40 -- objects of a kind that are kept for later steps
local TOLERATED = { -- errors that are text, by a part of their messages
  "bad argument", "cannot wait in", "resumed while waiting", "cannot resume", "already driving",
  "already being driven", "is for the main thread", "on bad self", "cannot close", "C stack overflow",
  "stack overflow", "cannot be written", "not enough memory", "too many", "attempt to yield",
  "attempt to compare", "has no property", "fuzz error", "error in error handling", "may return a byte_span",
  "its handler may return data",
  "seconds of at least", "property '", "invalid order function", "outside a coroutine", "invalid format",
  "data string too short", "format result too large", "out of limits", "malformed", "missing",
  "unfinished string", "attempt to concatenate", "cannot suspend", "read-only", "has no field", "batch:resize",
}

--- Writes a line of the log; it is on disk when the next call begins.
function world.log(...)
  world.file:write(world.step, " ", string.format(...), "\n")
end

--- Ends the run: something must not be.
function world.fault(text)
  faults.hold()
  local trace = debug.traceback(text, 2)
  world.log("FAULT %s", trace)
  world.file:flush()
  io.stdout:write(("FAULT seed %d step %d: %s\n"):format(world.seed, world.step, trace))
  io.stdout:flush()
  os.exit(1, false)
end

-- What the system says only where it was made to (spec/host/faulty_system.c).
local INJECTED = { "ENFILE", "ENOSPC", "EIO", "ENOMEM" }

local function is_plausible(err)
  if err.category ~= "system" then return true end
  for _, name in ipairs(INJECTED) do
    local code = ip.error[name].code
    if err.code == code then
      return faults.injected(code) or name == "ENOMEM" and faults.may_lose()
    end
  end
  return true
end

local function is_tolerated(err)
  if getmetatable(err) == "ip.error" then return is_plausible(err) end
  if type(err) ~= "string" then return err == nil or world.errors_thrown[err] == true end
  for _, pattern in ipairs(TOLERATED) do
    if err:find(pattern, 1, true) then return true end
  end
  return false
end

world.errors_thrown = setmetatable({}, { __mode = "k" }) -- errors of the fuzzer's own that are tables

--- Is the error one that a call of the library may raise? Ends the run if not.
function world.check_error(what, err)
  if not is_tolerated(err) then world.fault(("%s raised: %s"):format(what, tostring(err))) end
end

--- Keeps an object in a list for later steps; the oldest goes.
function world.keep(list, object)
  list[#list + 1] = object
  if #list > LAST then table.remove(list, 1) end
  return object
end

-- --- calls ---

local call_record = {}
call_record.__index = call_record
function call_record:__close()
  if self.ended == 0 then self.closed = true end
end

local function finish(record, ok, ...)
  record.ended = record.ended + 1
  if record.ended > 1 or record.closed then world.fault(record.name .. " ended more than once") end
  if not ok then world.check_error(record.name, (...)) end
  return ok, ...
end

--- pcall(fn, ...), with the check that it ends at most once and raises only what it may.
function world.try(name, fn, ...)
  local record <close> = setmetatable({ name = name, ended = 0, closed = false }, call_record)
  return finish(record, pcall(fn, ...))
end

-- --- sockets ---

local RECEIVE_BUFFER = 1 << 20 -- the system lowers it to what it allows

local function add_stable(sock, address)
  local index = #world.stable + 1
  sock:set_option("receive_buffer_size", RECEIVE_BUFFER)
  local port, family = sock.local_port, sock.family
  world.stable[index] = { sock = sock, index = index, address = address, port = port, family = family }
  world.ledger:add_socket(index, sock:get_option("receive_buffer_size"))
  return world.stable[index]
end

--- Opens the stable sockets: three v4, one v6, one for both families, and two that are connected to each
--- other.
function world.open_stable()
  world.stable = {}
  world.ledger = ledger.new(world.fault)
  for _ = 1, 3 do add_stable(ip.udp.bind("127.0.0.1", 0), "127.0.0.1") end
  if pcall(ip.udp.bind, "::1", 0) then
    add_stable(ip.udp.bind("::1", 0), "::1")
    add_stable(ip.udp.bind("::", 0, { v6_only = false }), "127.0.0.1").dual = true
  end
  local a, b = ip.udp.bind("127.0.0.1", 0), ip.udp.bind("127.0.0.1", 0)
  a:connect("127.0.0.1", b.local_port)
  b:connect("127.0.0.1", a.local_port)
  local first, second = add_stable(a, "127.0.0.1"), add_stable(b, "127.0.0.1")
  first.peer, second.peer = second, first
end

--- Returns a sender, the receiver's entry, and the address to send to; nil as the address on a connected
--- sender.
function world.route(r)
  local to = r:pick(world.stable)
  if to.peer then return to.peer.sock, to, nil end
  for _ = 1, 20 do
    local from = r:pick(world.stable)
    if not from.peer then
      if from.family == to.family and (from.dual or not to.dual or from.address == "::1") then
        local over_v6 = to.dual and (r:one_in(2) or from.address == "::1")
        return from.sock, to, over_v6 and "::1" or to.address
      end
      if from.family == "v4" and to.dual then return from.sock, to, "127.0.0.1" end
      if from.dual and to.family == "v4" then return from.sock, to, "127.0.0.1" end
    end
  end
  return to.sock, to, to.dual and "::1" or to.address
end

function world.open_wild(r)
  local list = world.wild
  local sock
  local kind = r:int(1, 6)
  if kind == 1 then
    sock = api.udp.new_socket()
  elseif kind == 2 then
    local ok, opened = world.try("ip.udp.connect", api.udp.connect, "127.0.0.1", r:int(1, 1024))
    sock = ok and opened or api.udp.new_socket()
  else
    local v6 = kind == 3 and world.stable[4].family == "v6"
    local ok, opened = world.try("ip.udp.bind", api.udp.bind, v6 and "::1" or "127.0.0.1", 0)
    sock = ok and opened or api.udp.new_socket()
  end
  if #list >= 16 then table.remove(list, r:int(1, #list)) end -- collected, at some time
  list[#list + 1] = sock
  world.all_wild[sock] = true
  return sock
end

function world.wild_socket(r)
  if #world.wild == 0 or r:one_in(6) then return world.open_wild(r) end
  return r:pick(world.wild)
end

-- --- coroutines ---

--- Notes a coroutine for strangers; `facts` are what its body tells of it.
function world.note_thread(thread, facts)
  world.all_threads[thread] = facts
  world.keep(world.threads, thread)
end

function world.note_fiber(handle)
  world.all_fibers[handle] = true
  world.keep(world.handles, handle)
  return handle
end

function world.random(...)
  return random.new(world.seed, ...)
end

--- Sets the handler of errors that leave fibers: those that the library may not raise end the run.
function world.default_handler()
  ip.fiber.on_error(function(err) world.check_error("a fiber", err) end)
end

--- The open descriptors, as the system lists them.
function world.list_descriptors()
  local pipe <close> = io.popen(("ls -l /proc/%d/fd"):format(world.pid))
  return pipe and pipe:read("a") or ""
end

-- A pipe would count itself: a child of popen(3) may look before its parent has closed the end of the child.
local function count_descriptors()
  local path, count = os.tmpname(), 0
  os.execute(("ls /proc/%d/fd >%s"):format(world.pid, path))
  for _ in io.lines(path) do count = count + 1 end
  os.remove(path)
  return count
end

--- What is in use, as the library and the system tell.
function world.snapshot()
  collectgarbage()
  collectgarbage()
  local counts = core.fiber.statistics()
  counts.descriptors = count_descriptors()
  return counts
end

return world
