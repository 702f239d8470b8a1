--- A UDP relay: forwards the datagrams of clients to one server, and the server's answers to their clients.
--- usage: lua5.4 udp_relay.lua --to HOST --to-port PORT [--listen ADDRESS] [--port PORT]

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local command_line = require "command_line"
local ip = require "ip"

local LARGEST_DATAGRAM = 65535

local command = command_line.new {
  usage = "udp_relay.lua --to HOST --to-port PORT [options]",
  about = [[
Sends what UDP clients send on to a server, and its answers back, until Ctrl-C. Each client has
a socket of its own towards the server, so that the server sees different clients as different
ports. A client that is idle in both directions is forgotten.]],
  options = {
    { name = "listen", value = "ADDRESS", read = ip.address.parse, default = "127.0.0.1",
      help = "the v4 or v6 address to listen on" },
    { name = "port", value = "PORT", read = command_line.port, default = 9008,
      help = "the port to listen on; with 0 the system chooses one" },
    { name = "to", value = "HOST", help = "the server: an address or a name" },
    { name = "to-port", value = "PORT", read = command_line.remote_port, help = "the server's port" },
    { name = "idle", value = "SECONDS", read = command_line.seconds(false), default = 30,
      help = "forget clients after that much silence" },
    { name = "clients", value = "N", read = command_line.integer(1, 1000000), default = 1000,
      help = "as many at the same time; datagrams of others are dropped" },
    { name = "verbose", help = "tell of each client that comes or goes" },
  },
}
local options = command:parse(arg)

local function complain(...)
  io.stderr:write("udp_relay.lua: ", ...)
  io.stderr:write("\n")
end

local function give_up(...)
  complain(...)
  os.exit(1, true)
end

-- An error reported by the system concerns one datagram or one peer. Any other error is a mistake in this
-- program.
local function is_passing(err)
  if type(err) ~= "userdata" or err.category ~= "system" then return false end
  return err ~= ip.error.EBADF and err ~= ip.error.ECANCELED
end

-- --- clients ---

---@class client
---@field key string
---@field address ip.address
---@field port integer
---@field upstream ip.udp.socket connected to the server
---@field heard number the time of the last datagram from or to the client

local clients = {} -- by endpoint key
local client_count = 0

local function tell(client, what)
  if not options.verbose then return end
  print(("%s %s, clients: %d"):format(ip.tostring(client.address, client.port), what, client_count))
  io.stdout:flush()
end

local function forget(client)
  client.upstream:close()
  clients[client.key] = nil
  client_count = client_count - 1
  tell(client, "has gone")
end

-- Forwards the server's answers until the client has been idle for too long. A string takes only the memory
-- of one answer; a span would have to hold the largest datagram, for every client.
local function answer(listener, client)
  local remaining = options.idle
  while remaining > 0 do
    client.upstream.receive_timeout = remaining
    local ok, result = pcall(client.upstream.receive_string, client.upstream)
    if ok then
      client.heard = ip.fiber.now()
      ok, result = pcall(listener.send_to, listener, result, client.address, client.port)
    end
    -- The server's port may be closed, or the time may be over. Only the time since the client's last
    -- datagram counts.
    if not ok and not is_passing(result) then error(result, 0) end
    remaining = client.heard + options.idle - ip.fiber.now()
  end
  forget(client)
end

local function welcome(listener, server, key, address, port)
  if client_count >= options.clients then return nil end
  local upstream = ip.udp.connect(server, options["to-port"])
  local client = { key = key, address = address, port = port, upstream = upstream, heard = ip.fiber.now() }
  clients[key] = client
  client_count = client_count + 1
  ip.fiber.spawn(answer, listener, client)
  tell(client, "has come")
  return client
end

-- --- forwarding to the server ---

local reported
local function report(err)
  if err ~= reported then complain(tostring(err)) end
  reported = err -- a series of equal errors is reported once
end

-- `try_send` never waits, so a client that sends too much does not delay the others. A datagram that it
-- cannot send is dropped, as a router would do.
local function forward(listener, server, data, address, port)
  local key = ip.endpoint_key(address, port)
  local client = clients[key] or welcome(listener, server, key, address, port)
  if client then
    client.heard = ip.fiber.now()
    client.upstream:try_send(data)
  end
end

local function relay(listener, server)
  listener:serve(function(data, address, port)
    local ok, err = pcall(forward, listener, server, data, address, port)
    if ok then return end
    if not is_passing(err) then error(err, 0) end
    report(err)
  end, { capacity = LARGEST_DATAGRAM, on_error = report })
end

local function find_server()
  local ok, result = pcall(ip.udp.get_address_info, options.to)
  if not ok then give_up(("cannot find %s: %s"):format(options.to, result)) end
  return result[1].address
end

local function listen()
  local ok, result = pcall(ip.udp.bind, options.listen, options.port)
  if not ok then give_up(("cannot listen on %s: %s"):format(ip.tostring(options.listen, options.port), result)) end
  return result
end

if not options.to then command:fail("--to HOST expected") end
if not options["to-port"] then command:fail("--to-port PORT expected") end
command_line.run(ip.fiber.run, function()
  local server = find_server()
  local listener <close> = listen()
  print(("listening on %s for %s"):format(ip.tostring(listener.local_address, listener.local_port),
    ip.tostring(server, options["to-port"])))
  io.stdout:flush()
  relay(listener, server)
end)
