-- What each thread of spec/host/threads_host.c runs, in a state of its own: echoes, timers, look-ups, and waits
-- that are pending when the state is closed.

local thread, round = ...
local ip = require "ip"
local fiber = ip.fiber

fiber.run(function()
  local a <close> = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 20 })
  local b <close> = ip.udp.connect("127.0.0.1", a.local_port, { receive_timeout = 20 })
  local echoing = fiber.spawn(function()
    for _ = 1, 20 do
      local text, address, port = a:receive_string()
      a:send_to(text, address, port)
    end
  end)
  for i = 1, 20 do
    local text = ("%d %d %d"):format(thread, round, i)
    b:send(text)
    assert(b:receive_string() == text, "an echo is what this state has sent")
  end
  echoing:join()
  local ok, err = pcall(fiber.with_timeout, 0.001, a.receive_string, a)
  assert(not ok and err == ip.error.ETIMEDOUT, "a deadline ends a receive")
  assert(#ip.udp.get_address_info("127.0.0.1", 53) == 1, "an address is found")
end)

-- Pending at the end.
for _, wait in ipairs {
  function() fiber.sleep(100) end,
  function() ip.udp.bind("127.0.0.1", 0):receive_string() end,
  function() fiber.wait_signal("SIGUSR2") end,
  function() ip.udp.get_address_info("localhost", 1) end,
} do
  fiber.spawn(wait):detach()
end
pcall(fiber.with_timeout, 0.002, fiber.sleep, 1)
