--- Shows the routers on the path to a host, with round-trip times. Linux; needs no privileges.
--- usage: lua5.4 traceroute.lua HOST

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local byte_span = require "byte_span"
local command_line = require "command_line"
local ip = require "ip"

local command = command_line.new {
  usage = "traceroute.lua [options] HOST",
  about = [[
Shows the routers on the way to a host (an address or a name), with the round-trip times of
probes. Each probe may take one hop more than the one before; the router where it ends tells
the sender. The port is one where nobody should listen, so that the host tells as well. The exit
code is 1 when it was not reached. Marks: * no answer in time, !H no way to the host, !N no way
to the network, !X forbidden, !<code> others.]],
  operands = "HOST",
  options = {
    { name = "max-hops", value = "N", read = command_line.integer(1, 255), default = 30,
      help = "give up after that many" },
    { name = "probes", value = "N", read = command_line.integer(1, 100), default = 3,
      help = "probes for each number of hops" },
    { name = "timeout", value = "SECONDS", read = command_line.seconds(false), default = 1,
      help = "how long to wait for each answer" },
    { name = "port", value = "PORT", read = command_line.remote_port, default = 33434,
      help = "the port of the first probe; each goes to the next one" },
  },
}
local options, operands = command:parse(arg)
if operands[2] then command:fail("unexpected argument " .. operands[2]) end

local function give_up(message)
  io.stderr:write("traceroute.lua: ", message, "\n")
  os.exit(1, true)
end

-- --- reports of routers and hosts ---

local HOPS_RAN_OUT = { icmp = "11 0", icmp6 = "3 0" }
local PORT_UNREACHABLE = { icmp = "3 3", icmp6 = "1 4" }
local marks = {
  icmp = { ["3 0"] = "!N", ["3 1"] = "!H", ["3 9"] = "!X", ["3 10"] = "!X", ["3 13"] = "!X" },
  icmp6 = { ["1 0"] = "!N", ["1 1"] = "!X", ["1 3"] = "!H" },
}

---@class answer
---@field from ip.address
---@field seconds number
---@field is_last boolean the probe has reached the host, or cannot get any further
---@field is_host boolean
---@field mark string? the problem

local function answer_of(report, seconds)
  local said = ("%d %d"):format(report.type, report.code)
  local is_host = said == PORT_UNREACHABLE[report.origin]
  local answer = { from = report.offender, seconds = seconds, is_host = is_host, is_last = true }
  if said == HOPS_RAN_OUT[report.origin] then
    answer.is_last = false
  elseif not is_host then
    answer.mark = marks[report.origin][said] or "!" .. report.code
  end
  return answer
end

-- Returns the oldest report about the probe to `port`. Late reports about earlier probes are ignored.
local function report_of(sock, port)
  for report in function() return sock:receive_error() end do
    if report.port == port and report.origin ~= "local" then return report end
  end
end

-- An ICMP message ends the receive with an error, and `receive_error` returns the details. A datagram is also
-- an answer: then a program listens at that port.
local function await_answer(sock, buf, host, port, sent)
  while true do
    local remaining = sent + options.timeout - ip.fiber.now()
    sock.receive_timeout = math.max(remaining, 0)
    local ok, _, from, from_port = pcall(sock.receive_from, sock, buf)
    local seconds = ip.fiber.now() - sent
    local report = report_of(sock, port)
    if report then return answer_of(report, seconds) end
    if ok and from == host and from_port == port then
      return { from = from, seconds = seconds, is_last = true, is_host = true }
    end
    if remaining <= 0 then return nil end
  end
end

-- --- the path ---

local function probe(sock, buf, info)
  local sent = ip.fiber.now()
  local ok, err = pcall(sock.send_message, sock, "a probe of traceroute.lua", info)
  if not ok then give_up(("cannot send to %s: %s"):format(info.address, err)) end
  return await_answer(sock, buf, info.address, info.port, sent)
end

local function write(...)
  io.stdout:write(...)
  io.stdout:flush()
end

-- Writes one line; returns the answer that ends the trace, if there is one.
local function show_hop(sock, buf, info)
  local last, previous
  write(("%2d "):format(info.hops))
  for _ = 1, options.probes do
    local answer = probe(sock, buf, info)
    info.port = info.port % 65535 + 1
    if not answer then
      write " *"
    else
      if answer.from ~= previous then write(" ", tostring(answer.from)) end
      write((" %.3f ms"):format(answer.seconds * 1000), answer.mark and " " .. answer.mark or "")
      previous = answer.from
      if answer.is_last then last = answer end
    end
  end
  write "\n"
  return last
end

local function trace(host)
  local sock <close> = ip.udp.bind(host.is_v4 and "0.0.0.0" or "::", 0, { receive_errors = true })
  local buf, info = byte_span.new(1500), { address = host, port = options.port }
  for hops = 1, options["max-hops"] do
    info.hops = hops
    local last = show_hop(sock, buf, info)
    if last then return last.is_host end
  end
  return false
end

local function find(name)
  local ok, result = pcall(ip.udp.get_address_info, name)
  if not ok then give_up(("cannot find %s: %s"):format(name, result)) end
  return result[1].address
end

command_line.run(ip.fiber.run, function()
  local host = find(operands[1])
  write(("traceroute to %s, %d hops at most\n"):format(host, options["max-hops"]))
  return trace(host)
end)
