--- luv with coroutines, wrapped as in programs that want sequential code:
--- luv_coroutines.lua ROLE PEER_PORT SOCKETS
---
--- A socket queues datagrams that arrive while no coroutine waits; a send that cannot complete immediately
--- waits for its callback.

local uv = require "luv"

local role, peer_port, sockets = arg[1], tonumber(arg[2]), tonumber(arg[3])

local socket = {}
socket.__index = socket

local function resume(co, ...)
  local ok, err = coroutine.resume(co, ...)
  if not ok then error(debug.traceback(co, err), 0) end
end

local function open()
  local self = setmetatable({ handle = uv.new_udp(), first = 1, last = 0, waiter = false }, socket)
  assert(self.handle:bind("127.0.0.1", 0))
  print("port " .. self.handle:getsockname().port)
  self.handle:recv_start(function(err, data, address)
    assert(not err, err)
    if not address then return end
    local waiter = self.waiter
    if waiter then
      self.waiter = false
      resume(waiter, data, address.ip, address.port)
    else
      self.last = self.last + 1
      self[self.last] = { data, address.ip, address.port }
    end
  end)
  return self
end

function socket:receive()
  if self.first <= self.last then
    local item = self[self.first]
    self[self.first] = nil
    self.first = self.first + 1
    return item[1], item[2], item[3]
  end
  self.waiter = coroutine.running()
  return coroutine.yield()
end

function socket:send(data, host, port)
  local sent, _, name = self.handle:try_send(data, host, port)
  if sent then return end
  if name ~= "EAGAIN" then error(name) end
  local co = coroutine.running()
  self.handle:send(data, host, port, function(err) resume(co, err) end)
  assert(not coroutine.yield())
end

local roles = {}

function roles.echo(sock)
  while true do
    local data, host, port = sock:receive()
    sock:send(data, host, port)
  end
end
roles.sockets = roles.echo

function roles.connected(sock)
  sock.handle:connect("127.0.0.1", peer_port)
  while true do sock:send((sock:receive())) end
end

function roles.receive(sock)
  local total = 0
  while true do
    local data, host, port = sock:receive()
    if #data > 1 then
      total = total + 1
    else
      sock:send(tostring(total), host, port)
      total = 0
    end
  end
end

function roles.bulk(sock)
  sock.handle:recv_buffer_size(4 << 20)
  roles.receive(sock)
end

function roles.send(sock)
  while true do
    local text, host, port = sock:receive()
    local count, size, target = text:match("^(%d+) (%d+) (%d+)$")
    local payload, target_port = ("\0"):rep(tonumber(size)), tonumber(target)
    for _ = 1, tonumber(count) do sock:send(payload, "127.0.0.1", target_port) end
    sock:send("done", host, port)
  end
end

for _ = 1, role == "sockets" and sockets or 1 do
  resume(coroutine.create(roles[role]), open())
end
print "ready"
io.stdout:flush()
uv.run()
