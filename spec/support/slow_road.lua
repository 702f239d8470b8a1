--- For programs in the network of namespace.slow, where a datagram takes a second: sockets whose datagrams wait
--- there until the road is opened. The network keeps their order.

local ip = require "ip"

local road = {}

-- What is preloaded into the program is not for the tool.
local CHANGE = "env -u LD_PRELOAD tc qdisc change dev lo root tbf rate %s limit 1000000"

--- Lets all that waits in the network through.
function road.open()
  assert(os.execute(CHANGE:format("100mbit burst 20000")))
end

--- Makes the network as slow as it was.
function road.narrow()
  assert(os.execute(CHANGE:format("8kbit burst 2000")))
end

--- A receiver with these options, and a sender that is connected to it and has the smallest send buffer.
function road.sockets(options)
  local sink = ip.udp.bind("127.0.0.1", 0, options)
  return sink, ip.udp.connect("127.0.0.1", sink.local_port, { send_buffer_size = 1 })
end

--- Sends datagrams of 1000 bytes until the system takes no more; returns how many it took.
function road.fill(out)
  local count, text = 0, ("."):rep(1000)
  while out:try_send(text) do count = count + 1 end
  return count
end

--- A fiber that waits in fn(...) when this function returns; its join gives the results of pcall.
function road.suspended(fn, ...)
  local one = ip.fiber.spawn(pcall, fn, ...)
  while one.status ~= "waiting" do ip.fiber.yield() end
  return one
end

return road
