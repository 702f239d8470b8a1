--- An echo server of several processes on one port, and a measurement of their echo rate.
--- usage: lua5.4 workers.lua [--workers N]
---        lua5.4 workers.lua --serve [--workers N] [--port PORT]

local directory = arg[0]:match("^.*/") or "./"
package.path = directory .. "?.lua;" .. package.path

local command_line = require "command_line"
local ip = require "ip"

local SOCKETS_PER_WORKER = 32 -- sockets of the load: the system chooses a worker by the sender's port
local BURST = 4 -- datagrams in flight on each socket; all of them together fit into a worker's receive buffer
local LOST = 0.1 -- seconds after which an answer counts as lost
local PATIENCE = 10 -- seconds for a process to start or to answer
local WARM_UP = 0.2
local LARGEST_DATAGRAM = 65535
local REPORT = "I4 I8 d" -- the worker's number, its echoes, its processor time in seconds
local SCRIPT = "workers.lua"

local function cores()
  local pipe <close> = assert(io.popen("nproc 2>/dev/null || getconf _NPROCESSORS_ONLN"))
  return pipe:read("n") or 1
end

local roles = { worker = true, load = true }

local function read_role(text)
  if roles[text] then return text end
  return nil, "worker or load expected"
end

local options = command_line.new {
  usage = "workers.lua [--serve] [options]",
  about = [[
Echoes datagrams with several processes that share one port (`reuse_port`). Without --serve it
measures what one worker, two workers, … reach on this machine, under a load that it makes itself.
With --serve the workers serve until Ctrl-C.]],
  options = {
    { name = "serve", help = "serve instead of measuring" },
    { name = "workers", value = "N", read = command_line.integer(1, 1000),
      help = "how many workers, or at most how many to measure with (default: one for each core)" },
    { name = "address", value = "ADDRESS", read = ip.address.parse, default = "127.0.0.1",
      help = "the v4 or v6 address to listen on" },
    { name = "port", value = "PORT", read = command_line.port, default = 0,
      help = "the port to listen on; with 0 the system chooses one" },
    { name = "seconds", value = "SECONDS", read = command_line.seconds(false), default = 2,
      help = "how long to measure each time" },
    { name = "loads", value = "N", read = command_line.integer(1, 1000),
      help = "how many processes make the load (default: one for each two workers)" },
    { name = "size", value = "BYTES", read = command_line.integer(1, 1472), default = 64,
      help = "how large the datagrams of the load are" },
    { name = "role", value = "ROLE", read = read_role, help = "what this script starts itself with" },
    { name = "number", value = "N", read = command_line.integer(1, 1000), default = 1, help = "likewise" },
    { name = "sockets", value = "N", read = command_line.integer(1, 100000), default = 1, help = "likewise" },
    { name = "control", value = "PORT", read = command_line.port, default = 0, help = "likewise" },
  },
}:parse(arg)

local function complain(...)
  io.stderr:write(SCRIPT, ": ", ...)
  io.stderr:write("\n")
end

-- An error reported by the system concerns one datagram or one peer. Any other error is a mistake in this
-- program.
local function is_passing(err)
  if type(err) ~= "userdata" or err.category ~= "system" then return false end
  return err ~= ip.error.EBADF and err ~= ip.error.ECANCELED
end

-- --- in the child processes ---

-- The standard input of a child process is a pipe to which no process writes. The pipe closes when the first
-- process closes it or ends, for whatever reason, so no child outlives the first process. Ctrl-C reaches all
-- processes, and only the first one handles it.
local function wait_for_the_end()
  ip.fiber.spawn(function()
    while true do ip.fiber.wait_signal("SIGINT") end
  end):detach()
  ip.fiber.wait_fd(0, "r")
end

local echoes = 0

local function echo(data)
  echoes = echoes + 1
  return data
end

-- Reports that the worker is ready and, on each request, the number of its echoes and their processor time.
local function report(control)
  control:send(string.pack(REPORT, options.number, 0, 0))
  while true do
    local ok, err = pcall(function()
      control:receive_string()
      control:send(string.pack(REPORT, options.number, echoes, os.clock()))
    end)
    if not ok and not is_passing(err) then error(err, 0) end
    if not ok then ip.fiber.yield() end
  end
end

function roles.worker()
  local sock = ip.udp.bind(options.address, options.port, { reuse_port = true })
  local control = ip.udp.connect("127.0.0.1", options.control)
  ip.fiber.spawn(sock.serve, sock, echo, { capacity = LARGEST_DATAGRAM }):detach()
  ip.fiber.spawn(report, control):detach()
  wait_for_the_end()
end

-- Sends a burst when the previous burst has come back. Lost and late datagrams are sent again.
local function keep_busy()
  local sock = ip.udp.connect(options.address, options.port, { receive_timeout = LOST })
  local burst, answers = ip.udp.batch.new(BURST, options.size), ip.udp.batch.new(BURST, options.size)
  for i = 1, BURST do burst:set(i, ("x"):rep(options.size)) end
  while true do
    local missing = BURST
    local ok, result = pcall(sock.send_many, sock, burst)
    while ok and missing > 0 do
      ok, result = pcall(sock.receive_many, sock, answers)
      if ok then missing = missing - result end
    end
    if not ok and not is_passing(result) then error(result, 0) end
    if not ok then ip.fiber.yield() end
  end
end

function roles.load()
  for _ = 1, options.sockets do ip.fiber.spawn(keep_busy):detach() end
  wait_for_the_end()
end

-- --- in the first process ---

local function quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

-- The interpreter is the word before the script and the interpreter's options.
local function interpreter()
  local first = 0
  while arg[first - 1] do first = first - 1 end
  return first < 0 and arg[first] or "lua5.4"
end

---@class children
---@field pipes file*[]
local children = {}
children.__index = children

local CTRL_C = { signal = 2, exit = 130 } -- how a process ends that was still starting

-- Ends the processes and waits for them.
function children:__close()
  for i, pipe in ipairs(self.pipes) do
    local ok, how, code = pipe:close()
    if not ok and code ~= CTRL_C[how] then complain(("process %d has ended with %s %s"):format(i, how, code)) end
  end
end

local function new_children()
  return setmetatable({ pipes = {} }, children)
end

function children:start(role, values)
  local words = { interpreter(), arg[0], "--role", role, "--address", options.address, "--size", options.size }
  for name, value in pairs(values) do
    words[#words + 1] = "--" .. name
    words[#words + 1] = value
  end
  for i, word in ipairs(words) do words[i] = quote(word) end
  -- popen closes the pipes to the other processes in the new process
  self.pipes[#self.pipes + 1] = assert(io.popen("exec " .. table.concat(words, " "), "w"))
end

-- Returns what a report says; nil for a datagram of somebody else, whom nobody keeps from sending to the port.
local function read_report(text, count)
  if #text ~= string.packsize(REPORT) then return nil end
  local number, echoed, processor_time = string.unpack(REPORT, text)
  if number < 1 or number > count or echoed < 0 or not (processor_time >= 0 and processor_time < math.huge) then
    return nil
  end
  return { number = number, echoes = echoed, processor_time = processor_time }
end

-- Waits for a report of worker `number`, or of any. Once the port of a worker is known, its reports come from there.
local function receive_report(control, count, ports, number)
  local function next_report()
    while true do
      local text, _, port = control:receive_string()
      local said = read_report(text, count)
      if said and (number or said.number) == said.number and ports[said.number] == (number and port) then
        said.port = port
        return said
      end
    end
  end
  local ok, result = pcall(ip.fiber.with_timeout, PATIENCE, next_report)
  if ok then return result end
  if result == ip.error.ETIMEDOUT then complain("a worker does not answer") end
  error(result, 0)
end

-- Starts workers on one port and waits until all listen. Returns the port and a function that requests the
-- report of each worker.
local function start_workers(group, count)
  -- This process holds the port until the workers have bound it, and closes its socket before the first
  -- datagram arrives: otherwise the system would deliver a share of the datagrams to that socket.
  local bound, holder = pcall(ip.udp.bind, options.address, options.port, { reuse_port = true })
  if not bound then
    complain(("cannot listen on %s: %s"):format(ip.tostring(options.address, options.port), holder))
    os.exit(1, true)
  end
  local port = holder.local_port
  local control = ip.udp.bind("127.0.0.1", 0)
  for i = 1, count do
    group:start("worker", { number = i, port = port, control = control.local_port })
  end
  local ports = {}
  for _ = 1, count do
    local first = receive_report(control, count, ports)
    ports[first.number] = first.port
  end
  holder:close()
  return port, function()
    local reports = {}
    for i = 1, count do
      control:send_to("how many?", "127.0.0.1", ports[i])
      reports[i] = receive_report(control, count, ports, i)
    end
    return reports
  end
end

local function total_of(reports, field)
  local total = 0
  for _, each in ipairs(reports) do total = total + each[field] end
  return total
end

local function all_have_echoed(reports)
  for _, each in ipairs(reports) do
    if each.echoes == 0 then return false end
  end
  return true
end

local function shares_of(reports)
  local total, shares = total_of(reports, "echoes"), {}
  for i, each in ipairs(reports) do
    shares[i] = ("%.1f"):format(total > 0 and each.echoes / total * 100 or 0)
  end
  return table.concat(shares, " ")
end

-- Returns the differences between two reports of each worker.
local function difference(later, earlier)
  local result = {}
  for i, each in ipairs(later) do
    result[i] = { echoes = each.echoes - earlier[i].echoes,
      processor_time = each.processor_time - earlier[i].processor_time }
  end
  return result
end

local function measure_with(count, loads)
  local workers <close> = new_children()
  local port, ask = start_workers(workers, count)
  local load <close> = new_children() -- closed before the workers
  for _ = 1, loads do
    load:start("load", { port = port, sockets = math.ceil(SOCKETS_PER_WORKER * count / loads) })
  end
  local deadline = ip.fiber.now() + PATIENCE
  repeat -- until the load has started
    ip.fiber.sleep(WARM_UP)
  until all_have_echoed(ask()) or ip.fiber.now() > deadline
  local before, start = ask(), ip.fiber.now()
  ip.fiber.sleep(options.seconds)
  local reports, seconds = difference(ask(), before), ip.fiber.now() - start
  print(("%7d %12.0f %11.2f  %s"):format(count, total_of(reports, "echoes") / seconds,
    total_of(reports, "processor_time") / seconds, shares_of(reports)))
  io.stdout:flush()
end

local function measure(most)
  local loads = options.loads or (most + 1) // 2
  print(("%d cores, datagrams of %d bytes, load by %d process%s"):format(cores(), options.size, loads,
    loads > 1 and "es" or ""))
  print("workers  datagrams/s  cores used  share of each worker, %")
  io.stdout:flush()
  for count = 1, most do measure_with(count, loads) end
end

local function serve(count)
  local workers <close> = new_children()
  local port, ask = start_workers(workers, count)
  print(("listening on %s with %d workers"):format(ip.tostring(options.address, port), count))
  io.stdout:flush()
  ip.fiber.wait_signal("SIGINT", "SIGTERM")
  local reports = ask()
  print(("%d echoes, share of each worker, %%: %s"):format(total_of(reports, "echoes"), shares_of(reports)))
end

-- Ctrl-C ends a measurement and all its processes.
local function measure_until_interrupted(most)
  local measuring = ip.fiber.spawn(measure, most)
  ip.fiber.spawn(function()
    ip.fiber.wait_signal("SIGINT", "SIGTERM")
    measuring:interrupt()
  end):detach()
  measuring:join()
  if measuring.interruption_caught then os.exit(130, true) end
end

if options.role then
  command_line.run(roles[options.role])
else
  command_line.run(ip.fiber.run, options.serve and serve or measure_until_interrupted, options.workers or cores())
end
