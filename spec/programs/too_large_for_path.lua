-- Sends with the option coalesce what loopback, whose MTU is 1500 here, cannot take in one piece: it is
-- dropped, and what else was sent arrives.

local ip = require "ip"

local function equal(expected, value)
  if expected ~= value then error(("expected %s, got %s"):format(expected, value), 2) end
end

local large = ("x"):rep(2000)

for _, address in ipairs { "127.0.0.1", "::1" } do
  for _, errors in ipairs { false, true } do
    local sink = ip.udp.bind(address, 0, { receive_timeout = 2 })
    local out = ip.udp.connect(address, sink.local_port, { coalesce = true, path_mtu_discovery = "do",
      receive_errors = errors })
    out:send("before")
    for _ = 1, 3 do out:send(large) end
    out:send("behind")
    local _, err = pcall(out.flush, out)
    equal("EMSGSIZE", err.name)
    equal(1500, err.mtu)
    out:flush()
    out:send(large)
    ip.fiber.run(ip.fiber.yield)
    _, err = pcall(out.send, out, "not sent")
    equal("EMSGSIZE", err.name)
    equal(1500, err.mtu)
    if errors then -- the queue tells it without a peer
      local loose <close> = ip.udp.bind(address, 0, { coalesce = true, path_mtu_discovery = "do",
        receive_errors = true })
      loose:send_to(large, address, sink.local_port)
      ip.fiber.run(ip.fiber.yield)
      equal(1500, select(2, pcall(loose.send_to, loose, "not sent", address, sink.local_port)).mtu)
    end
    out:send("last")
    out:flush()
    for _, text in ipairs { "before", "behind", "last" } do equal(text, (sink:receive_string())) end
    local told = 0
    while out:receive_error() do told = told + 1 end
    equal(errors and 4 or 0, told)
  end
end

print("passed")
