-- A listener with arg[1] sessions, and a fiber for each; their peers are as many source addresses of one socket.
-- Prints how many sessions there were, how many answers were wrong, and by how many bytes Lua's memory and the process
-- grew after the first round.

local ip = require "ip"
local resident = require "spec.support.resident"

local count = tonumber(arg[1])
local listener = ip.udp.listen("127.0.0.1", 0)
local client = ip.udp.bind("0.0.0.0", 0)
local info = { address = listener.local_address, port = listener.local_port }
local addresses = {}
for i = 1, count do addresses[i] = ip.address.new(("127.1.%d.%d"):format(i // 250, i % 250 + 1)) end
local known, wrong = 0, 0

local buf, reply = ip.byte_span.new(16), ip.byte_span.new(16)

local function serve(session)
  local seen = 0
  while true do
    session:receive(buf:resize(16))
    seen = seen + 1
    session:send(buf:resize(buf:pack(1, "I4", seen) - 1))
  end
end

local function round(number)
  for i = 1, count do
    info.source = addresses[i]
    client:send_message("0000", info)
    local n = client:receive(reply:resize(16))
    if reply:resize(n):unpack("I4") ~= number then wrong = wrong + 1 end
  end
  collectgarbage()
  collectgarbage()
  return math.tointeger(collectgarbage("count") * 1024)
end

ip.fiber.run(function()
  ip.fiber.spawn(function()
    for session in listener:sessions() do
      known = known + 1
      ip.fiber.spawn(serve, session):detach()
    end
  end):detach()
  local first_bytes, first_resident = round(1), resident()
  local last_bytes
  for number = 2, 4 do last_bytes = round(number) end
  print(("known=%d\nwrong=%d\ngarbage=%d"):format(known, wrong, last_bytes - first_bytes))
  if first_resident then print(("growth=%d"):format(resident() - first_resident)) end
end)
os.exit(true, true)
