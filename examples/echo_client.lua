--- Measures round-trip times against echo_server.lua.
--- usage: lua5.4 echo_client.lua [--address ADDRESS] [--port PORT] [--count N] [--in-flight N] …

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local byte_span = require "byte_span"
local command_line = require "command_line"
local ip = require "ip"

-- Each datagram begins with the id of its run, its sequence number, and the time at which it was sent.
local HEADER = ">I4 I4 d"
local HEADER_SIZE = string.packsize(HEADER)
local LARGEST_DATAGRAM = 65507

local options = command_line.new {
  usage = "echo_client.lua [options]",
  about = "Sends datagrams to an echo server and measures how long each takes to come back.\n"
    .. "The exit code is 1 when nothing came back in time.",
  options = {
    { name = "address", value = "ADDRESS", read = ip.address.parse, default = "127.0.0.1",
      help = "the server's v4 or v6 address" },
    { name = "port", value = "PORT", read = command_line.remote_port, default = 9007, help = "the server's port" },
    { name = "count", value = "N", read = command_line.integer(1, 10000000), default = 1000,
      help = "how many datagrams to send" },
    { name = "size", value = "BYTES", read = command_line.integer(HEADER_SIZE, LARGEST_DATAGRAM), default = 64,
      help = "how large each is" },
    { name = "interval", value = "SECONDS", read = command_line.seconds(true), default = 0,
      help = "time from one to the next" },
    { name = "in-flight", value = "N", read = command_line.integer(1, 1000), default = 1,
      help = "how many may be on their way at once" },
    { name = "timeout", value = "SECONDS", read = command_line.seconds(false), default = 1,
      help = "how long to wait for each" },
    { name = "quiet", help = "no progress line" },
  },
}:parse(arg)

-- The state of each datagram, by sequence number, in one byte each, so that a long run needs little memory.
local OPEN, ANSWERED, LOST = 0, 1, 2
local fate = byte_span.new(options.count)

local run = math.random(0, 0xFFFFFFFF)
local started = ip.fiber.now()
local taken, settled = 0, 0
local times = {}
local lost, duplicates, late, foreign = 0, 0, 0, 0
local lost_by = {} -- number of lost datagrams, by the name of the error

-- Returns the next sequence number, or nil. With an interval it first waits until that datagram is due.
local function next_sequence()
  if taken == options.count then return nil end
  taken = taken + 1
  local sequence = taken
  local pause = started + (sequence - 1) * options.interval - ip.fiber.now()
  if options.interval > 0 and pause > 0 then ip.fiber.sleep(pause) end
  return sequence
end

-- On a connected socket, ECONNREFUSED from `send` concerns the previous datagram, which is already counted;
-- this datagram was not sent.
local function send(sock, message)
  local ok, err = pcall(sock.send, sock, message)
  if ok then return end
  if err ~= ip.error.ECONNREFUSED then error(err, 0) end
  sock:send(message)
end

-- Counts a datagram that is not the expected answer.
local function count_other(reply)
  local sequence = 0
  if #reply >= HEADER_SIZE then
    local its_run, its_sequence = reply:unpack(HEADER)
    if its_run == run and its_sequence <= options.count then sequence = its_sequence end
  end
  local what = sequence > 0 and fate[sequence] or OPEN
  if what == ANSWERED then
    duplicates = duplicates + 1
  elseif what == LOST then
    late = late + 1
    fate[sequence] = ANSWERED -- another copy is a duplicate
  else
    foreign = foreign + 1
  end
end

-- Sends one datagram and waits for its answer, which has the same bytes.
local function exchange(sock, message, reply, sequence)
  message:pack(1, HEADER, run, sequence, ip.fiber.now())
  send(sock, message)
  while true do
    local n = sock:receive(reply:resize(reply.capacity))
    if reply:resize(n) == message then break end
    count_other(reply)
  end
  local arrived = ip.fiber.now()
  local _, _, sent = reply:unpack(HEADER)
  return arrived - sent
end

-- Counts the datagram as lost: no answer in time (ETIMEDOUT), no program listens (ECONNREFUSED), no route,
-- …
local function count_lost(sequence, err)
  if type(err) ~= "userdata" then error(err, 0) end -- a mistake in this program
  fate[sequence] = LOST
  lost = lost + 1
  lost_by[err.name] = (lost_by[err.name] or 0) + 1
end

-- Handles one of the datagrams in flight. It has its own socket, so the code is sequential: an arriving
-- datagram answers the last datagram sent, or an earlier one.
local function exchange_many()
  local sock <close> = ip.udp.connect(options.address, options.port)
  local message = byte_span.new(options.size):fill(0x55)
  local reply = byte_span.new(options.size + 1) -- one byte more, to detect a longer datagram
  for sequence in next_sequence do
    local ok, result = pcall(ip.fiber.with_timeout, options.timeout, exchange, sock, message, reply, sequence)
    if ok then
      fate[sequence] = ANSWERED
      times[#times + 1] = result
    else
      count_lost(sequence, result)
    end
    settled = settled + 1
  end
end

-- Updates a progress line on the terminal.
local function show_progress()
  while true do
    ip.fiber.sleep(0.1)
    io.stderr:write(("\r%d of %d, %d lost "):format(settled, options.count, lost))
    io.stderr:flush()
  end
end

local function is_terminal()
  return os.execute("test -t 2") == true
end

local function measure()
  local workers = {}
  for i = 1, math.min(options["in-flight"], options.count) do
    workers[i] = ip.fiber.spawn(exchange_many)
  end
  local progress = not options.quiet and is_terminal() and ip.fiber.spawn(show_progress)
  for _, worker in ipairs(workers) do
    worker:join()
  end
  if not progress then return end
  progress:interrupt()
  progress:join()
  io.stderr:write("\r\27[K")
end

local function milliseconds(seconds)
  return ("%.3f ms"):format(seconds * 1000)
end

-- Returns the smallest time that at least `share` of all times do not exceed.
local function quantile(sorted, share)
  return sorted[math.max(1, math.ceil(share * #sorted))]
end

local function report_losses()
  local reasons = {}
  for name, count in pairs(lost_by) do
    reasons[#reasons + 1] = ("%d %s"):format(count, name)
  end
  table.sort(reasons)
  if reasons[1] then print("lost: " .. table.concat(reasons, ", ")) end
end

local function report()
  local share = settled > 0 and lost / settled * 100 or 0
  print(("%d sent, %d received, %d lost (%.1f %%)"):format(settled, #times, lost, share))
  report_losses()
  if duplicates + late + foreign > 0 then
    print(("also received: %d duplicates, %d too late, %d foreign"):format(duplicates, late, foreign))
  end
  if not times[1] then return end
  table.sort(times)
  print(("round trip: min %s, median %s, p99 %s, max %s"):format(milliseconds(times[1]),
    milliseconds(quantile(times, 0.5)), milliseconds(quantile(times, 0.99)), milliseconds(times[#times])))
end

-- Ctrl-C raises an error here; the results up to then are still shown.
command_line.run(function()
  local ok, err = pcall(ip.fiber.run, measure)
  report()
  if not ok then error(err, 0) end
  return times[1] ~= nil
end)
