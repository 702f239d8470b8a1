-- A listener with arg[1] sessions, and a fiber for each; their peers are as many source addresses of one socket.
-- Prints how many sessions there were, how many answers were wrong, and by how many bytes Lua's memory and the process
-- grew after the first round.

local ip = require "ip"
local run_rounds = require "spec.support.rounds"

local count = tonumber(arg[1])
local listener = ip.udp.listen("127.0.0.1", 0)
local client = ip.udp.bind("0.0.0.0", 0)
local info = { address = listener.local_address, port = listener.local_port }
local addresses = {}
for i = 1, count do addresses[i] = ip.address.new(("127.1.%d.%d"):format(i // 250, i % 250 + 1)) end
local counts = { known = 0, wrong = 0 }

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
    if reply:resize(n):unpack("I4") ~= number then counts.wrong = counts.wrong + 1 end
  end
end

ip.fiber.run(function()
  ip.fiber.spawn(function()
    for session in listener:sessions() do
      counts.known = counts.known + 1
      ip.fiber.spawn(serve, session):detach()
    end
  end):detach()
  run_rounds(round, counts)
end)
os.exit(true, true)
