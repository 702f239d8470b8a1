-- arg[1] sockets, each with a fiber that answers. Prints how many of four rounds of answers were right, how
-- many fibers failed, and by how many bytes the process grew after the first round.

local ip = require "ip"
local resident = require "spec.support.resident"

local fiber = ip.fiber
local count = tonumber(arg[1])

-- where there are many loopback addresses, one for this program: its ports suffice
local host = ("127.%d.%d.%d"):format(math.random(1, 254), math.random(1, 254), math.random(1, 254))
if not pcall(ip.udp.bind, host, 0) then host = "127.0.0.1" end
local buf = ip.byte_span.new(16)
local index_of, ports, failed = {}, {}, 0
fiber.on_error(function() failed = failed + 1 end)

local function serve(sock, index)
  local served = 0
  while true do
    local _, address, port = sock:receive_from(buf)
    served = served + 1
    sock:send_to(string.pack("I4 I4", index, served), address, port)
  end
end

for i = 1, count do
  local sock = ip.udp.bind(host, 0)
  ports[i], index_of[sock.local_port] = sock.local_port, i
  fiber.spawn(serve, sock, i):detach()
end

local client = ip.udp.bind(host, 0)
local reply = ip.byte_span.new(16)

-- Asks all, a hundred at a time; gives the number of right answers.
local function round(number)
  local right, answered = 0, {}
  for first = 1, count, 100 do
    local last = math.min(first + 99, count)
    for i = first, last do client:send_to("x", host, ports[i]) end
    for _ = first, last do
      local _, _, port = client:receive_from(reply)
      local index, served = reply:unpack("I4 I4")
      if index == index_of[port] and served == number and not answered[index] then right = right + 1 end
      answered[index] = true
    end
  end
  return right
end

fiber.run(function()
  local right = round(1)
  local first, last = resident(), nil
  for number = 2, 4 do
    right = right + round(number)
    last = resident() -- which collects the strings of this round
  end
  print(("right=%d\nfailed=%d"):format(right, failed))
  if first then print(("growth=%d"):format(last - first)) end
end)
