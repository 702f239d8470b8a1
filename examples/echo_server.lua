--- Sends every datagram back to its sender.
--- usage: lua5.4 echo_server.lua [--address ADDRESS] [--port PORT]

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local byte_span = require "byte_span"
local command_line = require "command_line"
local ip = require "ip"

local LARGEST_DATAGRAM = 65535

local options = command_line.new {
  usage = "echo_server.lua [options]",
  about = "Sends every UDP datagram back to its sender, until Ctrl-C.",
  options = {
    { name = "address", value = "ADDRESS", read = ip.address.parse, default = "127.0.0.1",
      help = "the v4 or v6 address to listen on" },
    { name = "port", value = "PORT", read = command_line.port, default = 9007,
      help = "the port to listen on; with 0 the system chooses one" },
  },
}:parse(arg)

local function listen()
  local ok, result = pcall(ip.udp.bind, options.address, options.port)
  if ok then return result end
  local endpoint = ip.tostring(options.address, options.port)
  io.stderr:write(("echo_server.lua: cannot listen on %s: %s\n"):format(endpoint, result))
  os.exit(1, true)
end

-- The loop reuses one span for all datagrams, so it allocates nothing. A busy loop lets other fibers run
-- after max_ready datagrams; this program has no other fibers.
local function echo(sock, buffer)
  for data, address, port in sock:datagrams { buffer = buffer, capacity = LARGEST_DATAGRAM, max_ready = 64 } do
    sock:send_to(data, address, port)
  end
end

-- An error reported by the system concerns one datagram or one peer (ECONNREFUSED, EHOSTUNREACH, EINVAL for a
-- sender with port 0, …). Any other error is a mistake in this program.
local function is_passing(err)
  if type(err) ~= "userdata" or err.category ~= "system" then return false end
  return err ~= ip.error.EBADF and err ~= ip.error.ECANCELED
end

local function serve(sock)
  local buffer = byte_span.new(LARGEST_DATAGRAM)
  local reported
  while true do
    local _, err = pcall(echo, sock, buffer)
    if not is_passing(err) then error(err, 0) end
    if err ~= reported then io.stderr:write("echo_server.lua: ", tostring(err), "\n") end
    reported = err -- a series of equal errors is reported once
    ip.fiber.yield() -- an endless series of errors must not starve other fibers
  end
end

local sock <close> = listen()
print("listening on " .. ip.tostring(sock.local_address, sock.local_port))
io.stdout:flush()
ip.fiber.run(serve, sock)
