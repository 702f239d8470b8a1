-- The collector never changes what the library does: small forms of everything under collectors of every
-- temper.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"

local fiber, byte_span = ip.fiber, ip.byte_span
local error_of, wait_until, bound = support.error_of, support.wait_until, support.bound
local assert_contains = assertions.assert_contains

local function restore()
  debug.sethook()
  collectgarbage("incremental", 200, 100, 13)
end

after_each(restore)

-- Hooks belong to a coroutine: every one of the spec's own gets it.
local hooked = false
local function hook()
  if hooked then debug.sethook(function() collectgarbage() end, "", 100) end
end

local tempers = {
  { name = "generational", set = function() collectgarbage("generational") end },
  { name = "incremental without a pause", set = function() collectgarbage("incremental", 0, 1000, 1) end },
  { name = "a full collection every hundred instructions", set = function() hooked = true end },
}

local function spawn(fn, ...)
  return fiber.spawn(function(...)
    hook()
    return fn(...)
  end, ...)
end

-- What is run under every collector, each inside with_loop.
local scenarios = {}

scenarios["an echo between fibers"] = function()
  local server, port = bound()
  local echo = spawn(function()
    while true do
      local buffer = byte_span.new(100)
      local n, address, from = server:receive_from(buffer)
      server:send_to({ buffer:slice(1, n), "!" }, address, from)
    end
  end)
  local clients = {}
  for i = 1, 4 do
    clients[i] = spawn(function()
      local sock <close> = ip.udp.connect("127.0.0.1", port)
      for round = 1, 5 do
        local text = i .. ":" .. round
        sock:send(byte_span.append(text))
        assert(sock:receive_string() == text .. "!")
      end
      return i
    end)
  end
  for i = 1, 4 do assert.equal(i, clients[i]:join()) end
  echo:interrupt()
  echo:join()
  server:close()
end

scenarios["joins: results, errors, detached fibers, fibers that nobody holds"] = function()
  local finished = 0
  local reported = {}
  fiber.on_error(function(err) reported[err] = true end)
  local last
  for i = 1, 20 do
    local previous = last
    last = spawn(function()
      if previous then assert(previous:join().value == i - 1) end
      fiber.yield()
      return { value = i }
    end)
    spawn(function()
      fiber.yield()
      finished = finished + 1
    end)
    spawn(function() error("report " .. i, 0) end):detach()
  end
  assert.equal(20, last:join().value)
  local object = { "the error" }
  local failing = spawn(function()
    fiber.yield()
    error(object)
  end)
  assert.equal(object, error_of(failing.join, failing))
  wait_until(function() return finished == 20 end)
  for i = 1, 20 do assert.is_true(reported["report " .. i]) end
  fiber.on_error(nil)
end

scenarios["timeouts: met, not met, nested, in fibers and coroutines of others"] = function()
  local sock, port = bound()
  for _ = 1, 3 do
    local err = error_of(fiber.with_timeout, 0.001, sock.receive_string, sock)
    assert.equal("with_timeout", err.operation)
    assert.equal("inner", (fiber.with_timeout(100, function()
      assert.is_false((pcall(fiber.with_timeout, 0.001, fiber.sleep, 100)))
      return "inner"
    end)))
    sock.receive_timeout = 0.001
    assert.equal("receive_string", error_of(sock.receive_string, sock).operation)
    sock.receive_timeout = nil
    local results = {}
    for i = 1, 5 do
      coroutine.wrap(function()
        hook()
        results[i] = error_of(fiber.with_timeout, 0.001, sock.receive_string, sock)
      end)()
    end
    wait_until(function() return #results == 5 end)
    for i = 1, 5 do assert.equal("with_timeout", results[i].operation) end
  end
  sock:send_to("still whole", "127.0.0.1", port)
  assert.equal("still whole", (sock:receive_string()))
  sock:close()
end

scenarios["cancellation: interrupt, cancel, close, coroutine.close, a resume of others"] = function()
  local sock, port = bound()
  for _ = 1, 3 do
    local one = spawn(function() sock:receive_string() end)
    fiber.yield()
    one:interrupt()
    one:join()
    assert.is_true(one.interruption_caught)
    local two = spawn(function() return error_of(sock.receive_string, sock).name end)
    fiber.yield()
    sock:cancel()
    assert.equal("ECANCELED", two:join())
    local three = coroutine.create(function() sock:receive_string() end)
    coroutine.resume(three)
    coroutine.close(three)
    local four = coroutine.create(function() return pcall(sock.receive_string, sock) end)
    coroutine.resume(four)
    local _, ok, message = coroutine.resume(four, {}, {})
    assert.is_false(ok)
    assert_contains(message, "resumed while waiting")
    local shielded = spawn(function()
      fiber.shield(fiber.sleep, 0.001)
      return "whole"
    end)
    fiber.yield()
    shielded:interrupt()
    assert.equal("whole", shielded:join())
  end
  sock:send_to("not lost", "127.0.0.1", port)
  assert.equal("not lost", (sock:receive_string()))
  local waiting = spawn(function() return error_of(sock.receive_string, sock).name end)
  fiber.yield()
  sock:close()
  assert.equal("ECANCELED", waiting:join())
end

scenarios["a coroutine that only the library holds while it waits"] = function()
  local got = {}
  for i = 1, 10 do
    local port
    do
      local sock
      sock, port = bound()
      coroutine.wrap(function()
        hook()
        got[i] = sock:receive_string()
        sock:close()
      end)()
    end
    collectgarbage()
    local sender <close> = bound()
    sender:send_to(tostring(i), "127.0.0.1", port)
  end
  wait_until(function() return #got == 10 end)
  for i = 1, 10 do assert.equal(tostring(i), got[i]) end
end

scenarios["queues, semaphores, conditions and groups, and waits that are ended"] = function()
  local queue, lock, condition, sum = fiber.queue(2), fiber.semaphore(1), fiber.condition(), 0
  do
    local group <close> = fiber.group()
    for i = 1, 3 do
      group:spawn(function()
        hook()
        for value in queue:values() do
          local guard <close> = lock:hold() -- luacheck: ignore guard
          fiber.yield()
          sum = sum + #value
          condition:notify_all()
        end
      end).name = "taker " .. i
    end
    for i = 1, 20 do queue:put(("x"):rep(i)) end
    while sum < 100 do condition:wait() end
    for _ = 1, 5 do
      local other = fiber.queue()
      local ended = coroutine.create(function() other:get() end)
      coroutine.resume(ended)
      pcall(fiber.with_timeout, 0.0001, other.get, other)
      other:put({})
      coroutine.close(ended)
      assert.equal(1, #other)
    end
    queue:close()
    group:join()
  end
  assert.equal(210, sum)
  assert.equal(1, lock.permits)
end

scenarios["wait_any over sources that come and go"] = function()
  local sock, port = bound()
  for round = 1, 10 do
    local queue = fiber.queue()
    local sender = spawn(function()
      if round % 2 == 0 then queue:put({}) else sock:send_to("x", "127.0.0.1", port) end
    end)
    local found = fiber.wait_any { queue, fiber.queue(), sock }
    assert.equal(round % 2 == 0 and queue or sock, found)
    if found == sock then sock:receive_string() end
    sender:join()
  end
  sock:close()
end

scenarios["sockets that nobody holds"] = function()
  for _ = 1, 30 do
    local sock, port = bound()
    sock:send_to("x", "127.0.0.1", port)
    assert.equal("x", (sock:receive_string()))
  end
  -- with_loop checks that the collector has closed them
end

scenarios["many peers, whose addresses come and go"] = function()
  local server, port = bound()
  local buffer = byte_span.new(10)
  for i = 1, 20 do
    local text = "127.0.0." .. (i % 3 + 1)
    local bindable, client = pcall(ip.udp.bind, text, 0)
    if not bindable then -- some systems have but one loopback address
      text = "127.0.0.1"
      client = bound()
    end
    client:send_to("x", "127.0.0.1", port)
    local n, address, from = server:receive_from(buffer)
    assert.equal(1, n)
    assert.equal(text, tostring(address))
    assert.equal(client.local_port, from)
    client:close()
  end
  server:close()
end

for _, temper in ipairs(tempers) do
  describe("under the collector `" .. temper.name .. "`", function()
    for name, scenario in pairs(scenarios) do
      it(name, support.with_loop(function()
        hooked = false
        temper.set()
        hook()
        scenario()
        hooked = false
        restore()
      end, 60))
    end
  end)
end

-- A finalizer may run wherever memory is asked for, also inside a call on the very socket that it closes.
-- These programs have a process of their own: what they look for is its death.
describe("a finalizer that closes the socket in use", function()
  local prologue = [[
    local ip = require "ip"
    local buffer = ip.byte_span.new(10)
    collectgarbage("incremental", 0, 1000, 1)
    local function closes_later(sock)
      for _ = 1, 3 do setmetatable({}, { __gc = function() sock:close() end }) end
    end
    local function open() return ip.udp.bind("127.0.0.1", 0) end
    local seen = {}
    -- a call either works or says that the socket is closed
    local function try(fn, ...)
      local ok, err = pcall(fn, ...)
      seen[ok and "ok" or err.name or tostring(err)] = true
    end
    -- wait(sock) is called in many coroutines, while finalizers close the socket.
    local function wait_often(wait)
      KEPT = {}
      for i = 1, 300 do
        local sock = open()
        for _ = 1, 5 do
          coroutine.wrap(function()
            closes_later(sock)
            wait(sock)
          end)()
        end
        local other = open() -- keeps an operation, so that the next round needs new ones
        KEPT[i] = other
        coroutine.wrap(function() try(other.receive_from, other, buffer) end)()
      end
    end
    local function finish()
      seen.ok, seen.EBADF, seen.ECANCELED = nil, nil, nil
      print(next(seen) or "survived")
    end
  ]]

  local function check(name, program)
    it("in " .. name .. " makes an error at most", function()
      assertions.assert_prints("survived\n", prologue .. program)
    end)
  end

  check("receive_from", [[
    for i = 1, 2000 do
      local sock, client = open(), open()
      client:send_to("x", "127.0.0.1", sock.local_port)
      closes_later(sock)
      try(sock.receive_from, sock, buffer)
      client:close()
    end
    finish()
  ]])

  check("receive_string", [[
    for i = 1, 2000 do
      local sock, client = open(), open()
      client:send_to(("x"):rep(100 + i % 1000), "127.0.0.1", sock.local_port)
      closes_later(sock)
      try(sock.receive_string, sock)
      client:close()
    end
    finish()
  ]])

  check("send_to with many parts", [[
    local target = open()
    local port = target.local_port
    local parts = {}
    for i = 1, 200 do parts[i] = "x" end
    for i = 1, 2000 do
      local sock = open()
      closes_later(sock)
      try(sock.send_to, sock, parts, "127.0.0.1", port)
    end
    finish()
  ]])

  check("a send that lacks arguments", [[
    local parts = {}
    for i = 1, 200 do parts[i] = "x" end
    local address = ip.address.loopback_v4()
    for i = 1, 2000 do
      for _, data in ipairs { "x", parts } do
        for _, method in ipairs { "send_to", "send_message" } do
          local sock = open()
          local send = sock[method]
          closes_later(sock)
          local ok, err = pcall(send, sock, data, method == "send_to" and address or nil)
          assert(not ok and (err == ip.error.EBADF or err:find("expected, got n", 1, true)), err)
        end
      end
    end
    finish()
  ]])

  check("a receive that waits", [[
    wait_often(function(sock) try(sock.receive_from, sock, buffer) end)
    finish()
  ]])

  check("a loop that waits", [[
    wait_often(function(sock)
      try(function()
        local turn, state = sock:datagrams()
        closes_later(sock)
        assert(turn(state) == nil) -- never raises: it is over
      end)
    end)
    finish()
  ]])

  check("release, assign and send_to_with", [[
    local target = open()
    local port = target.local_port
    for i = 1, 2000 do
      local sock, heir = open(), ip.udp.socket.new()
      closes_later(sock)
      try(function() heir:assign("v4", sock:release()) end)
      closes_later(heir)
      try(heir.send_to_with, heir, i, function(span) closes_later(heir) end, "127.0.0.1", port)
      heir:close()
    end
    finish()
  ]])

  check("the address properties", [[
    for i = 1, 2000 do
      local sock = open()
      closes_later(sock)
      try(function() return sock.local_address, sock.local_port end)
    end
    finish()
  ]])
end)
