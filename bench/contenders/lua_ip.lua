--- lua-ip, one datagram per call: lua_ip.lua [--calls] [--serve] [--coalesce] [--spin SECONDS] ROLE PEER_PORT SOCKETS

local byte_span = require "byte_span"
local ip = require "ip"
local fiber = ip.fiber

local CAPACITY = 2048

local function unavailable(reason)
  print("unavailable: " .. reason)
  os.exit(0, true)
end

local coalesce, by_calls, by_serve = false, false, false
while arg[1]:find("^%-%-") do
  local option = table.remove(arg, 1)
  if option == "--coalesce" then
    coalesce = true
  elseif option == "--calls" then
    by_calls = true
  elseif option == "--serve" then
    if not pcall(function() return ip.udp.socket.new().serve end) then
      unavailable("this version has no serve")
    end
    by_serve = true
  elseif option == "--spin" then
    local seconds = tonumber(table.remove(arg, 1))
    if not pcall(function() fiber.loop.spin = seconds end) then unavailable("this version's loop does not spin") end
  end
end
local role, peer_port, sockets = arg[1], tonumber(arg[2]), tonumber(arg[3])

local function open()
  local sock = ip.udp.bind("127.0.0.1", 0)
  if coalesce and not pcall(sock.set_option, sock, "coalesce", true) then
    unavailable("this version has no option `coalesce`")
  end
  print("port " .. sock.local_port)
  return sock
end

local roles = {}

-- The functions called for each datagram are looked up once, as in any hot loop in Lua. max_ready: after so
-- many consecutive datagrams other fibers run; this program has none.
local LOOP = { capacity = CAPACITY, max_ready = 64 }

function roles.echo(sock)
  local send_to = sock.send_to
  for data, address, port in sock:datagrams(LOOP) do
    send_to(sock, data, address, port)
  end
end

function roles.connected(sock)
  local send = sock.send
  for data in sock:datagrams(LOOP) do
    send(sock, data)
  end
end

function roles.receive(sock)
  local total = 0
  for data, address, port in sock:datagrams(LOOP) do
    if #data > 1 then
      total = total + 1
    else
      sock:send_to(tostring(total), address, port)
      total = 0
    end
  end
end

function roles.bulk(sock)
  sock:set_option("receive_buffer_size", 4 << 20)
  roles.receive(sock)
end

function roles.send(sock)
  while true do
    local text, address, port = sock:receive_string()
    local count, size, target = text:match("^(%d+) (%d+) (%d+)$")
    local payload, host = byte_span.new(tonumber(size)), ip.address.new("127.0.0.1")
    target = tonumber(target)
    local send_to = sock.send_to
    for _ = 1, tonumber(count) do
      send_to(sock, payload, host, target)
    end
    sock:send_to("done", address, port)
  end
end

-- With --calls: the same with receive_from, send_to and so on, each looked up by name in each call.
local calls = {}

function calls.echo(sock)
  local buf = byte_span.new(CAPACITY)
  while true do
    local n, address, port = sock:receive_from(buf:resize(CAPACITY))
    sock:send_to(buf:resize(n), address, port)
  end
end

function calls.connected(sock)
  local buf = byte_span.new(CAPACITY)
  while true do
    sock:send(buf:resize(sock:receive(buf:resize(CAPACITY))))
  end
end

if by_calls then
  for name, fn in pairs(calls) do roles[name] = fn end
end

-- With --serve: the answers are what a handler returns.
if by_serve then
  function roles.echo(sock)
    sock:serve(function(data) return data end, LOOP)
  end
  roles.connected = roles.echo
end

if role == "sockets" then
  for _ = 1, sockets do fiber.spawn(roles.echo, open()) end
else
  local sock = open()
  if role == "connected" then sock:connect("127.0.0.1", peer_port) end
  fiber.spawn(roles[role], sock)
end
print "ready"
io.stdout:flush()
fiber.run()
