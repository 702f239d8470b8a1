-- What ip.fiber.semaphore and ip.fiber.condition promise.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local memory = require "spec.support.memory"
local places = require "spec.support.places"
local samples = require "spec.support.sample_fibers"
local support = require "spec.support"

local fiber = ip.fiber
local with_loop, on_main, in_three_places = support.with_loop, support.on_main, places.in_three_places
local error_of, waiting = support.error_of, support.waiting
local assert_prints = assertions.assert_prints

local function join_all(list)
  for _, one in ipairs(list) do one:join() end
end

-- A fiber that waits in object:method(), and its coroutine.
local function start(object, method)
  local co
  local one = waiting(function()
    co = coroutine.running()
    return object[method](object)
  end)
  return one, co
end

describe("a semaphore", function()
  in_three_places("gives as many permits as it has, and then lets acquire wait", function()
    local semaphore = fiber.semaphore(2)
    semaphore:acquire()
    semaphore:acquire()
    assert.equal(0, semaphore.permits)
    assert.is_false(semaphore:try_acquire())
    fiber.spawn(function() semaphore:release() end)
    semaphore:acquire()
    assert.equal(0, semaphore.permits)
    semaphore:release()
    semaphore:release()
    semaphore:release()
    assert.equal(3, semaphore.permits)
  end)

  it("refuses a number of permits that is no integer of at least 0", with_loop(function()
    for _, wrong in ipairs { -1, 0.5, "1", {} } do assertions.assert_bad_argument(1, nil, fiber.semaphore, wrong) end
    assertions.assert_bad_argument(1, nil, fiber.semaphore)
    assert.equal(0, fiber.semaphore(0).permits)
    assertions.assert_message("ip.fiber.semaphore expected", fiber.semaphore(1).acquire, fiber.queue())
  end))

  it("serves who has waited longest first", with_loop(function()
    local semaphore, log, list = fiber.semaphore(0), {}, {}
    for i = 1, 4 do
      list[i] = waiting(function()
        semaphore:acquire()
        log[#log + 1] = i
      end)
    end
    for _ = 1, 4 do semaphore:release() end
    join_all(list)
    assert.same({ 1, 2, 3, 4 }, log)
    assert.equal(0, semaphore.permits)
  end))

  it("keeps at most math.maxinteger free permits", with_loop(function()
    local semaphore = fiber.semaphore(math.maxinteger)
    semaphore:release()
    assert.equal(math.maxinteger, semaphore.permits)
    do
      local guard <close> = semaphore:hold() -- luacheck: ignore guard
      semaphore:release()
    end
    assert.equal(math.maxinteger, semaphore.permits)
  end))

  it("gives a released permit to who waits at once: try_acquire fails meanwhile", with_loop(function()
    local semaphore = fiber.semaphore(0)
    local one = waiting(semaphore.acquire, semaphore)
    semaphore:release()
    assert.equal(0, semaphore.permits)
    assert.is_false(semaphore:try_acquire())
    one:join()
    semaphore:release()
    assert.is_true(semaphore:try_acquire())
  end))

  for _, method in ipairs { "acquire", "hold" } do
    it("loses no permit when a wait in " .. method .. " is ended", with_loop(function()
      local semaphore = fiber.semaphore(0)
      local interrupted = start(semaphore, method)
      local closed, co = start(semaphore, method)
      local last = waiting(semaphore.acquire, semaphore)
      samples.stop(interrupted)
      coroutine.close(co)
      assert.equal(ip.error.ECANCELED, error_of(closed.join, closed))
      assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, semaphore[method], semaphore))
      semaphore:release()
      last:join()
      assert.equal(0, semaphore.permits)
    end))

    it("passes on the permit of a wait in " .. method .. " that was closed after the hand-over", with_loop(function()
      local semaphore = fiber.semaphore(0)
      local one, co = start(semaphore, method)
      local next_one = waiting(semaphore.acquire, semaphore)
      semaphore:release()
      coroutine.close(co)
      next_one:join()
      assert.equal(ip.error.ECANCELED, error_of(one.join, one))
      one, co = start(semaphore, method)
      semaphore:release()
      coroutine.close(co)
      assert.equal(1, semaphore.permits)
      assert.equal(ip.error.ECANCELED, error_of(one.join, one))
    end))
  end

  it("returns a guard from hold, which releases at the end of its scope, also after an error", with_loop(function()
    local lock = fiber.semaphore(1)
    do
      local guard <close> = lock:hold() -- luacheck: ignore guard
      assert.equal(0, lock.permits)
    end
    assert.equal(1, lock.permits)
    pcall(function()
      local guard <close> = lock:hold() -- luacheck: ignore guard
      error("failure")
    end)
    assert.equal(1, lock.permits)
    local one, co = waiting(function()
      local guard <close> = lock:hold() -- luacheck: ignore guard
      fiber.sleep(100)
    end), nil
    assert.equal(0, lock.permits)
    samples.stop(one)
    assert.equal(1, lock.permits)
    one = waiting(function()
      co = coroutine.running()
      local guard <close> = lock:hold() -- luacheck: ignore guard
      fiber.sleep(100)
    end)
    coroutine.close(co)
    assert.equal(1, lock.permits)
    assert.equal(ip.error.ECANCELED, error_of(one.join, one))
  end))

  it("is a mutex with one permit", with_loop(function()
    local lock, inside, most, list = fiber.semaphore(1), 0, 0, {}
    for i = 1, 10 do
      list[i] = fiber.spawn(function()
        for _ = 1, 5 do
          local guard <close> = lock:hold() -- luacheck: ignore guard
          inside = inside + 1
          most = math.max(most, inside)
          fiber.yield()
          inside = inside - 1
        end
      end)
    end
    join_all(list)
    assert.equal(1, most)
    assert.equal(1, lock.permits)
  end))

  it("yields after many calls that did not wait", with_loop(function()
    local semaphore = fiber.semaphore(1)
    assert.is_true(support.turns_during(function()
      for _ = 1, 1000 do
        semaphore:acquire()
        semaphore:release()
        local guard <close> = semaphore:hold() -- luacheck: ignore guard
      end
    end) >= 10)
    assert.equal(1, semaphore.permits)
  end))

  it("raises EDEADLK on the main thread where nobody can release", function()
    assert_prints("false\tEDEADLK\tacquire\t0\nfalse\tEDEADLK\thold\t0\n", [[
      local fiber = require "ip".fiber
      local semaphore = fiber.semaphore(0)
      for _, method in ipairs { "acquire", "hold" } do
        local ok, err = pcall(semaphore[method], semaphore)
        print(ok, err.name, err.operation, semaphore.permits)
      end
    ]])
  end)

  it("makes no garbage in the steady state", with_loop(function()
    local semaphore, turn = fiber.semaphore(1), fiber.semaphore(0)
    local other = fiber.spawn(function()
      while true do
        turn:acquire()
        semaphore:release()
      end
    end)
    local bytes = memory.garbage_of(function()
      semaphore:acquire()
      turn:release()
      local guard <close> = semaphore:hold() -- luacheck: ignore guard
    end, 100, 10)
    samples.stop(other)
    assert.is_true(bytes <= 64, "garbage: " .. bytes)
  end))
end)

describe("a condition", function()
  in_three_places("wakes one waiter or all, and tells how many", function()
    local condition, woken, list = fiber.condition(), {}, {}
    for i = 1, 4 do
      list[i] = waiting(function()
        condition:wait()
        woken[#woken + 1] = i
      end)
    end
    assert.equal(1, condition:notify_one())
    list[1]:join()
    assert.same({ 1 }, woken)
    assert.equal(3, condition:notify_all())
    join_all(list[2] and { table.unpack(list, 2) })
    assert.same({ 1, 2, 3, 4 }, woken)
  end)

  it("lets the main thread and coroutines of others wait", on_main(function()
    local condition, over = fiber.condition(), false
    coroutine.wrap(function()
      condition:wait()
      over = true
    end)()
    fiber.spawn(function() condition:notify_all() end)
    condition:wait()
    support.wait_until(function() return over end)
  end))

  it("remembers nothing where nobody waits", with_loop(function()
    local condition = fiber.condition()
    assert.equal(0, condition:notify_one())
    assert.equal(0, condition:notify_all())
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, condition.wait, condition))
    assert.equal(0, condition:notify_all())
  end))

  it("wakes only those who waited when it was notified", with_loop(function()
    local condition, rounds = fiber.condition(), 0
    local one = waiting(function()
      while true do
        condition:wait()
        rounds = rounds + 1
      end
    end)
    condition:notify_all()
    condition:notify_all()
    for _ = 1, 3 do fiber.yield() end
    assert.equal(1, rounds)
    samples.stop(one)
  end))

  it("passes the notification of one on when its waiter is closed before it runs", with_loop(function()
    local condition = fiber.condition()
    local one, co = start(condition, "wait")
    local next_one = waiting(condition.wait, condition)
    assert.equal(1, condition:notify_one())
    coroutine.close(co)
    next_one:join()
    assert.equal(ip.error.ECANCELED, error_of(one.join, one))
  end))

  it("lets ended waits leave the line", with_loop(function()
    local condition = fiber.condition()
    local interrupted = start(condition, "wait")
    local closed, co = start(condition, "wait")
    local last = start(condition, "wait")
    samples.stop(interrupted)
    coroutine.close(co)
    assert.equal(1, condition:notify_one())
    last:join()
    assert.equal(ip.error.ECANCELED, error_of(closed.join, closed))
  end))

  it("always suspends, and refuses where it cannot", with_loop(function()
    local condition = fiber.condition()
    assertions.assert_message("cannot wait in wait", table.sort, { 2, 1 }, function() condition:wait() end)
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0, condition.wait, condition))
    assertions.assert_message("ip.fiber.condition expected", condition.wait, 1)
  end))

  it("raises EDEADLK on the main thread where nobody can notify it", function()
    assert_prints("false\tEDEADLK\twait\n", [[
      local fiber = require "ip".fiber
      local ok, err = pcall(function() fiber.condition():wait() end)
      print(ok, err.name, err.operation)
    ]])
  end)

  it("is collected, and so are its waiters, once their coroutines are closed", with_loop(function()
    local weak = setmetatable({}, { __mode = "v" })
    local co
    do
      local condition = fiber.condition()
      weak[1] = condition
      co = coroutine.create(function() condition:wait() end)
      coroutine.resume(co)
    end
    weak[2] = co
    collectgarbage()
    assert.is_not_nil(weak[1])
    coroutine.close(co)
    co = nil -- luacheck: ignore co
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
    assert.is_nil(weak[2])
  end))
end)
