-- A server whose one socket has arg[1] peers; these are as many source addresses of one socket. Prints how
-- many it knew, how many answers were wrong, and by how many bytes Lua's memory and the process grew after
-- the first round.

local ip = require "ip"
local run_rounds = require "spec.support.rounds"

local count = tonumber(arg[1])
local function address_of(i) return ip.address.new(("127.1.%d.%d"):format(i // 250, i % 250 + 1)) end
local server = ip.udp.bind("127.0.0.1", 0)
local client = ip.udp.bind("0.0.0.0", 0)
local buf, reply = ip.byte_span.new(16), ip.byte_span.new(16)
local seen, counts = {}, { known = 0, wrong = 0 }
local info = { address = server.local_address, port = server.local_port }

local function serve_one()
  local n, address, port = server:receive_from(buf:resize(16))
  local key = ip.endpoint_key(address, port)
  if not seen[key] then counts.known = counts.known + 1 end
  seen[key] = (seen[key] or 0) + 1
  local length = buf:resize(n):pack(1, "I4", seen[key]) - 1
  server:send_to(buf:resize(length), address, port)
end

-- Peer i sends in each round whose number is no multiple of i % 3 + 2.
local function sends(i, number) return number % (i % 3 + 2) ~= 0 end

local function round(number)
  for i = 1, count do
    if sends(i, number) then
      info.source = address_of(i)
      client:send_message("0000", info)
      serve_one()
      local n = client:receive(reply:resize(16))
      local expected = 0
      for earlier = 1, number do
        if sends(i, earlier) then expected = expected + 1 end
      end
      if reply:resize(n):unpack("I4") ~= expected then counts.wrong = counts.wrong + 1 end
    end
  end
end

ip.fiber.run(function()
  run_rounds(round, counts)
end)
