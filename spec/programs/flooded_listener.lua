-- A listener that arg[1] forged datagrams reach, each from an endpoint of its own, while nobody accepts: source
-- addresses of loopback, and twenty ports. Prints how many rounds of its three peers were served, how many datagrams
-- were dropped, and by how many bytes the process and Lua's memory grew after the table of sessions was full.

local ip = require "ip"
local resident = require "spec.support.resident"

local count, PORTS, EACH = tonumber(arg[1]), 20, 50
local listener = ip.udp.listen("127.0.0.1", 0, { receive_buffer_size = 1 << 20 })
local target = listener.local_port
local forgers = {}
for i = 1, PORTS do forgers[i] = ip.udp.bind("0.0.0.0", 0) end
local info = { address = ip.address.loopback_v4(), port = target }

local function forge(i)
  local address = i // PORTS
  local bytes = string.pack("BBBB", 127, 1 + address // 62500, address // 250 % 250, address % 250 + 1)
  info.source = ip.address.from_bytes(bytes)
  forgers[i % PORTS + 1]:send_message("forged", info)
end

local function echo(session)
  local buf = ip.byte_span.new(64)
  while true do session:send(buf:resize(session:receive(buf:resize(64)))) end
end

local peers, served = {}, 0

-- An answer comes after everything that was sent before the question has been read.
local function serve_round(number)
  for i = 1, 3 do peers[i]:send(i .. " " .. number) end
  for i = 1, 3 do
    if peers[i]:receive_string() == i .. " " .. number then served = served + 1 end
  end
end

ip.fiber.run(function()
  for i = 1, 3 do
    peers[i] = ip.udp.connect("127.0.0.1", target, { receive_timeout = 10 })
    peers[i]:send("hello")
    local session = listener:accept()
    session:receive_string()
    ip.fiber.spawn(echo, session):detach()
  end
  local first, first_bytes
  for i = 1, count do
    forge(i)
    if i % EACH == 0 then serve_round(i) end
    if i == 20000 then first, first_bytes = resident(), collectgarbage("count") end
  end
  print(("served=%d\ndropped=%d"):format(served, listener.dropped))
  collectgarbage()
  if first then print(("growth=%d"):format(resident() - first)) end
  print(("garbage=%d"):format((collectgarbage("count") - first_bytes) * 1024 // 1))
end)
os.exit(true, true)
