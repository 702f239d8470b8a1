--- luv with callbacks: luv.lua ROLE PEER_PORT SOCKETS. Sends call try_send first, because it is the cheapest
--- call.

local uv = require "luv"

local role, peer_port, sockets = arg[1], tonumber(arg[2]), tonumber(arg[3])

local function ignore() end

local function send(sock, data, host, port)
  local sent, _, name = sock:try_send(data, host, port)
  if sent then return end
  if name ~= "EAGAIN" then error(name) end
  sock:send(data, host, port, ignore)
end

local roles = {}

function roles.echo(sock)
  sock:recv_start(function(err, data, address)
    assert(not err, err)
    if address then send(sock, data, address.ip, address.port) end
  end)
end
roles.sockets = roles.echo

function roles.connected(sock)
  sock:connect("127.0.0.1", peer_port)
  sock:recv_start(function(err, data, address)
    assert(not err, err)
    if address then send(sock, data) end
  end)
end

function roles.receive(sock)
  local total = 0
  sock:recv_start(function(err, data, address)
    assert(not err, err)
    if not address then return end
    if #data > 1 then
      total = total + 1
    else
      send(sock, tostring(total), address.ip, address.port)
      total = 0
    end
  end)
end

function roles.bulk(sock)
  sock:recv_buffer_size(4 << 20)
  roles.receive(sock)
end

function roles.send(sock)
  sock:recv_start(function(err, data, address)
    assert(not err, err)
    if not address then return end
    local count, size, target = data:match("^(%d+) (%d+) (%d+)$")
    local payload, port = ("\0"):rep(tonumber(size)), tonumber(target)
    for _ = 1, tonumber(count) do send(sock, payload, "127.0.0.1", port) end
    send(sock, "done", address.ip, address.port)
  end)
end

for _ = 1, role == "sockets" and sockets or 1 do
  local sock = uv.new_udp()
  assert(sock:bind("127.0.0.1", 0))
  print("port " .. sock:getsockname().port)
  roles[role](sock)
end
print "ready"
io.stdout:flush()
uv.run()
