--- lua-ip with receive_many and send_many: lua_ip_batch.lua [--read] ROLE PEER_PORT SOCKETS With --read the
--- echo reads every entry.

local byte_span = require "byte_span"
local ip = require "ip"

local SLOTS, CAPACITY = 64, 2048

local roles = {}

function roles.echo(sock)
  local batch = ip.udp.batch.new(SLOTS, CAPACITY)
  while true do
    sock:receive_many(batch)
    sock:send_many(batch)
  end
end

function roles.read(sock)
  local batch = ip.udp.batch.new(SLOTS, CAPACITY)
  local bytes = 0
  while true do
    for i = 1, sock:receive_many(batch) do
      local span, _, port, truncated = batch:get(i)
      if truncated or port == 0 then error "never" end
      bytes = bytes + #span
    end
    sock:send_many(batch)
  end
end

function roles.receive(sock)
  local batch = ip.udp.batch.new(SLOTS, CAPACITY)
  local total = 0
  while true do
    local count = sock:receive_many(batch)
    total = total + count
    if #batch[count] == 1 then
      local _, address, port = batch:get(count)
      sock:send_to(tostring(total - 1), address, port)
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
    local payload = byte_span.new(tonumber(size))
    local batch = ip.udp.batch.new(SLOTS, CAPACITY)
    for i = 1, SLOTS do batch:set(i, payload, "127.0.0.1", tonumber(target)) end
    local left = tonumber(count)
    while left > 0 do
      left = left - sock:send_many(batch, 1, math.min(left, SLOTS))
    end
    sock:send_to("done", address, port)
  end
end

local reads = arg[1] == "--read" and table.remove(arg, 1) ~= nil
local role = arg[1] == "sockets" and roles.echo or roles[reads and "read" or arg[1]]
for _ = 1, arg[1] == "sockets" and tonumber(arg[3]) or 1 do
  local sock = ip.udp.bind("127.0.0.1", 0)
  print("port " .. sock.local_port)
  ip.fiber.spawn(role, sock)
end
print "ready"
io.stdout:flush()
ip.fiber.run()
