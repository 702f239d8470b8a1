--- LuaSocket, blocking: luasocket.lua ROLE PEER_PORT SOCKETS. It uses one socket, because LuaSocket has no
--- event loop.

local socket = require "socket"

local role, peer_port = arg[1], tonumber(arg[2])
local sock = socket.udp4()
assert(sock:setsockname("127.0.0.1", 0))

local roles = {}

function roles.echo()
  while true do
    local data, host, port = sock:receivefrom()
    sock:sendto(data, host, port)
  end
end

function roles.connected()
  while true do sock:send((sock:receive())) end
end

function roles.receive()
  local total = 0
  while true do
    local data, host, port = sock:receivefrom()
    if #data > 1 then
      total = total + 1
    else
      sock:sendto(tostring(total), host, port)
      total = 0
    end
  end
end
roles.bulk = roles.receive

function roles.send()
  while true do
    local text, host, port = sock:receivefrom()
    local count, size, target = text:match("^(%d+) (%d+) (%d+)$")
    local payload, target_port = ("\0"):rep(tonumber(size)), tonumber(target)
    for _ = 1, tonumber(count) do sock:sendto(payload, "127.0.0.1", target_port) end
    sock:sendto("done", host, port)
  end
end

local _, port = sock:getsockname()
if role == "connected" then assert(sock:setpeername("127.0.0.1", peer_port)) end
if role == "bulk" then pcall(sock.setoption, sock, "recv-buffer-size", 4 << 20) end
print("port " .. port)
print "ready"
io.stdout:flush()
roles[role]()
