-- What ip.fiber.queue promises: order, closing, and that no value is lost or delivered twice, however waits end.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local memory = require "spec.support.memory"
local places = require "spec.support.places"
local samples = require "spec.support.sample_fibers"
local support = require "spec.support"

local fiber = ip.fiber
local with_loop, on_main, in_three_places = support.with_loop, support.on_main, places.in_three_places
local error_of, wait_until, waiting = support.error_of, support.wait_until, support.waiting
local assert_raises, assert_again = assertions.assert_raises, assertions.assert_again
local assert_bad_method_argument, assert_prints = assertions.assert_bad_method_argument, assertions.assert_prints

-- Fibers that wait in queue:get(), in this order; each notes "name=value" in `log`.
local function getters(queue, log, ...)
  local list = {}
  for i, name in ipairs { ... } do
    list[i] = waiting(function()
      local value = queue:get()
      log[#log + 1] = name .. "=" .. tostring(value)
    end)
  end
  return list
end

local function join_all(list)
  for _, one in ipairs(list) do one:join() end
end

describe("a queue", function()
  in_three_places("returns values in the order in which they were put", function()
    local queue = fiber.queue()
    for i = 1, 100 do queue:put(i) end
    assert.equal(100, #queue)
    for i = 1, 100 do assert.equal(i, queue:get()) end
    assert.equal(0, #queue)
  end)

  in_three_places("lets get wait for a value, and put for place", function()
    local queue = fiber.queue(1)
    local putter = fiber.spawn(function()
      for i = 1, 5 do
        queue:put(i)
        if i % 2 == 0 then fiber.yield() end
      end
    end)
    for i = 1, 5 do assert.equal(i, queue:get()) end
    putter:join()
  end)

  it("holds any value but nil", with_loop(function()
    local queue = fiber.queue()
    local values = { false, 0, "", {}, print, fiber.current(), ip.error.EAGAIN, 0.5, coroutine.create(print) }
    for _, value in ipairs(values) do queue:put(value) end
    for _, value in ipairs(values) do assert.equal(value, queue:get()) end
    assert_bad_method_argument(1, queue, "put")
    assert_bad_method_argument(1, queue, "put", nil)
    assert_bad_method_argument(1, queue, "try_put")
  end))

  it("refuses a capacity that is no integer of at least 1", with_loop(function()
    for _, wrong in ipairs { 0, -1, 1.5, "3", {} } do assertions.assert_bad_argument(1, nil, fiber.queue, wrong) end
    assert.equal(3, fiber.queue(3).capacity)
    assert.is_nil(fiber.queue().capacity)
    assert.is_nil(fiber.queue(nil).capacity)
  end))

  it("refuses what is no queue, and names that it does not have", with_loop(function()
    local queue = fiber.queue()
    assertions.assert_message("ip.fiber.queue expected", queue.get, fiber.condition())
    assertions.assert_message("has no property 'size'", function() return queue.size end)
    assertions.assert_message("cannot be written", function() queue.capacity = 3 end)
  end))

  it("counts neither puts that wait nor values that belong to a get", with_loop(function()
    local queue = fiber.queue(1)
    queue:put("a")
    local putter = waiting(queue.put, queue, "b")
    assert.equal(1, #queue)
    assert.equal("a", queue:get())
    assert.equal(1, #queue)
    assert.equal("b", queue:get())
    putter:join()
    local getter = waiting(queue.get, queue)
    queue:put("c")
    assert.equal(0, #queue)
    assert.equal("c", getter:join())
  end))

  it("serves the gets, and the puts, that have waited longest first", with_loop(function()
    local queue, log = fiber.queue(1), {}
    local list = getters(queue, log, "a", "b", "c")
    for i = 1, 3 do queue:put(i) end
    join_all(list)
    assert.equal("a=1 b=2 c=3", table.concat(log, " "))
    queue:put(0)
    local putters = {}
    for i = 1, 3 do putters[i] = waiting(queue.put, queue, i) end
    for i = 0, 3 do assert.equal(i, queue:get()) end
    join_all(putters)
  end))

  it("gives a value to the get that waits at once: nobody else can take it", with_loop(function()
    local queue = fiber.queue()
    local getter = waiting(queue.get, queue)
    queue:put("first")
    assert_again("try_get", queue:try_get())
    queue:put("second")
    assert.equal("second", queue:try_get())
    assert.equal("first", getter:join())
  end))

  it("yields after many calls that did not wait, so that others run", with_loop(function()
    local queue = fiber.queue()
    assert.is_true(support.turns_during(function()
      for i = 1, 1000 do
        queue:put(i)
        assert.equal(i, queue:get())
      end
    end) >= 10)
  end))

  it("does not let a pair of fibers starve the others", with_loop(function()
    local queue, stop = fiber.queue(8), false
    local putter = fiber.spawn(function() while not stop do queue:put(1) end end)
    local getter = fiber.spawn(function() while queue:get() do end end) -- luacheck: ignore
    for _ = 1, 20 do fiber.yield() end
    stop = true
    putter:join()
    queue:close()
    getter:join()
  end))
end)

describe("try_put and try_get", function()
  it("never suspend", with_loop(function()
    local queue = fiber.queue(1)
    assert_again("try_get", queue:try_get())
    assert.is_true(queue:try_put(1))
    assert_again("try_put", queue:try_put(2))
    assert.equal(1, queue:try_get())
    assert_again("try_get", queue:try_get())
  end))

  it("work where Lua cannot yield", with_loop(function()
    local queue = fiber.queue()
    table.sort({ 2, 1 }, function(a, b)
      assert.is_true(queue:try_put(a))
      assert.equal(a, queue:try_get())
      return a < b
    end)
    assertions.assert_message("cannot wait in get", table.sort, { 2, 1 }, function(a, b)
      queue:get()
      return a < b
    end)
    assertions.assert_message("cannot wait in put", table.sort, { 2, 1 }, function(a, b)
      queue:put(1)
      return a < b
    end)
  end))

  it("wake those who wait", with_loop(function()
    local queue = fiber.queue(1)
    local getter = waiting(queue.get, queue)
    assert.is_true(queue:try_put("x"))
    assert.equal("x", getter:join())
    queue:put(1)
    local putter = waiting(queue.put, queue, 2)
    assert.equal(1, queue:try_get())
    assert.equal(2, queue:try_get())
    putter:join()
  end))

  it("return EPIPE once the queue is closed", with_loop(function()
    local queue = fiber.queue()
    queue:put(1)
    queue:close()
    local value, err = queue:try_put(2)
    assert.is_nil(value)
    assert.equal(ip.error.EPIPE, err)
    assert.equal("try_put", err.operation)
    assert.equal(1, queue:try_get())
    value, err = queue:try_get()
    assert.is_nil(value)
    assert.equal(ip.error.EPIPE, err)
    assert.equal("try_get", err.operation)
  end))
end)

describe("queue:close", function()
  it("lets gets drain what is left, and then return nil", with_loop(function()
    local queue = fiber.queue()
    queue:put(1)
    queue:put(2)
    assert.is_false(queue.is_closed)
    queue:close()
    queue:close()
    assert.is_true(queue.is_closed)
    assert.equal(1, queue:get())
    assert.equal(2, queue:get())
    assert.same({ n = 1 }, table.pack(queue:get()))
    assert.is_nil(queue:get())
  end))

  it("ends waiting gets with nil, and waiting and later puts with EPIPE", with_loop(function()
    local queue = fiber.queue(1)
    local list = { waiting(queue.get, queue), waiting(queue.get, queue) }
    queue:close()
    for _, one in ipairs(list) do assert.same({ n = 1 }, table.pack(one:join())) end
    queue = fiber.queue(1)
    queue:put("kept")
    local putter = waiting(pcall, queue.put, queue, "refused")
    queue:close()
    local ok, err = putter:join()
    assert.is_false(ok)
    assert.equal(ip.error.EPIPE, err)
    assert.equal("put", err.operation)
    assert_raises("EPIPE", "put", queue.put, queue, 1)
    assert.equal("kept", queue:get())
    assert.is_nil(queue:get())
  end))

  it("leaves values to the gets that they were given to", with_loop(function()
    local queue, log = fiber.queue(), {}
    local list = getters(queue, log, "a", "b", "c")
    queue:put(1)
    queue:put(2)
    queue:close()
    join_all(list)
    assert.equal("a=1 b=2 c=nil", table.concat(log, " "))
  end))

  it("ends the loops over values()", with_loop(function()
    local queue, sum = fiber.queue(2), 0
    local loop = fiber.spawn(function()
      for value in queue:values() do sum = sum + value end
      return "over"
    end)
    for i = 1, 10 do queue:put(i) end
    queue:close()
    assert.equal("over", loop:join())
    assert.equal(55, sum)
  end))
end)

describe("a wait in a queue that is ended", function()
  -- The ways to end the wait of `one`, a fiber.
  local ways = {
    interruption = function(one) samples.stop(one) end,
    ["coroutine.close"] = function(one, co)
      coroutine.close(co)
      assert.equal(ip.error.ECANCELED, error_of(one.join, one))
    end,
  }

  local function start(fn, ...)
    local co
    local one = waiting(function(...)
      co = coroutine.running()
      fn(...)
    end, ...)
    return one, co
  end

  for name, finish in pairs(ways) do
    it("by " .. name .. " takes nothing", with_loop(function()
      local queue, log = fiber.queue(), {}
      local one, co = start(queue.get, queue)
      local list = getters(queue, log, "next")
      finish(one, co)
      queue:put(1)
      join_all(list)
      assert.equal("next=1", log[1])
    end))

    it("by " .. name .. " puts nothing", with_loop(function()
      local queue = fiber.queue(1)
      queue:put(1)
      local one, co = start(queue.put, queue, "never")
      local other = waiting(queue.put, queue, 2)
      finish(one, co)
      assert.equal(1, queue:get())
      assert.equal(2, queue:get())
      assert.equal(0, #queue)
      other:join()
    end))

    it("by " .. name .. " in the iteration of the hand-over loses nothing", with_loop(function()
      local queue = fiber.queue()
      local got
      local co
      local one = waiting(function()
        co = coroutine.running()
        got = queue:get()
      end)
      queue:put("x")
      queue:put("y")
      if name == "interruption" then one:interrupt() else coroutine.close(co) end
      wait_until(function() return one.status ~= "ready" and one.status ~= "waiting" end)
      local left = { queue:try_get(), (queue:try_get()) }
      if got == nil then
        assert.same({ "x", "y" }, left)
      else
        assert.same({ "x", "y" }, { got, left[1] })
      end
    end))
  end

  it("by a deadline takes, puts and keeps nothing", with_loop(function()
    local queue = fiber.queue(1)
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, queue.get, queue))
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0, queue.get, queue))
    queue:put(1)
    local weak = setmetatable({}, { __mode = "v" })
    weak[1] = {}
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, queue.put, queue, weak[1]))
    collectgarbage()
    assert.is_nil(weak[1])
    assert.equal(1, queue:get())
    assert.equal(0, #queue)
  end))

  it("by a deadline of zero does what needs no wait", with_loop(function()
    local queue = fiber.queue(1)
    fiber.with_timeout(0, queue.put, queue, 1)
    assert.equal(1, fiber.with_timeout(0, queue.get, queue))
  end))

  it("passes a value that its closed coroutine was given to the next get", with_loop(function()
    local queue, log, co = fiber.queue(), {}, nil
    local one = waiting(function()
      co = coroutine.running()
      queue:get()
    end)
    local list = getters(queue, log, "next")
    queue:put("x")
    coroutine.close(co)
    join_all(list)
    assert.equal("next=x", log[1])
    assert.equal(ip.error.ECANCELED, error_of(one.join, one))
  end))

  it("brings values back to the front, in their order and beyond the capacity", with_loop(function()
    local queue, threads, ended = fiber.queue(1), {}, {}
    for i = 1, 3 do
      ended[i] = waiting(function()
        threads[i] = coroutine.running()
        queue:get()
      end)
    end
    for i = 1, 4 do queue:put(i) end
    for i = 3, 1, -1 do coroutine.close(threads[i]) end
    assert.equal(4, #queue)
    assert_again("try_put", queue:try_put(5))
    for i = 1, 4 do assert.equal(i, queue:get()) end
    for i = 1, 3 do assert.equal(ip.error.ECANCELED, error_of(ended[i].join, ended[i])) end
  end))

  it("loses nothing where the coroutine collects the queue's last user while it is closed", with_loop(function()
    local weak = setmetatable({}, { __mode = "v" })
    local co
    local one = waiting(function()
      co = coroutine.running()
      local closing <close> = samples.on_close(samples.collect_elsewhere) -- luacheck: ignore closing
      local queue = fiber.queue()
      weak[1] = queue
      queue:get()
    end)
    weak[1]:put(1)
    coroutine.close(co)
    assert.equal(ip.error.ECANCELED, error_of(one.join, one))
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
  end))

  it("raises EDEADLK on the main thread when nobody is left, and may be repeated", function()
    assert_prints("false\tEDEADLK\tget\nfalse\tEDEADLK\tput\n1\t0\nfalse\tEDEADLK\trun\n", [[
      local fiber = require "ip".fiber
      local queue = fiber.queue(1)
      local ok, err = pcall(queue.get, queue)
      print(ok, err.name, err.operation)
      queue:put(1)
      ok, err = pcall(queue.put, queue, 2)
      print(ok, err.name, err.operation)
      print(queue:get(), #queue)
      fiber.spawn(queue.get, queue)
      ok, err = pcall(fiber.run)
      print(ok, err.name, err.operation)
    ]])
  end)
end)

describe("a queue and coroutines of others", function()
  it("serves them in the line of all", on_main(function()
    local queue, log = fiber.queue(), {}
    local function get(name)
      local value = queue:get()
      log[#log + 1] = name .. "=" .. value
    end
    coroutine.wrap(get)("a")
    local one = fiber.spawn(get, "b")
    fiber.yield()
    coroutine.wrap(get)("c")
    for i = 1, 3 do queue:put(i) end
    fiber.run()
    one:join()
    assert.equal("a=1 b=2 c=3", table.concat(log, " "))
  end))

  it("works in a generator inside a fiber", with_loop(function()
    local queue = fiber.queue(1)
    local values = fiber.coroutine.wrap(function()
      for value in queue:values() do fiber.coroutine.yield(value) end
    end)
    fiber.spawn(function()
      for i = 1, 5 do queue:put(i) end
      queue:close()
    end)
    local sum = 0
    for value in values do sum = sum + value end
    assert.equal(15, sum)
  end))

  it("consumes nothing where somebody else resumes a waiting get", with_loop(function()
    local queue = fiber.queue()
    local co = coroutine.create(queue.get)
    coroutine.resume(co, queue)
    local ok, problem = coroutine.resume(co)
    assert.is_false(ok)
    assertions.assert_contains(problem, "resumed while waiting in get")
    queue:put(1)
    assert.equal(1, queue:try_get())
  end))

  it("gives the value to a get that somebody else resumes after the hand-over", with_loop(function()
    local queue = fiber.queue()
    local co = coroutine.create(function() return queue:get() end)
    coroutine.resume(co)
    queue:put(1)
    assert.same({ true, 1 }, { coroutine.resume(co) })
  end))

  it("skips coroutines that were closed at the limit of nested C calls", with_loop(function()
    for depth = 199, 180, -1 do
      local queue = fiber.queue()
      local co = coroutine.create(queue.get)
      coroutine.resume(co, queue)
      local function close_deep(n)
        if n == 0 then return coroutine.close(co) and "x" or "y" end
        return (string.gsub("x", "x", function() return close_deep(n - 1) end))
      end
      pcall(close_deep, depth)
      if coroutine.status(co) == "dead" then
        queue:put(depth)
        assert.equal(depth, queue:try_get())
      else
        coroutine.close(co)
      end
    end
  end))
end)

describe("waits on the main thread at the limit of nested C calls", function()
  it("raise before they have taken anything", on_main(function()
    local queue, semaphore, condition = fiber.queue(), fiber.semaphore(0), fiber.condition()
    local got, acquired, put, released = 0, 0, 0, 0
    fiber.on_error(function() end)
    local function deep(depth, fn)
      if depth > 0 then return (string.gsub("x", "x", function() return deep(depth - 1, fn) end)) end
      fn()
      return "x"
    end
    for depth = 180, 199 do
      fiber.spawn(function()
        queue:put(depth)
        put = put + 1
      end)
      pcall(deep, depth, function() -- a fiber that is resumed at that depth may not be able to put
        fiber.with_timeout(0.02, queue.get, queue)
        got = got + 1
      end)
      fiber.spawn(function()
        semaphore:release()
        released = released + 1
      end)
      pcall(deep, depth, function()
        fiber.with_timeout(0.02, semaphore.acquire, semaphore)
        acquired = acquired + 1
      end)
      pcall(deep, depth, function() fiber.with_timeout(0.0001, condition.wait, condition) end)
      pcall(deep, depth, function() fiber.with_timeout(0.0001, fiber.wait_any, fiber.queue(), fiber.queue()) end)
      fiber.run()
    end
    samples.restore_on_error()
    assert.is_true(got > 0 and acquired > 0)
    assert.equal(put, got + #queue)
    assert.equal(released, acquired + semaphore.permits)
    assert.equal(0, condition:notify_all())
    assert.equal(0, require("ip.core").fiber.statistics().operations)
  end))
end)

describe("a queue's memory", function()
  it("needs no garbage in the steady state", with_loop(function()
    local queue, ping, pong = fiber.queue(), fiber.queue(), fiber.queue(1)
    local echo = fiber.spawn(function() for value in ping:values() do pong:put(value) end end)
    local bytes = memory.garbage_of(function()
      for i = 1, 10 do queue:put(i) end
      for _ = 1, 10 do queue:get() end
      ping:put(1)
      pong:get()
    end, 100, 10)
    ping:close()
    echo:join()
    assert.is_true(bytes <= 64, "garbage: " .. bytes)
  end))

  it("does not keep values that were taken", with_loop(function()
    local queue = fiber.queue()
    local weak = setmetatable({}, { __mode = "v" })
    local one, two = {}, {}
    weak[1], weak[2] = one, two
    local getter = waiting(function() queue:get() end)
    queue:put(one)
    queue:put(two)
    one, two = nil, nil -- luacheck: ignore 331 311
    getter:join()
    queue:get()
    collectgarbage()
    assert.is_nil(weak[1])
    assert.is_nil(weak[2])
  end))

  it("is collected, though it contains itself", with_loop(function()
    local weak = setmetatable({}, { __mode = "v" })
    local queue = fiber.queue()
    queue:put(queue)
    weak[1] = queue
    queue = nil -- luacheck: ignore queue
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
  end))

  it("is small: at most 200 bytes for an idle get beyond its fiber", with_loop(function()
    local function each(wait)
      local list, before = {}, memory.used()
      for i = 1, 1000 do list[i] = fiber.spawn(wait) end
      fiber.yield()
      fiber.yield()
      local bytes = (memory.used() - before) * 1024 / 1000
      samples.stop(table.unpack(list))
      return bytes
    end
    local queue = fiber.queue()
    each(function() queue:get() end)
    local plain = each(function() fiber.sleep(100) end)
    local waits = each(function() queue:get() end)
    assert.is_true(waits - plain <= 200, ("%.0f bytes, not %.0f"):format(waits, plain))
  end))
end)
