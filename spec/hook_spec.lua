-- A call hook runs between any two steps of a call: what it receives by itself must not show in the results
-- of that call, and what it waits for must not hide a deadline.

local ip = require "ip"
local byte_span = require "byte_span"
local library_coroutine = require "ip.coroutine"
local support = require "spec.support"

local fiber = ip.fiber

-- Two sockets with a client each: one for a call, one for the hook.
local function new_pair()
  local sock, port = support.bound()
  return sock, ip.udp.connect("127.0.0.1", port)
end

-- Calls fn on the main thread under a call hook that receives a large datagram by itself, and returns what fn
-- returns.
local function under_hook(fn)
  local other, other_client = new_pair()
  other:set_option("receive_hops", true)
  local large, busy, received = byte_span.new(60000), false, 0
  local function receive_large()
    if busy then return end
    busy = true
    other_client:send(("B"):rep(50000))
    received = received + #other:receive_string()
    other_client:send(("C"):rep(50000))
    received = received + other:receive_message(large)
    busy = false
  end
  debug.sethook(receive_large, "c")
  local results = table.pack(pcall(fn))
  debug.sethook()
  other:close()
  other_client:close()
  assert.is_true(received >= 100000, "the hook has not run")
  assert(results[1], results[2])
  return table.unpack(results, 2, results.n)
end

-- `receive` gets a socket on which a datagram arrives after it has begun to wait.
local function wait_under_hook(receive)
  local sock, client = new_pair()
  fiber.spawn(function()
    fiber.yield()
    client:send("tiny")
  end)
  local results = table.pack(under_hook(function() return receive(sock) end))
  sock:close()
  client:close()
  return table.unpack(results, 1, results.n)
end

describe("a call hook that receives by itself", function()
  it("changes nothing of what a waiting receive returns", support.on_main(function()
    local buf = byte_span.new(100)
    local n, truncated = wait_under_hook(function(sock) return sock:receive(buf) end)
    assert.same({ 4, false }, { n, truncated })
    assert.equal("tiny", tostring(buf:slice(1, 4)))
  end))

  it("changes nothing of what a waiting receive_from returns", support.on_main(function()
    local buf = byte_span.new(100)
    local n, address, _, truncated = wait_under_hook(function(sock) return sock:receive_from(buf) end)
    assert.same({ 4, "127.0.0.1", false }, { n, tostring(address), truncated })
  end))

  it("changes nothing of what a waiting receive_string returns", support.on_main(function()
    assert.equal("tiny", (wait_under_hook(function(sock) return sock:receive_string() end)))
  end))

  it("changes nothing of what a waiting receive_message returns", support.on_main(function()
    local buf = byte_span.new(100)
    local n, info = wait_under_hook(function(sock) return sock:receive_message(buf) end)
    assert.equal(4, n)
    assert.is_nil(info.hops)
    assert.is_false(info.truncated)
  end))

  it("gives a loop over datagrams no longer span than it has capacity", support.on_main(function()
    local data = wait_under_hook(function(sock) return sock:datagrams { capacity = 100 }() end)
    assert.same({ 4, 100 }, { #data, data.capacity })
    assert.equal("tiny", tostring(data))
  end))

  it("changes nothing of what a waiting receive_many returns", support.on_main(function()
    local batch = ip.udp.batch.new(4, 100)
    assert.equal(1, (wait_under_hook(function(sock) return sock:receive_many(batch) end)))
    assert.equal("tiny", tostring(batch[1]))
  end))
end)

-- Calls fn on the main thread under a call hook that calls `act` at its nth event only. Returns whether it
-- has, and what pcall(fn) returns.
local function at_event(n, act, fn)
  local events = 0
  debug.sethook(function()
    events = events + 1
    if events == n then act() end
  end, "c")
  local ok, err = pcall(fn)
  debug.sethook()
  return events >= n, ok, err
end

describe("a call hook between the checks of a call and its wait", function()
  it("cannot make a waiting call forget a deadline", support.on_main(function()
    local sock <close> = support.bound()
    local function outlast() pcall(fiber.sleep, 0.002) end
    local n = 0
    repeat
      n = n + 1
      local begin = fiber.now()
      local reached, ok, err = at_event(n, outlast, function()
        fiber.with_timeout(5, fiber.with_timeout, 0.001, sock.receive_string, sock)
      end)
      assert.is_true(fiber.now() - begin < 5, "the deadline of 5 seconds has ended the call")
      assert.is_false(ok)
      assert.equal(ip.error.ETIMEDOUT, err)
    until not reached
    assert.is_true(n > 10, "the hook has not run")
  end))

  it("cannot make a waiting call forget an interruption", support.with_loop(function()
    local n, reached = 0
    repeat
      n = n + 1
      local sock <close> = support.bound()
      local events, interrupted = 0, nil
      interrupted = fiber.spawn(function()
        local co = library_coroutine.create(function()
          debug.sethook(coroutine.running(), function()
            events = events + 1
            if events == n then interrupted:interrupt() end
          end, "c")
          sock:receive_string()
        end)
        library_coroutine.resume(co) -- returns the interruption as an error
      end)
      fiber.yield()
      reached = events >= n
      if not reached then interrupted:interrupt() end
      fiber.with_timeout(5, interrupted.join, interrupted)
    until not reached
    assert.is_true(n > 2, "the hook has not run")
  end))

  it("may close the socket of the call, which then raises", support.on_main(function()
    local n, closed = 0, 0
    repeat
      n = n + 1
      local sock <close> = support.bound()
      sock.receive_timeout = 0.001
      local reached, ok, err = at_event(n, function() sock:close() end, function() sock:receive_string() end)
      assert.is_false(ok)
      if err == ip.error.EBADF or err == ip.error.ECANCELED then closed = closed + 1 end
    until not reached
    assert.is_true(closed > 0, "the hook has closed nothing")
  end))
end)

describe("a finalizer between the checks of a call and its wait", function()
  local finalizers_on = false

  -- Leaves garbage whose finalizer lets 2 ms pass and makes the library look at its deadlines.
  local function leave_garbage()
    setmetatable({}, { __gc = function()
      if not finalizers_on then return end
      local begin = fiber.now()
      while fiber.now() - begin < 0.002 do end -- luacheck: ignore
      fiber.loop:step(0)
    end })
  end

  it("cannot make a waiting call forget a deadline", support.on_main(function()
    local mode = collectgarbage("generational") -- an allocation collects all new garbage at once
    finally(function()
      finalizers_on = false
      collectgarbage("restart")
      collectgarbage(mode)
    end)
    local coroutines = {}
    for i = 1, 40 do -- each needs an operation of its own, and so an allocation
      local sock = support.bound()
      coroutines[i] = coroutine.create(function()
        return pcall(fiber.with_timeout, 0.001, function()
          collectgarbage()
          collectgarbage("stop")
          leave_garbage()
          finalizers_on = true
          collectgarbage("restart")
          return sock:receive_string()
        end)
      end)
      coroutine.resume(coroutines[i])
      finalizers_on = false
    end
    fiber.with_timeout(5, function()
      for _, co in ipairs(coroutines) do
        while coroutine.status(co) ~= "dead" do fiber.sleep(0.001) end
      end
    end)
  end))
end)

-- Resumes `generator` in the running fiber, which a hook stops before ("c") or after ("r") the fiber waits
-- together with it. The generator is left suspended in its call.
local function leave_waiting(generator, event)
  local wait_inside, running = require("ip.core").fiber.wait_inside, coroutine.running()
  debug.sethook(running, function()
    if debug.getinfo(2, "f").func ~= wait_inside then return end
    debug.sethook(running)
    error("stopped by the hook", 0)
  end, event)
  assert.same({ false, "stopped by the hook" }, { pcall(library_coroutine.resume, generator) })
end

-- A generator that receives from `sock`, left waiting by a fiber that has ended; and that fiber, weakly.
local function outlive_a_fiber(sock)
  local generator = coroutine.create(function() return sock:receive_string() end)
  local weak = setmetatable({ fiber.spawn(leave_waiting, generator, "c") }, { __mode = "v" })
  weak[1]:join()
  for _ = 1, 2 do collectgarbage() end
  return generator, weak
end

describe("a generator that waits when a hook stops its fiber", function()
  it("can be closed after the end of the fiber, and lets go of it", support.with_loop(function()
    local sock = new_pair()
    local generator, weak = outlive_a_fiber(sock)
    assert.is_true(coroutine.close(generator))
    for _ = 1, 2 do collectgarbage() end
    assert.is_nil(weak[1])
    sock:close()
  end))

  it("gets its datagram after the end of the fiber", support.with_loop(function()
    local sock, client = new_pair()
    local generator = outlive_a_fiber(sock)
    client:send("late")
    support.wait_until(function() return coroutine.status(generator) == "dead" end)
    assert.is_nil((sock:try_receive(byte_span.new(10))))
    sock:close()
    client:close()
  end))

  it("may be continued by another fiber, and the first fiber waits for other things", support.with_loop(function()
    local sock, client = new_pair()
    local generator = coroutine.create(function()
      return fiber.with_timeout(60, sock.receive_string, sock)
    end)
    local continued = 0
    local first = fiber.spawn(function()
      leave_waiting(generator, "r")
      local second = fiber.spawn(library_coroutine.resume, generator)
      while second.status ~= "done" do coroutine.yield() end
      assert.same({ true, "text" }, { table.unpack({ second:join() }, 1, 2) })
      for _ = 1, 3 do
        coroutine.yield() -- Lua's own: the loop continues the fiber unless it waits for something
        continued = continued + 1
      end
    end)
    fiber.yield()
    client:send("text")
    first:join()
    assert.equal(3, continued)
    sock:close()
    client:close()
  end))
end)

describe("under a hook of each instruction, which looks like one that Ctrl-C has set", function()
  it("a step blocks as long as it does without", support.on_main(function()
    local sleeper = fiber.spawn(fiber.sleep, 100)
    fiber.loop:step()
    local start = fiber.now()
    debug.sethook(function() end, "", 1)
    for _ = 1, 4 do fiber.loop:step(0.01) end
    debug.sethook()
    assert.is_true(fiber.now() - start >= 0.03)
    sleeper:interrupt()
    sleeper:join()
  end))
end)
