-- What tells a fiber from others: its name, its traceback, the list of all; and ip.fiber.every.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local memory = require "spec.support.memory"
local samples = require "spec.support.sample_fibers"
local support = require "spec.support"

local fiber = ip.fiber
local with_loop, on_main = support.with_loop, support.on_main
local error_of, waiting = support.error_of, support.waiting
local assert_contains = assertions.assert_contains

after_each(samples.restore_on_error)

describe("fiber.name", function()
  it("is a number of its own until it is set", with_loop(function()
    local a, b = fiber.spawn(function() end), fiber.spawn(function() end)
    local first, second = a.name:match("^fiber (%d+)$"), b.name:match("^fiber (%d+)$")
    assert.equal(tonumber(first) + 1, tonumber(second))
    a.name = "worker"
    assert.equal("worker", a.name)
    a:join()
    b:join()
    assert.equal("worker", a.name)
    assert.equal("fiber " .. second, b.name)
  end))

  it("is a string", with_loop(function()
    local one = fiber.current()
    for _, wrong in ipairs { 1, true, {} } do
      assert.is_string(error_of(function() one.name = wrong end))
    end
    assert.is_string(error_of(function() one.name = nil end))
    one.name = ""
    assert.equal("", one.name)
  end))

  it("may be set while the fiber waits, whose wait goes on", with_loop(function()
    local queue, full = fiber.queue(), fiber.queue(1)
    full:put "first"
    local getter = fiber.spawn(function() return queue:get() end)
    local putter = fiber.spawn(function() full:put { "second" } end)
    fiber.yield()
    getter.name, putter.name = "getter", "putter"
    collectgarbage()
    queue:put "value"
    assert.equal("first", full:get())
    assert.same({ "second" }, full:get())
    assert.equal("value", getter:join())
    putter:join()
    assert.equal("getter", getter.name)
    assert.equal("putter", putter.name)
  end))

  it("is in the report of a failure", function()
    local output, code = support.run_program([[
      local fiber = require "ip".fiber
      fiber.spawn(error, "one", 0)
      fiber.spawn(error, "two", 0).name = "the worker"
      coroutine.wrap(function()
        fiber.yield()
        error("three", 0)
      end)()
      fiber.run()
    ]])
    assert.equal(0, code)
    local first_lines = {}
    for line in output:gmatch("error in [^\n]*") do first_lines[#first_lines + 1] = line end
    assert.same({ "error in fiber 1: one", "error in the worker: two", "error in a coroutine: three" }, first_lines)
  end)
end)

describe("fiber:traceback", function()
  local function deep()
    fiber.sleep(100)
    return 1
  end

  it("tells where a fiber waits", with_loop(function()
    local one = waiting(function() return (deep()) end)
    local text = one:traceback()
    assert_contains(text, "stack traceback:")
    assert_contains(text, "sleep")
    assert_contains(text, "fiber_name_spec.lua:")
    samples.stop(one)
  end))

  it("tells where the running fiber is", with_loop(function()
    local text = fiber.current():traceback()
    assert.matches("^stack traceback:\n\t[^\n]*fiber_name_spec.lua:", text)
  end))

  it("of a failed fiber stays, and is what on_error got", with_loop(function()
    local seen = samples.collect_errors()
    local function fail() error("failure", 0) end
    local reported = fiber.spawn(function()
      fail()
      return 1
    end)
    local joined = fiber.spawn(function()
      fail()
      return 1
    end)
    assert.equal("failure", error_of(joined.join, joined))
    fiber.yield()
    assert.equal("failed", reported.status)
    pcall(reported.join, reported)
    collectgarbage()
    assert.equal(seen[1][2], reported:traceback())
    assert_contains(reported:traceback(), "fail")
    assert_contains(joined:traceback(), "fiber_name_spec.lua:")
  end))

  it("is empty before the start and after any other end", with_loop(function()
    local one = fiber.spawn(function() end)
    assert.equal("stack traceback:", one:traceback())
    one:join()
    assert.equal("stack traceback:", one:traceback())
    local interrupted = waiting(fiber.sleep, 100)
    samples.stop(interrupted)
    assert.equal("stack traceback:", interrupted:traceback())
    assertions.assert_message("ip.fiber expected", one.traceback, 1)
  end))
end)

describe("ip.fiber.list", function()
  it("has all fibers that have not ended, in the order of spawning", with_loop(function()
    local before = #fiber.list()
    local a, b, c = samples.sleeper(), samples.sleeper(), samples.sleeper()
    local list = fiber.list()
    assert.equal(before + 3, #list)
    assert.same({ a, b, c }, { table.unpack(list, before + 1) })
    samples.stop(b)
    assert.same({ a, c }, { table.unpack(fiber.list(), before + 1) })
    samples.stop(a, c)
    assert.equal(before, #fiber.list())
    assert.equal(fiber.current(), fiber.list()[before])
  end))

  it("has no coroutines of others", on_main(function()
    local before = #fiber.list()
    local co = coroutine.create(fiber.sleep)
    coroutine.resume(co, 100)
    assert.equal(before, #fiber.list())
    coroutine.close(co)
  end))

  it("has fibers that nobody else knows", with_loop(function()
    local before = #fiber.list()
    fiber.spawn(fiber.sleep, 100).name = "unknown"
    collectgarbage()
    local list = fiber.list()
    assert.equal("unknown", list[before + 1].name)
    samples.stop(list[before + 1])
  end))
end)

describe("fiber.every", function()
  it("ticks once in each period, from one period after the call", with_loop(function()
    local start, ticks = fiber.now(), 0
    for count, late in fiber.every(0.002) do
      ticks = ticks + 1
      assert.is_true(count >= ticks)
      assert.is_true(late >= 0)
      assert.is_true(fiber.now() - start >= count * 0.002)
      if ticks == 5 then break end
    end
  end))

  it("does not drift: a tick is due at a multiple of the period", with_loop(function()
    local function largest_difference()
      local start, largest = fiber.now(), 0
      for count, late in fiber.every(0.001) do
        largest = math.max(largest, math.abs(fiber.now() - late - start - count * 0.001))
        if count >= 10 then return largest end
      end
    end
    local tries = 0
    repeat -- where other processes take the core between a tick and the look at the clock, that is no drift
      tries = tries + 1
      local difference = largest_difference()
      assert.is_true(difference < 0.0009 or tries < 50, tostring(difference))
    until difference < 0.0009
  end))

  it("skips the ticks that were missed, and counts them", with_loop(function()
    local counts = {}
    for count in fiber.every(0.002) do
      counts[#counts + 1] = count
      if #counts == 2 then break end
      fiber.sleep(0.011)
    end
    assert.is_true(counts[2] >= counts[1] + 5)
  end))

  it("lets others run though the body is always late", with_loop(function()
    assert.is_true(support.turns_during(function()
      local rounds = 0
      for _ in fiber.every(1e-9) do
        rounds = rounds + 1
        if rounds == 20 then break end
      end
    end) >= 10)
  end))

  it("is ended by interruption and deadlines", with_loop(function()
    local one = waiting(function() for _ in fiber.every(100) do end end) -- luacheck: ignore
    samples.stop(one)
    assert.equal("interrupted", one.status)
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, function()
      for _ in fiber.every(100) do end -- luacheck: ignore
    end))
  end))

  it("works on the main thread", on_main(function()
    for count in fiber.every(0.001) do if count >= 2 then break end end
  end))

  it("takes positive finite periods only", with_loop(function()
    for _, wrong in ipairs { 0, -1, math.huge, 0 / 0, "1" } do
      assertions.assert_bad_argument(1, "to 'every'", fiber.every, wrong)
    end
    assertions.assert_bad_argument(1, "to 'every'", fiber.every)
    assert.is_true(fiber.every(1e-300)() > 0)
  end))

  it("makes no garbage per tick", with_loop(function()
    local tick = fiber.every(1e-6)
    local bytes = memory.garbage_of(tick, 50, 5)
    assert.is_true(bytes <= 64, "garbage: " .. bytes)
  end))
end)
