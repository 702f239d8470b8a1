--- Programs of our own under a tool that counts or changes their system calls; see platform.can_trace.

local support = require "spec.support"
local assert = require "luassert"

local trace = {}

--- A shell command that runs a Lua program (a file) with this library under `tool`, the words of a shell
--- command. The sanitizers are preloaded for the program and not for the tool; a process that is traced
--- cannot look for leaks.
---@param arguments string?
function trace.command(tool, path, arguments)
  return ('env -u LD_PRELOAD %s env LD_PRELOAD="$LD_PRELOAD" "%s" %s %s %s'):format(
    tool, "ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0", support.interpreter, path, arguments or "")
end

--- Runs a Lua program (source text) under a tool; returns its output (stdout and stderr, without the places of
--- errors) and its exit code.
function trace.run_under(tool, program)
  local path = support.write_file(program)
  local output, code = support.read_command(trace.command(tool, path) .. " 2>&1")
  os.remove(path)
  return support.without_places(output, path), code
end

--- The system calls that `strace -c` has counted, by name, and their sum as `total`; 0 for what was not
--- called. What a sanitizer adds is left out. Removes the file.
---@return table<string, integer>
function trace.read_counts(path)
  local counts = setmetatable({ total = 0 }, { __index = function() return 0 end })
  for line in io.lines(path) do
    -- "% time     seconds  usecs/call     calls    errors syscall"
    local calls, name = line:match("^%s*[%d.]+%s+[%d.]+%s+%d+%s+(%d+)%s.-([%w_]+)%s*$")
    if calls and name ~= "total" and name ~= "sigaltstack" then
      counts[name] = tonumber(calls)
      counts.total = counts.total + tonumber(calls)
    end
  end
  os.remove(path)
  return counts
end

--- How often a Lua program (source text) makes each system call (see read_counts); its output comes second.
---@param inside string? the words of a command that runs strace in a namespace
function trace.count(program, inside)
  local path = os.tmpname()
  local output = trace.run_under(("%s strace -f -c -o %s"):format(inside or "", path), program)
  return trace.read_counts(path), output
end

local ECHOES = [[
  local ip = require "ip"
  local rounds, options = %d, { coalesce = %s }
  local server = ip.udp.bind("127.0.0.1", 0, options)
  local client = ip.udp.connect("127.0.0.1", server.local_port)
  ip.fiber.run(function()
    local echo = ip.fiber.spawn(function() %s end)
    local buf = ip.byte_span.new(64)
    for _ = 1, rounds do
      client:send("payload")
      client:receive(buf)
    end
    echo:interrupt()
    echo:join()
  end)
  print "done"]]

--- How often each system call is made (see read_counts) by a program of `rounds` echoes, one at a time: of a client
--- that makes plain calls, and of `serve`, source text that uses the socket `server`.
---@param rounds integer
---@param coalesce boolean the option of the server
function trace.count_echoes(rounds, coalesce, serve)
  local calls, output = trace.count(ECHOES:format(rounds, coalesce, serve))
  assert.equal("done\n", output)
  return calls
end

--- The server of count_echoes that receives and sends batches of `slots` slots.
function trace.serve_by_batch(slots)
  return ([[
    local batch = ip.udp.batch.new(%d, 100)
    while true do
      server:receive_many(batch)
      server:send_many(batch)
    end]]):format(slots)
end

--- What strace writes of a Lua program (source text) with these options, such as "-e trace=sendmsg"; the
--- program's output comes second.
function trace.log(program, options)
  local path = os.tmpname()
  local output = trace.run_under(("strace -f -o %s %s"):format(path, options), program)
  local file <close> = assert(io.open(path))
  local text = file:read("a")
  os.remove(path)
  return text, output
end

--- The results of the calls in what `strace` has written, in order, such as "sendmsg 80" or "sendmsg -1 EIO".
---@return string[]
function trace.results(log)
  local results = {}
  for line in log:gmatch("[^\n]+") do
    local name, result = line:match("^%d+%s+([%w_]+)%(.*= (%-?%d+ ?%u*)")
    if name then results[#results + 1] = name .. " " .. result:match("^(.-) ?$") end
  end
  return results
end

return trace
