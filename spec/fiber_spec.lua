-- What ip.fiber promises of starting and running fibers: spawn, run, current, a fiber's properties, and its
-- life.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local samples = require "spec.support.sample_fibers"

local fiber = ip.fiber
local with_loop, on_main = support.with_loop, support.on_main
local error_of, wait_until = support.error_of, support.wait_until
local assert_bad_argument, assert_message = assertions.assert_bad_argument, assertions.assert_message
local assert_prints = assertions.assert_prints
local collect_errors, sleeper, stop = samples.collect_errors, samples.sleeper, samples.stop

after_each(samples.restore_on_error)

describe("fiber.spawn", function()
  it("starts the function in the next loop iteration, not before it returns", with_loop(function()
    local started = false
    local one = fiber.spawn(function() started = true end)
    assert.is_false(started)
    assert.equal("ready", one.status)
    fiber.yield()
    assert.is_true(started)
    one:join()
  end))

  it("starts nothing on the main thread until that drives the loop", on_main(function()
    local started = false
    local one = fiber.spawn(function() started = true end)
    for _ = 1, 1000 do assert.is_false(started) end
    one:join()
    assert.is_true(started)
  end))

  it("starts fibers in the order they were spawned in", with_loop(function()
    local order = {}
    local fibers = {}
    for i = 1, 50 do
      fibers[i] = fiber.spawn(function() order[#order + 1] = i end)
    end
    for _, one in ipairs(fibers) do one:join() end
    for i = 1, 50 do assert.equal(i, order[i]) end
  end))

  it("hands over the arguments, nils and their number included", with_loop(function()
    local got
    fiber.spawn(function(...) got = table.pack(...) end, nil, 1, nil, "x", nil):join()
    assert.same({ n = 5, nil, 1, nil, "x", nil }, got)
    fiber.spawn(function(...) got = table.pack(...) end):join()
    assert.equal(0, got.n)
  end))

  it("hands over thousands of arguments", with_loop(function()
    local arguments = {}
    for i = 1, 20000 do arguments[i] = i end
    local one = fiber.spawn(function(...) return select("#", ...), (select(20000, ...)) end,
      table.unpack(arguments))
    assert.same({ 20000, 20000 }, { one:join() })
  end))

  it("takes C functions too", with_loop(function()
    assert.equal("3", fiber.spawn(tostring, 3):join())
  end))

  it("refuses what is no function, saying which argument is wrong", function()
    for _, wrong in ipairs { 1, "x", true, {}, setmetatable({}, { __call = print }), coroutine.create(print) } do
      assert_bad_argument(1, "function expected", fiber.spawn, wrong)
    end
    assert_message("function expected, got no value", fiber.spawn)
    assert_message("function expected, got nil", fiber.spawn, nil)
  end)

  it("may be called inside fibers, coroutines and comparators, as it never suspends", with_loop(function()
    local fibers = {}
    local function spawn() fibers[#fibers + 1] = fiber.spawn(function() return true end) end
    spawn()
    coroutine.wrap(spawn)()
    table.sort({ 2, 1 }, function(a, b)
      spawn()
      return a < b
    end)
    fibers[#fibers + 1] = fiber.spawn(function()
      spawn()
      return true
    end)
    while #fibers > 0 do assert.is_true(table.remove(fibers, 1):join()) end
  end))
end)

describe("fiber.run", function()
  it("without a function drives the loop until no fiber is left", on_main(function()
    local ended = 0
    for i = 1, 10 do
      fiber.spawn(function()
        fiber.sleep(i / 1000)
        fiber.spawn(function() ended = ended + 1 end)
        ended = ended + 1
      end)
    end
    assert.equal(0, select("#", fiber.run()))
    assert.equal(20, ended)
  end))

  it("without a function and without fibers returns at once", on_main(function()
    fiber.run()
  end))

  it("without a function waits for coroutines of others that wait in the library", on_main(function()
    local woken = false
    coroutine.wrap(function()
      fiber.sleep(0.01)
      woken = true
    end)()
    fiber.run()
    assert.is_true(woken)
  end))

  it("does not wait for detached fibers", on_main(function()
    local detached = sleeper()
    detached:detach()
    fiber.spawn(fiber.sleep, 0.001)
    fiber.run()
    assert.equal("waiting", detached.status)
    detached:interrupt()
    wait_until(function() return detached.status == "interrupted" end)
  end))

  it("with a function returns its results, nils included", on_main(function()
    local results = table.pack(fiber.run(function(...)
      fiber.yield()
      return nil, select("#", ...), nil
    end, nil, nil))
    assert.same({ n = 3, nil, 2, nil }, results)
    assert.equal(0, select("#", fiber.run(function() end)))
  end))

  it("with a function does not wait for other fibers", on_main(function()
    local other = sleeper()
    assert.equal("over", fiber.run(function() return "over" end))
    assert.is_true(other.joinable)
    stop(other)
  end))

  it("with a function re-raises its error, of whatever type", on_main(function()
    local object = setmetatable({}, { __tostring = function() return "object" end })
    for _, value in ipairs { "text", 12, true, object, print, ip.error.EACCES } do
      assert.equal(value, error_of(fiber.run, error, value, 0))
    end
    local none = error_of(error, nil) -- nil, of which Lua 5.5 makes a text
    assert.equal(none, error_of(fiber.run, error, nil))
  end))

  it("passes on errors of several calls one after the other", on_main(function()
    for i = 1, 20 do
      assert.equal(i, error_of(fiber.run, function()
        fiber.yield()
        error(i, 0)
      end))
    end
  end))

  it("refuses what is no function", on_main(function()
    for _, wrong in ipairs { 1, "x", true, {} } do
      assert_message("bad argument #1 to 'run' (function expected, got " .. type(wrong), fiber.run, wrong)
    end
    assert_message("function expected, got boolean", fiber.run, false)
  end))

  it("raises inside a fiber, in both forms", with_loop(function()
    assert_message("main thread", fiber.run)
    assert_message("main thread", fiber.run, print)
  end))

  it("raises inside a coroutine of others, in both forms", on_main(function()
    coroutine.wrap(function()
      assert_message("main thread", fiber.run)
      assert_message("main thread", fiber.run, print)
    end)()
  end))

  it("raises EDEADLK instead of hanging when nothing can end a fiber any more", function()
    assert_prints("false\trun: resource deadlock avoided (EDEADLK)\twaiting\ninterrupted\n", [[
      local fiber = require "ip".fiber
      local one = fiber.spawn(fiber.sleep, math.huge)
      local ok, err = pcall(fiber.run)
      print(ok, err, one.status)
      one:interrupt()
      fiber.run()
      print(one.status)
    ]])
  end)
end)

describe("fiber.current", function()
  it("is the running fiber", with_loop(function()
    local one, inside
    one = fiber.spawn(function()
      inside = fiber.current()
      fiber.yield()
      return fiber.current()
    end)
    assert.is_true(rawequal(one, one:join()))
    assert.is_true(rawequal(one, inside))
    assert.not_equal(one, fiber.current())
  end))

  it("is nil on the main thread and in coroutines made by others", on_main(function()
    assert.is_nil(fiber.current())
    coroutine.wrap(function() assert.is_nil(fiber.current()) end)()
    fiber.run(function() coroutine.wrap(function() assert.is_nil(fiber.current()) end)() end)
  end))
end)

describe("a fiber's properties", function()
  it("status tells its life: ready, running, waiting, ready, done", with_loop(function()
    local inside
    local one
    one = fiber.spawn(function()
      inside = one.status
      fiber.sleep(0.001)
    end)
    assert.equal("ready", one.status)
    fiber.yield()
    assert.equal("running", inside)
    assert.equal("waiting", one.status)
    one:join()
    assert.equal("done", one.status)
  end))

  it("status tells the three ends apart", with_loop(function()
    collect_errors()
    local done = fiber.spawn(function() end)
    local failed = fiber.spawn(error, "x")
    local interrupted = sleeper()
    interrupted:interrupt()
    fiber.yield()
    fiber.yield()
    assert.equal("done", done.status)
    assert.equal("failed", failed.status)
    assert.equal("interrupted", interrupted.status)
  end))

  it("status is ready after a yield and after plain coroutine.yield", with_loop(function()
    local a, b = fiber.spawn(fiber.yield), fiber.spawn(coroutine.yield)
    fiber.yield()
    assert.equal("ready", a.status)
    assert.equal("ready", b.status)
    a:join()
    b:join()
  end))

  it("joinable ends with join, also with one that raised", with_loop(function()
    collect_errors()
    local one, failed = fiber.spawn(function() end), fiber.spawn(error, "x")
    assert.is_true(one.joinable)
    one:join()
    assert.is_false(one.joinable)
    pcall(failed.join, failed)
    assert.is_false(failed.joinable)
  end))

  it("tostring names the class and the status", with_loop(function()
    local one = fiber.spawn(function() end)
    assert.is_truthy(tostring(one):match("^ip%.fiber %(ready%): "))
    one:join()
    assert.is_truthy(tostring(one):match("^ip%.fiber %(done%): "))
  end))

  it("an unknown one raises on read and on write, naming it", with_loop(function()
    local one = fiber.spawn(function() end)
    assert_message("stauts", function() return one.stauts end)
    assert_message("stauts", function() one.stauts = 1 end)
    one:join()
  end))

  it("cannot be written", with_loop(function()
    local one = fiber.spawn(function() end)
    for _, name in ipairs { "status", "joinable", "interruption_caught", "join" } do
      assert_message(name, function() one[name] = true end)
    end
    one:join()
  end))
end)

describe("a fiber that nobody holds", function()
  it("goes on all the same", with_loop(function()
    local finished = 0
    for _ = 1, 100 do
      fiber.spawn(function()
        fiber.sleep(0.002)
        finished = finished + 1
      end)
    end
    fiber.yield()
    collectgarbage()
    collectgarbage()
    wait_until(function() return finished == 100 end)
  end))

  it("is collected once it has ended, with its coroutine and its results", with_loop(function()
    collect_errors()
    local held = setmetatable({}, { __mode = "k" })
    for i = 1, 100 do
      held[fiber.spawn(function()
        local value = {}
        held[value] = true
        held[coroutine.running()] = true
        if i % 2 == 0 then error(value) end
        return value
      end)] = true
    end
    fiber.yield()
    fiber.on_error(nil)
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(held))
  end))

  it("is collected when nobody joined it and it was interrupted or detached", with_loop(function()
    local held = setmetatable({}, { __mode = "k" })
    do
      for i = 1, 20 do
        local one = sleeper()
        held[one] = true
        if i % 2 == 0 then one:detach() end
      end
      fiber.yield()
      for one in pairs(held) do one:interrupt() end
    end
    fiber.yield()
    fiber.yield()
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(held))
  end))
end)

describe("the coroutine of a fiber that has ended", function()
  it("is dead for everybody else, and its results are the joiner's", with_loop(function()
    local co
    local called = false
    local one = fiber.spawn(function()
      co = coroutine.running()
      return "first", function() called = true end
    end)
    fiber.yield()
    assert.equal("dead", coroutine.status(co))
    assert.is_false((coroutine.resume(co)))
    assert.is_false(called)
    assert.equal("first", (one:join()))
  end))

  it("may be closed by others without loss of results or errors", with_loop(function()
    collect_errors()
    local co
    local done = fiber.spawn(function()
      co = coroutine.running()
      return 1, 2, 3
    end)
    fiber.yield()
    coroutine.close(co)
    assert.same({ 1, 2, 3 }, { done:join() })
    local failed = fiber.spawn(function()
      co = coroutine.running()
      error("failure", 0)
    end)
    fiber.yield()
    coroutine.close(co)
    assert.equal("failure", error_of(failed.join, failed))
  end))
end)
