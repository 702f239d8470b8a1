--- lua-ip with receive and segmentation offload (GRO and GSO), one message per call:
--- lua_ip_offload.lua ROLE PEER_PORT SOCKETS

local byte_span = require "byte_span"
local ip = require "ip"

local LARGEST_READ, LARGEST_PAYLOAD, SEGMENTS = 65535, 65507, 64

local roles = {}

-- send_message uses the fields that receive_message has filled in, including the segment size. Methods are
-- looked up once.
function roles.echo(sock)
  local buf, info = byte_span.new(LARGEST_READ), {}
  local receive_message, send_message, resize = sock.receive_message, sock.send_message, buf.resize
  while true do
    local n = receive_message(sock, resize(buf, LARGEST_READ), info)
    send_message(sock, resize(buf, n), info)
  end
end

function roles.receive(sock)
  local buf, info = byte_span.new(LARGEST_READ), {}
  local receive_message = sock.receive_message
  local total = 0
  while true do
    local n = receive_message(sock, buf, info)
    local segment = info.segment_size
    if segment then
      total = total + (n + segment - 1) // segment
    elseif n > 1 then
      total = total + 1
    else
      sock:send_to(tostring(total), info.address, info.port)
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
    local left, size, target = text:match("^(%d+) (%d+) (%d+)$")
    left, size = tonumber(left), tonumber(size)
    local most = math.min(SEGMENTS, LARGEST_PAYLOAD // size)
    local payload = byte_span.new(most * size)
    local info = { address = ip.address.new("127.0.0.1"), port = tonumber(target), segment_size = size }
    local send_message, resize = sock.send_message, payload.resize
    while left > 0 do
      left = left - send_message(sock, resize(payload, math.min(left, most) * size), info) // size
    end
    sock:send_to("done", address, port)
  end
end

local sock = ip.udp.bind("127.0.0.1", 0)
if not pcall(sock.set_option, sock, "receive_offload", true) then
  print "unavailable: this system has no UDP_GRO"
  os.exit(0, true)
end
print("port " .. sock.local_port)
print "ready"
io.stdout:flush()
ip.fiber.run(roles[arg[1]], sock)
