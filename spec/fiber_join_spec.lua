-- What fiber:join and fiber:detach promise.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local samples = require "spec.support.sample_fibers"

local fiber = ip.fiber
local with_loop, on_main = support.with_loop, support.on_main
local error_of, wait_until = support.error_of, support.wait_until
local assert_message, assert_prints = assertions.assert_message, assertions.assert_prints
local assert_raises = assertions.assert_raises
local collect_errors, held = samples.collect_errors, samples.held
local sleeper, stop = samples.sleeper, samples.stop

after_each(samples.restore_on_error)

describe("fiber:join", function()
  it("returns the results, nils and their number included", with_loop(function()
    assert.same({ n = 4, 1, nil, "x", nil }, table.pack(fiber.spawn(function() return 1, nil, "x", nil end):join()))
    assert.equal(0, select("#", fiber.spawn(function() end):join()))
    assert.same({ n = 1 }, table.pack(fiber.spawn(function() return nil end):join()))
  end))

  it("returns thousands of results", with_loop(function()
    local values = {}
    for i = 1, 20000 do values[i] = i end
    local results = table.pack(fiber.spawn(table.unpack, values):join())
    assert.equal(20000, results.n)
    assert.equal(20000, results[20000])
  end))

  it("returns the results of a fiber that ended long before", with_loop(function()
    local one = fiber.spawn(function() return "kept" end)
    for _ = 1, 5 do fiber.yield() end
    collectgarbage()
    assert.equal("done", one.status)
    assert.equal("kept", one:join())
  end))

  it("waits on the main thread, which drives the loop meanwhile", on_main(function()
    local one = fiber.spawn(function()
      fiber.sleep(0.005)
      return "end"
    end)
    assert.equal("end", one:join())
  end))

  it("waits in a coroutine made by others", on_main(function()
    local one = fiber.spawn(function()
      fiber.sleep(0.005)
      return "end", nil
    end)
    local got
    coroutine.wrap(function() got = table.pack(one:join()) end)()
    assert.is_nil(got)
    fiber.run()
    assert.same({ n = 2, "end", nil }, got)
  end))

  it("re-raises the fiber's error as it is, whether the fiber ended before or during the join", with_loop(function()
    local seen = collect_errors()
    local object = {}
    local ended = fiber.spawn(error, object)
    fiber.yield()
    assert.equal("failed", ended.status)
    assert.equal(object, error_of(ended.join, ended))
    assert.equal(1, #seen)
    local pending = fiber.spawn(function()
      fiber.yield()
      error(object)
    end)
    assert.equal(object, error_of(pending.join, pending))
    assert.equal(1, #seen)
  end))

  it("raises EINVAL the second time", with_loop(function()
    local one = fiber.spawn(function() return 1 end)
    assert.equal(1, one:join())
    assert_raises("EINVAL", "join", one.join, one)
  end))

  it("raises EINVAL the second time also when the first one raised the fiber's error", with_loop(function()
    local one = fiber.spawn(error, "failure", 0)
    assert.equal("failure", error_of(one.join, one))
    assert.equal(ip.error.EINVAL, error_of(one.join, one))
  end))

  it("raises EINVAL while another join waits, which gets the results", with_loop(function()
    local one = fiber.spawn(function()
      fiber.sleep(0.005)
      return "result"
    end)
    local first = fiber.spawn(one.join, one)
    fiber.yield()
    assert.equal(ip.error.EINVAL, error_of(one.join, one))
    assert.equal("result", first:join())
  end))

  it("raises EINVAL after detach, before and after the end", with_loop(function()
    local one = fiber.spawn(fiber.yield)
    one:detach()
    assert.equal(ip.error.EINVAL, error_of(one.join, one))
    wait_until(function() return one.status == "done" end)
    assert.equal(ip.error.EINVAL, error_of(one.join, one))
  end))

  it("raises EDEADLK for oneself", with_loop(function()
    local one = fiber.spawn(function()
      local me = fiber.current()
      return error_of(me.join, me)
    end)
    local err = one:join()
    assert.equal(ip.error.EDEADLK, err)
    assert.equal("join", err.operation)
  end))

  it("raises EDEADLK in a circle of two", with_loop(function()
    local a, b
    a = fiber.spawn(function() return b:join() end)
    b = fiber.spawn(function() return error_of(a.join, a) end)
    assert.equal(ip.error.EDEADLK, a:join())
  end))

  it("raises EDEADLK in a circle of three", with_loop(function()
    local a, b, c
    a = fiber.spawn(function() return b:join() end)
    b = fiber.spawn(function() return c:join() end)
    c = fiber.spawn(function() return error_of(a.join, a) end)
    assert.equal(ip.error.EDEADLK, a:join())
  end))

  it("looks at the circle before it looks at whether the fiber may be joined", with_loop(function()
    local a, b
    a = fiber.spawn(function() return b:join() end) -- the spec joins a: EINVAL for b, were that looked at first
    b = fiber.spawn(function() return error_of(a.join, a) end)
    assert.equal(ip.error.EDEADLK, a:join())
    local err
    local itself = fiber.spawn(function()
      local me = fiber.current()
      me:detach()
      err = error_of(me.join, me)
    end)
    wait_until(function() return itself.status == "done" end)
    assert.equal(ip.error.EDEADLK, err)
  end))

  it("takes a join that is over for no link of a circle, though its coroutine has not run yet", with_loop(function()
    local now, a = false, nil
    local b = fiber.spawn(function()
      while not now do fiber.yield() end
      a:join() -- a's own join of b was interrupted a moment ago
      return a.status
    end)
    a = fiber.spawn(function() b:join() end)
    fiber.yield()
    fiber.yield()
    now = true
    a:interrupt()
    wait_until(function() return b.status ~= "waiting" and b.status ~= "ready" end)
    assert.equal("interrupted", b:join())
  end))

  it("may be repeated after it timed out", with_loop(function()
    local one, release = held(tostring, "late")
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, one.join, one))
    assert.is_true(one.joinable)
    release()
    assert.equal("late", one:join())
  end))

  it("may be repeated after it was interrupted", with_loop(function()
    local one, release = held(tostring, "late")
    local joiner = fiber.spawn(one.join, one)
    fiber.yield()
    stop(joiner)
    assert.is_true(one.joinable)
    release()
    assert.equal("late", one:join())
  end))

  it("returns nothing for an interrupted fiber", with_loop(function()
    local one = sleeper()
    fiber.yield()
    one:interrupt()
    assert.equal(0, select("#", one:join()))
    assert.is_true(one.interruption_caught)
    assert.equal("interrupted", one.status)
  end))

  it("that is interrupted leaves the joined fiber alone", with_loop(function()
    local target = sleeper()
    local joiner = fiber.spawn(target.join, target)
    fiber.yield()
    stop(joiner)
    assert.equal("waiting", target.status)
    stop(target)
  end))

  it("raises EDEADLK on the main thread when nothing can end the fiber, and may be repeated", function()
    assert_prints("false\tEDEADLK\tjoin\twaiting\ttrue\n0\tinterrupted\n", [[
      local fiber = require "ip".fiber
      local one = fiber.spawn(fiber.sleep, math.huge)
      local ok, err = pcall(one.join, one)
      print(ok, err.name, err.operation, one.status, one.joinable)
      one:interrupt()
      print(select("#", one:join()), one.status)
    ]])
  end)

  it("refuses what is no fiber", function()
    local one = fiber.spawn(function() end)
    for _, wrong in ipairs { 1, "x", {}, coroutine.create(print), ip.error.EINVAL } do
      assert_message("ip.fiber expected", one.join, wrong)
    end
    one:join()
  end)
end)

describe("fiber:detach", function()
  it("lets the fiber go on and frees it from being joined", with_loop(function()
    local finished = false
    local one = fiber.spawn(function()
      fiber.yield()
      finished = true
    end)
    assert.is_true(one.joinable)
    one:detach()
    assert.is_false(one.joinable)
    wait_until(function() return finished end)
  end))

  it("raises EINVAL a second time, after a join and while somebody joins", with_loop(function()
    local detached = fiber.spawn(function() end)
    detached:detach()
    assert_raises("EINVAL", "detach", detached.detach, detached)
    local joined = fiber.spawn(function() end)
    joined:join()
    assert.equal(ip.error.EINVAL, error_of(joined.detach, joined))
    local target = sleeper()
    local joiner = fiber.spawn(target.join, target)
    fiber.yield()
    assert.equal(ip.error.EINVAL, error_of(target.detach, target))
    target:interrupt()
    joiner:join()
    fiber.yield()
    assert.equal("done", detached.status)
  end))

  it("leaves interrupt at work", with_loop(function()
    local one = sleeper()
    one:detach()
    fiber.yield()
    one:interrupt()
    wait_until(function() return one.status == "interrupted" end)
  end))

  it("of a fiber that has ended is allowed", with_loop(function()
    local one = fiber.spawn(function() end)
    fiber.yield()
    one:detach()
    assert.is_false(one.joinable)
  end))
end)
