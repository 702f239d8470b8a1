--- Sends every datagram back to its sender.
--- usage: lua5.4 echo_server.lua [--address ADDRESS] [--port PORT]

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

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

-- An error that concerns one datagram or one peer does not end the server. A series of equal ones is reported
-- once.
local reported
local function report(err)
  if err ~= reported then io.stderr:write("echo_server.lua: ", tostring(err), "\n") end
  reported = err
end

local function echo(data)
  return data
end

-- The server reuses one buffer for all datagrams, so it allocates nothing. A busy server lets other fibers run
-- after max_ready datagrams; this program has none.
command_line.run(function()
  local sock <close> = listen()
  print("listening on " .. ip.tostring(sock.local_address, sock.local_port))
  io.stdout:flush()
  sock:serve(echo, { capacity = LARGEST_DATAGRAM, max_ready = 64, on_error = report })
end)
