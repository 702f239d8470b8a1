--- For programs in a namespace whose loopback takes nothing (namespace.blocked): sockets whose sends have to
--- wait there until unblock().

local ip = require "ip"

local fiber = ip.fiber

local link = {}

local LARGE = ("."):rep(1000)

--- `link.out` is connected to `link.sink`, and its buffer in the system is full: try_send gives EAGAIN.
link.sink = ip.udp.bind("127.0.0.1", 0, { receive_buffer_size = 8000000 })
link.out = ip.udp.connect("127.0.0.1", link.sink.local_port, { send_buffer_size = 1 })

local ahead = 0
while link.out:try_send(LARGE) do ahead = ahead + 1 end

--- Lets everything through. The token bucket looks at its new rate when the next datagram comes, so one is
--- sent.
function link.unblock()
  assert(os.execute("env -u LD_PRELOAD tc qdisc change dev lo root tbf rate 100mbit burst 20000 limit 1000000"))
  local own <close> = ip.udp.bind("127.0.0.1", 0)
  own:send_to("", "127.0.0.1", own.local_port)
end

--- Lets nothing through again.
function link.block()
  assert(os.execute("env -u LD_PRELOAD tc qdisc change dev lo root tbf rate 80bit burst 2000 limit 1000000"))
end

--- Receives the datagrams that filled the buffer.
function link.skip()
  for _ = 1, ahead do assert(link.sink:receive_string() == LARGE) end
end

--- What arrives behind those, separated by spaces; fails when that is more than `count` datagrams.
function link.arriving(count)
  link.skip()
  local list = {}
  for i = 1, count do list[i] = link.sink:receive_string() end
  link.sink.receive_timeout = 0.05
  assert(select(2, pcall(link.sink.receive_string, link.sink)) == ip.error.ETIMEDOUT, "something more arrived")
  return table.concat(list, " ")
end

function link.equal(expected, value)
  if expected ~= value then error(("expected %s, got %s"):format(expected, value), 2) end
end

--- A fiber that waits in fn(...); its join gives the results of pcall.
function link.waiting(fn, ...)
  local started = fiber.spawn(pcall, fn, ...)
  while started.status ~= "waiting" do fiber.yield() end
  return started
end

--- Fails unless a fiber of `waiting` ends with the error `name`.
function link.ends_with(name, started)
  local ok, err = started:join()
  link.equal(false, ok)
  link.equal(name, err.name)
end

return link
