-- What fiber.sleep, fiber.yield and the clocks of ip.fiber promise.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local samples = require "spec.support.sample_fibers"

local fiber = ip.fiber
local with_loop, on_main = support.with_loop, support.on_main
local assert_bad_argument, assert_message = assertions.assert_bad_argument, assertions.assert_message
local assert_prints, stop = assertions.assert_prints, samples.stop

describe("fiber.sleep", function()
  it("never wakes early, on fibers and on the main thread", function()
    local function check()
      for i = 0, 30 do
        local seconds = i * 0.000333
        local start = fiber.now()
        fiber.sleep(seconds)
        assert.is_true(fiber.now() - start >= seconds)
      end
    end
    with_loop(check)()
    on_main(check)()
  end)

  it("wakes sleepers in the order of their deadlines", with_loop(function()
    local order, fibers = {}, {}
    local start = fiber.now() -- all deadlines count from here, whenever a fiber begins
    for _, milliseconds in ipairs { 30, 5, 20, 10, 25, 15 } do
      fibers[#fibers + 1] = fiber.spawn(function()
        fiber.sleep(start + milliseconds / 1000 - fiber.now())
        order[#order + 1] = milliseconds
      end)
    end
    for _, one in ipairs(fibers) do one:join() end
    assert.same({ 5, 10, 15, 20, 25, 30 }, order)
  end))

  it("of zero and less is a yield", with_loop(function()
    for _, seconds in ipairs { 0, 0.0, -0.0, -1, -math.huge, math.mininteger } do
      local others = 0
      local one = fiber.spawn(function() others = others + 1 end)
      fiber.sleep(seconds)
      assert.equal(1, others)
      one:join()
    end
  end))

  it("takes huge and infinite numbers", with_loop(function()
    for _, seconds in ipairs { 1e10, 1e300, math.maxinteger, math.huge } do
      local one = fiber.spawn(fiber.sleep, seconds)
      fiber.yield()
      fiber.sleep(0.001)
      assert.equal("waiting", one.status)
      stop(one)
    end
  end))

  it("returns nothing", with_loop(function()
    assert.equal(0, select("#", fiber.sleep(0)))
    assert.equal(0, select("#", fiber.sleep(0.001)))
  end))

  it("refuses what is no number of seconds, numeric strings included", with_loop(function()
    for _, wrong in ipairs { "1", true, {}, print } do
      assert_bad_argument(1, "number expected, got " .. type(wrong), fiber.sleep, wrong)
    end
    assert_message("number expected, got no value", fiber.sleep)
    assert_message("number expected, got nil", fiber.sleep, nil)
    assert_message("NaN", fiber.sleep, 0 / 0)
  end))

  it("without end raises EDEADLK on the main thread instead of hanging", function()
    assert_prints("false\tsleep: resource deadlock avoided (EDEADLK)\n", [[
      local ok, err = pcall(require "ip".fiber.sleep, math.huge)
      print(ok, err)
    ]])
  end)
end)

describe("fiber.yield", function()
  it("lets every other ready fiber run once", with_loop(function()
    local trace = {}
    local fibers = {}
    for i = 1, 5 do
      fibers[i] = fiber.spawn(function()
        for round = 1, 4 do
          trace[#trace + 1] = round * 10 + i
          fiber.yield()
        end
      end)
    end
    for _, one in ipairs(fibers) do one:join() end
    local expected = {}
    for round = 1, 4 do
      for i = 1, 5 do expected[#expected + 1] = round * 10 + i end
    end
    assert.same(expected, trace)
  end))

  it("lets the fibers run once when the main thread yields", on_main(function()
    local rounds = 0
    local one = fiber.spawn(function()
      for _ = 1, 10 do
        rounds = rounds + 1
        fiber.yield()
      end
    end)
    fiber.yield()
    assert.equal(1, rounds)
    fiber.yield()
    assert.equal(2, rounds)
    one:join()
  end))

  it("returns nothing, and at once where nobody else is ready", on_main(function()
    assert.equal(0, select("#", fiber.yield()))
    fiber.run(function() assert.equal(0, select("#", fiber.yield())) end)
  end))

  it("starves neither timers nor sockets", with_loop(function()
    local sock, port = support.bound()
    local slept, received = false, false
    local a = fiber.spawn(function()
      fiber.sleep(0.005)
      slept = true
    end)
    local b = fiber.spawn(function()
      sock:receive_string()
      received = true
    end)
    fiber.yield()
    sock:send_to("x", "127.0.0.1", port)
    while not (slept and received) do fiber.yield() end
    a:join()
    b:join()
    sock:close()
  end))
end)

describe("plain coroutine.yield inside a fiber", function()
  it("yields as fiber.yield does", with_loop(function()
    local trace = {}
    local function rounds(name, yield)
      for round = 1, 3 do
        trace[#trace + 1] = name .. round
        yield()
      end
    end
    local a = fiber.spawn(rounds, "a", coroutine.yield)
    local b = fiber.spawn(rounds, "b", fiber.yield)
    local c = fiber.spawn(rounds, "c", coroutine.yield)
    a:join()
    b:join()
    c:join()
    assert.same({ "a1", "b1", "c1", "a2", "b2", "c2", "a3", "b3", "c3" }, trace)
  end))

  it("takes no values anywhere: what is yielded is dropped and nothing comes back", with_loop(function()
    local one = fiber.spawn(function() return select("#", coroutine.yield(1, 2, 3)) end)
    assert.equal(0, one:join())
  end))
end)

describe("fiber.now and fiber.time", function()
  it("now is a float of seconds that never goes back", function()
    local last = fiber.now()
    assert.equal("float", math.type(last))
    for _ = 1, 1000 do
      local now = fiber.now()
      assert.is_true(now >= last)
      last = now
    end
  end)

  it("time is an integer of nanoseconds since the epoch", function()
    local before, time, after = os.time(), fiber.time(), os.time()
    assert.equal("integer", math.type(time))
    assert.is_true(time >= (before - 1) * 1000000000)
    assert.is_true(time <= (after + 2) * 1000000000)
  end)
end)
