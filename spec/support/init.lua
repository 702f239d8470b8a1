--- What specs share: a guard that no spec hangs or leaves anything behind, and small helpers on real sockets.

local ip = require "ip"
local core = require "ip.core"

local support = {}

--- The number of open descriptors of this process, or nil where the system does not tell.
function support.descriptors()
  local lfs_ok, lfs = pcall(require, "lfs")
  if not lfs_ok or lfs.attributes("/proc/self/fd") == nil then return nil end
  local count = 0
  for name in lfs.dir("/proc/self/fd") do
    if name ~= "." and name ~= ".." then count = count + 1 end
  end
  return count
end

local function settle()
  collectgarbage()
  collectgarbage()
end

-- What is in use; compared with what was before, so that one broken spec does not fail all after it.
local function snapshot()
  settle()
  local counts = core.fiber.statistics()
  counts.descriptors = support.descriptors()
  return counts
end

local function check_nothing_left(before)
  for name, value in pairs(snapshot()) do
    if value ~= before[name] then error(("%s before: %s, after: %s"):format(name, before[name], value), 0) end
  end
end

--- Tools that watch a program slow it down: how many times as long as elsewhere it may take in this run.
support.patience = ({ valgrind = 20, sanitize = 4 })[os.getenv("LUA_IP_MODE")] or 1

local patience = support.patience

-- The loop's own descriptors are made by the first call that needs them.
pcall(ip.fiber.run, ip.fiber.sleep, 1e-6)
pcall(ip.fiber.wait_fd, 1000000, "r")

local function guard(run)
  return function()
    local before = snapshot()
    run()
    check_nothing_left(before)
  end
end

--- For `it`: runs `fn` in a fiber and fails when it takes longer than `seconds` (default 10) or when
--- operations, fibers, sockets or descriptors are left.
function support.with_loop(fn, seconds)
  return guard(function()
    ip.fiber.run(ip.fiber.with_timeout, (seconds or 10) * patience, fn)
  end)
end

--- Likewise, with `fn` on the main thread, which drives the loop itself whenever it waits.
function support.on_main(fn, seconds)
  return guard(function()
    ip.fiber.with_timeout((seconds or 10) * patience, fn)
  end)
end

-- Runs fn() in a coroutine that is no fiber.
local function in_coroutine(fn)
  return support.with_loop(function()
    local ok, err
    coroutine.wrap(function() ok, err = pcall(fn) end)()
    support.wait_until(function() return ok ~= nil end)
    if not ok then error(err, 0) end
  end)
end

--- Where a function of ours may be called, and how `it` runs a spec there.
support.contexts = {
  ["in a fiber"] = support.with_loop,
  ["on the main thread"] = support.on_main,
  ["in a coroutine of somebody else"] = in_coroutine,
}

--- A socket bound to a port of loopback that the system chose, and that port. `family`: "v4" (default) or
--- "v6".
function support.bound(family)
  local sock = ip.udp.bind(family == "v6" and "::1" or "127.0.0.1", 0)
  return sock, sock.local_port
end

--- Two sockets on loopback, each connected to the other.
function support.pair(family)
  local a, a_port = support.bound(family)
  local b, b_port = support.bound(family)
  a:connect(b.local_address, b_port)
  b:connect(a.local_address, a_port)
  return a, b
end

--- A bound socket, and one that sends to it.
function support.receiver()
  local sock, port = support.bound()
  return sock, ip.udp.connect("127.0.0.1", port)
end

--- Sends to a port of loopback.
function support.send(sock, port, data)
  sock:send_to(data, "127.0.0.1", port)
end

--- How often a fiber that only yields goes on while fn() runs.
function support.turns_during(fn)
  local turns = 0
  local other = ip.fiber.spawn(function()
    while true do
      turns = turns + 1
      ip.fiber.yield()
    end
  end)
  fn()
  other:interrupt()
  other:join()
  return turns
end

--- A port of loopback where nobody listens.
function support.dead_port(family)
  local sock, port = support.bound(family)
  sock:close()
  return port
end

--- The error that fn(...) raises; fails when it raises none.
function support.error_of(fn, ...)
  local ok, err = pcall(fn, ...)
  if ok then error("an error was expected", 2) end
  return err
end

--- The text of an error without the place where it was raised.
function support.text_of(err)
  return (tostring(err):gsub("^[^\n]-:%d+: ", "", 1))
end

--- Goes through the loop until `condition()` holds; a bound makes a broken promise a failure instead of a
--- hang.
function support.wait_until(condition)
  for _ = 1, 10000 do
    if condition() then return end
    ip.fiber.sleep(0.001)
  end
  error("the condition never came true", 2)
end

--- A fiber that runs fn(...) and waits in it when this function returns.
function support.waiting(fn, ...)
  local started = ip.fiber.spawn(fn, ...)
  support.wait_until(function() return started.status == "waiting" end)
  return started
end

--- A fiber that waits in sock:method(...) when this function returns; its join gives the results of pcall.
function support.suspended(sock, method, ...)
  return support.waiting(pcall, sock[method], sock, ...)
end

--- Runs fn() in a fiber to its end; returns how often the loop woke up meanwhile. On the main thread only.
function support.wakeups(fn)
  local results
  local count = 0
  ip.fiber.spawn(function() results = table.pack(pcall(fn)) end):detach()
  while results == nil do
    ip.fiber.loop:step(10)
    count = count + 1
  end
  if not results[1] then error(results[2], 0) end
  return count
end

--- The interpreter that runs the programs of specs.
support.interpreter = os.getenv("LUA_IP_LUA") or "lua5.4"

--- Writes a file of its own for this text; returns its path. Remove it.
function support.write_file(text)
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  assert(file:write(text))
  return path
end

--- The path of spec/programs/<name>.lua, a program that specs run in a process of its own.
function support.program(name)
  return assert(package.searchpath("spec.programs." .. name, package.path))
end

--- Reads what a shell command writes to stdout, to its end; returns that and the exit code, which is 128 and
--- the number of the signal that has ended it, as in a shell.
function support.read_command(command)
  local pipe = assert(io.popen(command))
  local output = pipe:read("a")
  local _, how, code = pipe:close()
  return output, how == "signal" and 128 + code or code
end

--- Runs a file of Lua in a process of its own with this library; returns its output (stdout and stderr) and
--- its exit code. `before` is a shell command that comes first, such as one that sets a limit.
---@param arguments string? words for the shell
---@param before string?
function support.run_file(path, arguments, before)
  return support.read_command(("{ %s && %s %s %s; } 2>&1"):format(
    before or ":", support.interpreter, path, arguments or ""))
end

--- The output of a program without the places where the errors in it were raised.
---@param path string? the program's file
function support.without_places(output, path)
  local file = path and path:gsub("%p", "%%%0") or "[^%s]*lua_%w+"
  return (output:gsub(file .. ":%d+: (%l[%w_]*[^\n]-: )", "%1"))
end

--- The same for source text; the output has no places of errors.
function support.run_program(program, arguments, before)
  local path = support.write_file(program)
  local output, code = support.run_file(path, arguments, before)
  os.remove(path)
  return support.without_places(output, path), code
end

return support
