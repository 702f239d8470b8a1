--- What the specs of ip.udp.socket share.

local ip = require "ip"
local assert = require "luassert"

local sockets = {}

--- Values that are no port, and values that are no address.
sockets.bad_ports = { -1, 65536, 1.5, "80", math.huge, true }
sockets.bad_addresses = { "", "localhost", "127.0.0", "127.0.0.1 ", 5, true, {} }

--- Reads a property; for pcall and its like.
function sockets.get(sock, property)
  return sock[property]
end

--- Writes a property.
function sockets.set(sock, property, value)
  sock[property] = value
end

--- All that can be taken from the socket without waiting, as strings.
function sockets.drain(sock)
  local buf, list = ip.byte_span.new(64), {}
  while true do
    local n = sock:try_receive(buf)
    if n == nil then return list end
    list[#list + 1] = buf:sub(1, n)
  end
end

--- A session, its peer, and their listener, which has these options. The peer's first datagram has been received.
function sockets.session(options)
  local listener = ip.udp.listen("127.0.0.1", 0, options)
  local peer = ip.udp.connect("127.0.0.1", listener.local_port)
  peer:send("hello")
  local session = listener:accept()
  assert.equal("hello", (session:receive_string()))
  return session, peer, listener
end

return sockets
