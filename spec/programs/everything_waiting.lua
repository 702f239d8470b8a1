--- What the programs of spec/lifecycle_spec.lua and spec/keyboard_interrupt_spec.lua begin with.

local ip = require "ip"

local fiber = ip.fiber

local everything = {}

everything.sock, everything.buffer = ip.udp.bind("127.0.0.1", 0), ip.byte_span.new(100)

local sock, buffer = everything.sock, everything.buffer

io.stdout:setvbuf("no")

--- Makes sockets, fibers and coroutines that wait in everything there is to wait in. Some are global
--- variables of the program, or known to the registry alone.
function everything.leave_waiting()
  local target = fiber.spawn(fiber.sleep, math.huge)
  fiber.spawn(function() sock:receive_from(buffer) end)
  fiber.spawn(function() sock:receive_string() end)
  fiber.spawn(fiber.sleep, 100)
  fiber.spawn(target.join, target)
  fiber.spawn(fiber.with_timeout, 100, fiber.sleep, 50)
  fiber.spawn(fiber.with_timeout, 100, sock.receive, sock, buffer)
  fiber.spawn(fiber.shield, sock.receive, sock, buffer)
  fiber.spawn(function() while true do coroutine.yield() end end)
  fiber.spawn(function() while true do fiber.yield() end end):detach()
  coroutine.wrap(function() sock:receive_from(buffer) end)()
  coroutine.wrap(function() fiber.with_timeout(100, sock.receive_from, sock, buffer) end)()
  _G.GLOBAL = ip.udp.bind("127.0.0.1", 0)
  debug.getregistry()["a spec's socket"] = ip.udp.bind("::1", 0)
  local timed = ip.udp.bind("127.0.0.1", 0)
  timed.receive_timeout = 100
  _G.INSIDE = coroutine.create(function()
    local held = ip.udp.bind("127.0.0.1", 0)
    coroutine.yield()
    held:close()
  end)
  coroutine.resume(_G.INSIDE)
  fiber.spawn(function() timed:receive_string() end)
  local queue, full, condition, semaphore = fiber.queue(), fiber.queue(1), fiber.condition(), fiber.semaphore(0)
  full:put("a value")
  for _, spawn in ipairs { fiber.spawn, function(fn, ...) coroutine.wrap(fn)(...) end } do
    spawn(queue.get, queue)
    spawn(full.put, full, {})
    spawn(condition.wait, condition)
    spawn(semaphore.hold, semaphore)
    spawn(fiber.wait_any, queue, sock, target, sock.native_handle)
    spawn(function()
      local group <close> = fiber.group()
      group:spawn(fiber.sleep, 100)
      group:join()
    end)
  end
  fiber.spawn(function() error "never started" end)
end

return everything
