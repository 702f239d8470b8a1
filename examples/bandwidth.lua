--- Measures what a path carries: rate, loss, reordering, jitter. One program is both ends.
--- usage: lua5.4 bandwidth.lua [options]                  receives
---        lua5.4 bandwidth.lua --to HOST [options]        sends

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local byte_span = require "byte_span"
local command_line = require "command_line"
local ip = require "ip"

local fiber = ip.fiber
local now = fiber.now

-- A datagram begins with its kind, the id of its run, its number (from 1), and the time of the sender's clock. The end
-- has the number of datagrams that were sent, and is answered by a report.
local HEADER = ">I4 I4 I8 d"
local HEADER_SIZE = string.packsize(HEADER)
local DATA, END, REPORT = 0x62774431, 0x62774531, 0x62775231
local REPORT_FORMAT = ">I4 I4 I8 I8 I8 I8 d d" -- kind, run, received, bytes, reordered, dropped, seconds, jitter

local BURST = 32 -- datagrams of one batch or one segmented message, at most
local LARGEST_IN_BATCH = 9000 -- bytes of a datagram that a batch receives, unless --size says more
local LARGEST_BLOCK = 65000 -- of one segmented message
local PATIENCE = 0.2 -- seconds for the report, before the end is sent again
local TRIES = 15
local MOST_FLOWS = 64 -- runs that are known at a time

local modes = { plain = true, batch = true, coalesce = true, segments = true }

local function read_mode(text)
  if modes[text] then return text end
  return nil, "plain, batch, coalesce or segments expected"
end

local UNITS = { [""] = 1, K = 1e3, M = 1e6, G = 1e9 }

local function read_rate(text)
  local number, unit = text:match("^([%d.]+)([KMG]?)$")
  local rate = tonumber(number) and tonumber(number) * UNITS[unit]
  if rate and rate >= 1 and rate < math.huge then return rate end
  return nil, "a number of bits per second such as 100M expected"
end

local parser = command_line.new {
  usage = "bandwidth.lua [--to HOST] [options]",
  about = [[
Without --to it receives until Ctrl-C, and reports each run of a sender. With --to it sends, and
prints what the receiver has seen. The receiver's clock need not agree with the sender's.]],
  options = {
    { name = "to", value = "HOST", help = "send to this host: an address or a name" },
    { name = "port", value = "PORT", read = command_line.port, default = 9009,
      help = "the receiver's port; with 0 the system chooses one" },
    { name = "address", value = "ADDRESS", read = ip.address.parse, default = "127.0.0.1",
      help = "the v4 or v6 address to receive on" },
    { name = "mode", value = "MODE", read = read_mode, default = "plain",
      help = "plain, batch, coalesce or segments: how to send, or to receive" },
    { name = "size", value = "BYTES", read = command_line.integer(HEADER_SIZE, 65000), default = 1400,
      help = "how large each datagram is; mode batch receives at most 9000 bytes, or so many" },
    { name = "rate", value = "BITS", read = read_rate,
      help = "bits per second to send, such as 100M (default: as many as it can)" },
    { name = "seconds", value = "SECONDS", read = command_line.seconds(false), default = 5, help = "how long to send" },
    { name = "count", value = "N", read = command_line.integer(1, 1 << 40),
      help = "how many datagrams to send at most" },
    { name = "interval", value = "SECONDS", read = command_line.seconds(false), default = 1,
      help = "time from one progress line to the next" },
    { name = "once", help = "receive one run only" },
    { name = "json", help = "print one JSON object for each run, and no progress" },
  },
}
local options = parser:parse(arg)

-- --- what is printed ---

local on_terminal = not options.json and os.execute("test -t 1") == true

-- A progress line replaces the one before on a terminal.
local function progress(line)
  if options.json then return end
  io.write(on_terminal and "\r\27[K" or "", line, on_terminal and "" or "\n")
  io.flush()
end

local function say(line)
  io.write(on_terminal and "\r\27[K" or "", line, "\n")
  io.flush()
end

local function rate_text(bits)
  if bits >= 1e9 then return ("%.2f Gbit/s"):format(bits / 1e9) end
  if bits >= 1e6 then return ("%.1f Mbit/s"):format(bits / 1e6) end
  return ("%.1f kbit/s"):format(bits / 1e3)
end

local FIELDS = { "mode", "sent", "received", "bytes", "lost", "reordered", "dropped", "seconds", "bits_per_second",
  "datagrams_per_second", "jitter", "from" }

local function json_of(result)
  local parts = {}
  for _, name in ipairs(FIELDS) do
    local value = result[name]
    if value ~= nil then
      local text = math.type(value) == "float" and ("%.9g"):format(value) or tostring(value)
      parts[#parts + 1] = ("%q:%s"):format(name, type(value) == "string" and '"' .. value .. '"' or text)
    end
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- Completes a result, and prints it.
local function print_result(result)
  result.lost = math.max(result.sent - result.received, 0)
  result.dropped = math.min(result.dropped, result.lost) -- the end may have been dropped, too
  result.bits_per_second = result.seconds > 0 and result.bytes * 8 / result.seconds or 0.0
  result.datagrams_per_second = result.seconds > 0 and result.received / result.seconds or 0.0
  if options.json then return say(json_of(result)) end
  say(("%s, %.0f datagrams/s; %d of %d lost (%.2f %%), of these %d dropped by the receiving system; %d reordered; "
    .. "jitter %.3f ms"):format(rate_text(result.bits_per_second), result.datagrams_per_second, result.lost,
    result.sent, result.sent > 0 and 100 * result.lost / result.sent or 0, result.dropped, result.reordered,
    result.jitter * 1e3))
end

-- --- receiving ---

local flows, flow_count = {}, 0 -- id of a run -> the run, also of those that have got their report
local reports = 0 -- how many runs have got one

-- Begins a run. Where too many are known, the one that has been silent for the longest time is forgotten.
local function new_flow(run, time, dropped)
  if flow_count == MOST_FLOWS then
    local oldest
    for _, flow in pairs(flows) do
      if oldest == nil or flow.last < oldest.last then oldest = flow end
    end
    flows[oldest.run] = nil
    flow_count = flow_count - 1
  end
  local flow = { run = run, received = 0, bytes = 0, highest = 0, reordered = 0, jitter = 0.0, transit = nil,
    first = time, last = time, dropped = dropped }
  flows[run] = flow
  flow_count = flow_count + 1
  return flow
end

-- Counts a datagram. The jitter is that of RFC 3550, 6.4.1: the mean deviation of the differences between transit
-- times, in which the difference between the clocks cancels out.
local function count(flow, number, sent, length, time)
  flow.received = flow.received + 1
  flow.bytes = flow.bytes + length
  flow.last = time
  if number > flow.highest then flow.highest = number else flow.reordered = flow.reordered + 1 end
  local transit = time - sent
  if flow.transit then flow.jitter = flow.jitter + (math.abs(transit - flow.transit) - flow.jitter) / 16 end
  flow.transit = transit
end

-- The datagrams that the system has dropped on a socket; nil where it does not tell.
local function dropped_by(sock)
  local ok, dropped = pcall(sock.get_option, sock, "dropped")
  return ok and dropped or 0
end

local function finish(sock, run, total, address, port)
  local flow = flows[run]
  if flow == nil then return end
  if not flow.report then
    reports = reports + 1
    local seconds, dropped = flow.last - flow.first, dropped_by(sock) - flow.dropped
    flow.report = string.pack(REPORT_FORMAT, REPORT, run, flow.received, flow.bytes, flow.reordered, dropped, seconds,
      flow.jitter)
    print_result { mode = options.mode, sent = total, received = flow.received, bytes = flow.bytes,
      reordered = flow.reordered, dropped = dropped, seconds = seconds, jitter = flow.jitter,
      from = ip.tostring(address, port) }
  end
  pcall(sock.try_send_to, sock, flow.report, address, port) -- a forged sender may be one that nothing can be sent to
end

local function is_finite(number)
  return number == number and math.abs(number) < math.huge
end

-- Takes one datagram: the bytes of `data` from `position` on.
local function take(sock, data, position, length, time, address, port)
  if length < HEADER_SIZE then return end
  local kind, run, number, sent = data:unpack(HEADER, position)
  if number < 0 or not is_finite(sent) then return end
  if kind == DATA then
    count(flows[run] or new_flow(run, time, dropped_by(sock)), number, sent, length, time)
  elseif kind == END then
    finish(sock, run, number, address, port)
  end
end

local receivers = {}

function receivers.plain(sock)
  for data, address, port in sock:datagrams { capacity = 65535, max_ready = 64 } do
    take(sock, data, 1, #data, now(), address, port)
  end
end

receivers.coalesce = receivers.plain -- the option alone makes the difference

-- All datagrams of a batch or of a joined buffer have one time, so that the jitter is no smaller than their distance.
function receivers.batch(sock)
  local batch = ip.udp.batch.new(64, math.max(options.size, LARGEST_IN_BATCH))
  while true do
    local received, time = sock:receive_many(batch), now()
    for i = 1, received do
      local data, address, port = batch:get(i)
      take(sock, data, 1, #data, time, address, port)
    end
  end
end

function receivers.segments(sock)
  local block, info = byte_span.new(65535), {}
  while true do
    local n, time = sock:receive_message(block:resize(65535), info), now()
    local size = info.segment_size or n
    block:resize(n)
    for first = 1, n, math.max(size, 1) do
      take(sock, block, first, math.min(size, n - first + 1), time, info.address, info.port)
    end
  end
end

local socket_options = {
  plain = {}, batch = {}, coalesce = { coalesce = true }, segments = { receive_offload = true },
}

local function fail(...)
  if on_terminal then io.write("\r\27[K") end -- no error stands behind a progress line
  io.flush()
  io.stderr:write("bandwidth.lua: ", ...)
  io.stderr:write("\n")
  os.exit(1, true)
end

-- The system grants what it allows. A burst that does not fit is lost.
local function widen(sock, option)
  pcall(sock.set_option, sock, option, 4 << 20)
end

-- One line for all runs together, of those that were there an interval ago: the jitter is the largest.
local function report_progress()
  local time = now()
  while true do
    fiber.sleep(options.interval)
    local seconds = now() - time
    time = time + seconds
    local bytes, received, missing, jitter = 0, 0, 0, 0.0
    for _, flow in pairs(flows) do
      local before = flow.shown
      if before and not flow.report and flow.received > before.received then
        bytes, received = bytes + flow.bytes - before.bytes, received + flow.received - before.received
        missing, jitter = missing + math.max(flow.highest - flow.received, 0), math.max(jitter, flow.jitter)
      end
      flow.shown = { bytes = flow.bytes, received = flow.received }
    end
    if received > 0 then
      progress(("%s, %d datagrams/s, %d lost or late, jitter %.3f ms"):format(rate_text(bytes * 8 / seconds),
        received // seconds, missing, jitter * 1e3))
    end
  end
end

local function receive()
  local ok, sock = pcall(ip.udp.bind, options.address, options.port, socket_options[options.mode])
  if not ok then
    fail("cannot receive on ", ip.tostring(options.address, options.port), ": ", tostring(sock))
  end
  widen(sock, "receive_buffer_size")
  pcall(sock.set_option, sock, "receive_dropped", true)
  if not options.json then say("listening on " .. ip.tostring(sock.local_address, sock.local_port)) end
  fiber.spawn(report_progress):detach()
  local receiver = fiber.spawn(receivers[options.mode], sock)
  if not options.once then receiver:join() end
  while reports == 0 do fiber.sleep(0.05) end
  fiber.sleep(TRIES * PATIENCE / 3) -- for a sender that has not got the report
  receiver:interrupt()
end

-- --- sending ---

-- mode -> function that returns a function that sends an amount of datagrams from a number on, and the highest amount
local steps = {}

function steps.plain(sock, run)
  local data = byte_span.new(options.size)
  return function(number)
    data:pack(1, HEADER, DATA, run, number, now())
    sock:send(data)
  end, 1
end

steps.coalesce = steps.plain

function steps.batch(sock, run)
  local batch, spans = ip.udp.batch.new(BURST, options.size), {}
  for i = 1, BURST do
    batch:set(i, byte_span.new(options.size))
    spans[i] = batch[i]
  end
  return function(number, amount)
    local time = now()
    for i = 1, amount do spans[i]:pack(1, HEADER, DATA, run, number + i - 1, time) end
    sock:send_many(batch, 1, amount)
  end, BURST
end

-- One block of memory, which the system cuts into datagrams.
function steps.segments(sock, run)
  local segments = math.max(1, math.min(BURST, LARGEST_BLOCK // options.size))
  local block = byte_span.new(segments * options.size)
  sock:set_option("segment_size", options.size)
  return function(number, amount)
    local time = now()
    block:resize(amount * options.size)
    for i = 0, amount - 1 do block:pack(1 + i * options.size, HEADER, DATA, run, number + i, time) end
    sock:send(block)
  end, segments
end

-- What the network reports concerns an earlier datagram; a lack of buffers is over after a moment.
local function send_step(step, number, amount)
  local ok, err = pcall(step, number, amount)
  if ok then return true end
  if err ~= ip.error.ENOBUFS then error(err, 0) end
  fiber.sleep(0.001)
  return false
end

local sent = 0

-- Sends until the time is over. With a rate, each step is due when those before have taken their time at that rate.
local function send_all(step, per_step)
  local begin = now()
  local most = options.count or math.huge
  local seconds_each = options.rate and options.size * 8 / options.rate
  repeat
    local time = now()
    if seconds_each then
      local pause = begin + sent * seconds_each - time
      if pause > 0 then fiber.sleep(pause) end
    end
    local amount = math.min(per_step, most - sent)
    if send_step(step, sent + 1, amount) then sent = sent + amount end
  until time - begin >= options.seconds or sent >= most
end

-- Returns what a report of this run says; nil for any other datagram.
local function read_report(data, run)
  if #data ~= string.packsize(REPORT_FORMAT) then return nil end
  local report = table.pack(data:unpack(REPORT_FORMAT))
  if report[1] ~= REPORT or report[2] ~= run then return nil end
  for i = 3, 8 do
    if report[i] < 0 or not is_finite(report[i]) then return nil end
  end
  return report
end

local function ask_for_report(sock, run)
  local last = string.pack(HEADER, END, run, sent, now())
  local buf = byte_span.new(64)
  for _ = 1, TRIES do
    pcall(sock.send, sock, last)
    local ok, report = pcall(fiber.with_timeout, PATIENCE, function()
      while true do
        local n = sock:receive(buf:resize(64))
        local found = read_report(buf:resize(n), run)
        if found then return found end
      end
    end)
    if ok then return report end
  end
end

local function sending_progress()
  local before = 0
  while true do
    fiber.sleep(options.interval)
    progress(("sending %s"):format(rate_text((sent - before) * options.size * 8 / options.interval)))
    before = sent
  end
end

local function open_sender()
  local ok, list = pcall(ip.udp.get_address_info, options.to, options.port)
  if not ok then fail("cannot look up ", options.to, ": ", tostring(list)) end
  local coalesce = options.mode == "coalesce" or nil
  local connected, sock = pcall(ip.udp.connect, list[1].address, options.port, { coalesce = coalesce })
  if not connected then fail("cannot send to ", options.to, ": ", tostring(sock)) end
  widen(sock, "send_buffer_size")
  return sock
end

-- Where addresses in memory are not random, Lua begins with the same random number in each process of one second.
local function new_run()
  return (math.random(0) ~ math.tointeger(fiber.now() * 1e9 // 1)) & 0xFFFFFFFF
end

local function send()
  local sock <close> = open_sender()
  local run = new_run()
  local shows = fiber.spawn(sending_progress)
  shows:detach()
  local step, per_step = steps[options.mode](sock, run)
  local ok, err = pcall(send_all, step, per_step)
  if options.mode == "segments" then sock:set_option("segment_size", 0) end
  if not ok then fail("sending failed: ", tostring(err)) end
  shows:interrupt() -- it sends no more
  local report = ask_for_report(sock, run)
  if report == nil then fail("no report from ", options.to, ": no receiver there, or the path loses everything") end
  print_result { mode = options.mode, sent = sent, received = report[3], bytes = report[4], reordered = report[5],
    dropped = report[6], seconds = report[7], jitter = report[8] }
end

if options.to and options.port == 0 then parser:fail("--port 0: a sender needs the receiver's port") end
command_line.run(fiber.run, options.to and send or receive)
