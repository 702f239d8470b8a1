--- Finds the largest packet that the path to a host carries. Linux; needs no privileges.
--- usage: lua5.4 path_mtu.lua HOST

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local command_line = require "command_line"
local ip = require "ip"

local command = command_line.new {
  usage = "path_mtu.lua [options] HOST",
  about = [[
Finds out how large a packet the path to a host (an address or a name) takes: sends packets that
must not be cut in pieces, and goes by what routers say of those that are too large. The port is
one where nobody should listen, so that the host tells what has arrived; an echo server does, too.
The exit code is 1 when nothing has.]],
  operands = "HOST",
  options = {
    { name = "port", value = "PORT", read = command_line.remote_port, default = 33434, help = "the port to send to" },
    { name = "timeout", value = "SECONDS", read = command_line.seconds(false), default = 1,
      help = "how long to wait for each answer" },
    { name = "tries", value = "N", read = command_line.integer(1, 100), default = 3,
      help = "how often to send what is not answered" },
  },
}
local options, operands = command:parse(arg)
if operands[2] then command:fail("unexpected argument " .. operands[2]) end

local function give_up(message)
  io.stderr:write("path_mtu.lua: ", message, "\n")
  os.exit(1, true)
end

local UDP_HEADER = 8
local V4_HEADER, V6_HEADER = 20, 40
local LARGEST_PACKET = 65535 -- the limit of v4, which is also used for v6

-- --- probes ---

-- Returns the result of a probe according to the oldest report ("arrived", "too large", or another error),
-- and the sender of the report. A router's message about an earlier, larger packet also counts, because the
-- kernel has used its MTU since.
local function news(sock)
  local report = sock:receive_error()
  if not report then return nil end
  if report.error == ip.error.EMSGSIZE then return "too large", report.offender end
  if report.error == ip.error.ECONNREFUSED then return "arrived", report.offender end
  return tostring(report.error), report.offender
end

-- The system refuses a packet that is too large for the next link; the report of a router arrives later and
-- ends the receive.
local function try(sock, payload)
  local ok, err = pcall(sock.send, sock, payload)
  if not ok and err ~= ip.error.EMSGSIZE then return tostring(err) end
  if ok then
    local answered = pcall(sock.receive_string, sock, 0)
    if answered then return "arrived" end
  end
  return news(sock)
end

local function probe(sock, size)
  local payload = ("x"):rep(size)
  for _ = 1, options.tries do
    local result, from = try(sock, payload)
    if result then return result, from end
  end
  return "no answer"
end

-- --- the path ---

local function show(size, result, from)
  print(("%5d bytes: %s"):format(size, result) .. (from and (" (%s)"):format(from) or ""))
  io.stdout:flush()
end

-- Begins with the MTU that the system knows, which is that of the next link unless the path was used before.
-- After each "too large" the system knows a smaller MTU.
local function discover(host)
  local headers = UDP_HEADER + (host.is_v4 and V4_HEADER or V6_HEADER)
  local sock <close> = ip.udp.connect(host, options.port, {
    path_mtu_discovery = "do",
    receive_errors = true,
    receive_timeout = options.timeout,
  })
  local size = math.min(sock:get_option("mtu"), LARGEST_PACKET)
  while true do
    local result, from = probe(sock, size - headers)
    show(size, result, from)
    if result == "arrived" then return size end
    local known = sock:get_option("mtu")
    if result ~= "too large" or known >= size then return nil end
    size = known
  end
end

local function find(name)
  local ok, result = pcall(ip.udp.get_address_info, name)
  if not ok then give_up(("cannot find %s: %s"):format(name, result)) end
  return result[1].address
end

command_line.run(ip.fiber.run, function()
  local host = find(operands[1])
  local size = discover(host)
  if not size then give_up(("the path to %s is not known"):format(host)) end
  print(("the path to %s takes %d bytes"):format(host, size))
end)
