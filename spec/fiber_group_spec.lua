-- What ip.fiber.group promises: its fibers end together, and none of their errors is lost.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local samples = require "spec.support.sample_fibers"
local support = require "spec.support"

local fiber = ip.fiber
local with_loop, on_main = support.with_loop, support.on_main
local error_of, wait_until, waiting = support.error_of, support.wait_until, support.waiting
local assert_raises, assert_prints = assertions.assert_raises, assertions.assert_prints
local collect_errors = samples.collect_errors

after_each(samples.restore_on_error)

describe("group:spawn", function()
  it("starts fibers with their arguments, and counts those that have not ended", with_loop(function()
    local group, got = fiber.group(), nil
    local one = group:spawn(function(...) got = table.pack(...) end, 1, nil, "x", nil)
    assert.equal(1, group.size)
    group:join()
    assert.same({ n = 4, 1, nil, "x", nil }, got)
    assert.equal(0, group.size)
    assert.equal("done", one.status)
  end))

  it("refuses what is no function", with_loop(function()
    local group = fiber.group()
    assertions.assert_bad_method_argument(1, group, "spawn")
    assertions.assert_bad_method_argument(1, group, "spawn", {})
    assertions.assert_message("ip.fiber.group expected", group.spawn, fiber.queue(), print)
    assert.equal(0, group.size)
  end))

  it("raises ECANCELED after a failure, an interruption and the end of the scope", with_loop(function()
    local failed, interrupted = fiber.group(), fiber.group()
    local closed
    failed:spawn(error, "failure", 0)
    fiber.yield()
    assert_raises("ECANCELED", "spawn", failed.spawn, failed, print)
    interrupted:interrupt()
    assert_raises("ECANCELED", "spawn", interrupted.spawn, interrupted, print)
    do
      local scoped <close> = fiber.group()
      closed = scoped
    end
    assert_raises("ECANCELED", "spawn", closed.spawn, closed, print)
    assert.equal("failure", error_of(failed.join, failed))
  end))
end)

describe("a finalizer that interrupts a group", function()
  -- In a process of its own: the collector soon comes to each place of a small heap.
  it("interrupts the fiber that is being spawned, too", function()
    assert_prints("interrupted\n", [[
      local fiber = require("ip").fiber

      -- Spawns while garbage that interrupts the group is there; the fiber, and whether spawn would refuse now.
      local function spawn_over_garbage(amount)
        local group, spawning = fiber.group(), false
        setmetatable({}, { __gc = function() if spawning then group:interrupt() end end })
        for _ = 1, amount do local _ = {} end
        spawning = true
        local ok, one = pcall(group.spawn, group, fiber.sleep, 0.01)
        spawning = false
        return ok and one, not pcall(group.spawn, group, fiber.yield)
      end

      fiber.run(function()
        local one, refuses
        require("spec.support.collector").press()
        for round = 1, 100000 do -- until the collector runs just then
          one, refuses = spawn_over_garbage(round % 30)
          if one and refuses then break end
          if one then one:interrupt() end
          fiber.yield()
        end
        one:join()
        print(refuses and one.status)
      end)
    ]])
  end)
end)

describe("group:join", function()
  it("waits until all have ended", with_loop(function()
    local group, ended = fiber.group(), 0
    for i = 1, 5 do
      group:spawn(function()
        fiber.sleep(i / 1000)
        ended = ended + 1
      end)
    end
    group:join()
    assert.equal(5, ended)
    group:join()
    assert.equal(0, select("#", fiber.group():join()))
  end))

  it("works on the main thread and in coroutines of others, several at a time", on_main(function()
    local group, joined = fiber.group(), 0
    group:spawn(fiber.sleep, 0.002)
    coroutine.wrap(function()
      group:join()
      joined = joined + 1
    end)()
    local one = fiber.spawn(function()
      group:join()
      joined = joined + 1
    end)
    group:join()
    one:join()
    wait_until(function() return joined == 2 end)
  end))

  it("interrupts the others when one fails, waits for them, and raises that error", with_loop(function()
    local group, seen = fiber.group(), collect_errors()
    local object, cleaned = {}, false
    local sleeper = group:spawn(function()
      pcall(fiber.sleep, 100)
      fiber.shield(fiber.sleep, 0.002)
      cleaned = true
    end)
    group:spawn(function()
      fiber.yield()
      error(object)
    end)
    assert.equal(object, error_of(group.join, group))
    assert.is_true(cleaned)
    assert.equal("done", sleeper.status)
    assert.equal(object, error_of(group.join, group)) -- again
    assert.equal(0, #seen)
  end))

  it("does not need a join for the others to be interrupted", with_loop(function()
    local group = fiber.group()
    local sleeper = group:spawn(fiber.sleep, 100)
    group:spawn(error, "failure", 0)
    wait_until(function() return sleeper.status == "interrupted" end)
    assert.equal("failure", error_of(group.join, group))
  end))

  it("raises the first of several errors", with_loop(function()
    local group, seen = fiber.group(), collect_errors()
    group:spawn(function()
      pcall(fiber.sleep, 100)
      error("second", 0)
    end)
    group:spawn(error, "first", 0)
    assert.equal("first", error_of(group.join, group))
    assert.equal(0, #seen)
  end))

  it("raises nil and false as errors, too", with_loop(function()
    for _, value in ipairs { false } do
      local group = fiber.group()
      group:spawn(error, value)
      assert.equal(value, error_of(group.join, group))
    end
    local group = fiber.group()
    group:spawn(error)
    assert.same(table.pack(pcall(error)), table.pack(pcall(group.join, group))) -- Lua 5.5 makes a text of nil
  end))

  it("takes an interrupted member for no failure", with_loop(function()
    local group = fiber.group()
    local one = group:spawn(fiber.sleep, 100)
    local other = group:spawn(fiber.sleep, 0.002)
    fiber.yield()
    one:interrupt()
    group:join()
    assert.equal("interrupted", one.status)
    assert.equal("done", other.status)
  end))

  it("raises EDEADLK in a member, also in a generator of one", with_loop(function()
    local group = fiber.group()
    local one = group:spawn(function() return error_of(group.join, group) end)
    local two = group:spawn(fiber.coroutine.wrap(function() return error_of(group.join, group) end))
    assert.equal(ip.error.EDEADLK, one:join())
    assert.equal(ip.error.EDEADLK, two:join())
    group:join()
  end))

  it("leaves members to be joined by themselves", with_loop(function()
    local group = fiber.group()
    local one = group:spawn(function() return "result" end)
    assert.equal("result", one:join())
    local bad = group:spawn(function()
      fiber.yield()
      error("failure", 0)
    end)
    assert.equal("failure", error_of(bad.join, bad))
    assert.equal("failure", error_of(group.join, group))
  end))

  it("may be repeated after an interruption and a deadline", with_loop(function()
    local group = fiber.group()
    local member = group:spawn(fiber.sleep, math.huge)
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, group.join, group))
    local joiner = waiting(group.join, group)
    samples.stop(joiner)
    assert.equal("waiting", member.status)
    group:interrupt()
    group:join()
  end))

  it("raises EDEADLK on the main thread where nothing can end the members", function()
    assert_prints("false\tEDEADLK\tjoin\t1\n", [[
      local fiber = require "ip".fiber
      local group = fiber.group()
      group:spawn(function() fiber.condition():wait() end)
      local ok, err = pcall(group.join, group)
      print(ok, err.name, err.operation, group.size)
    ]])
  end)
end)

describe("a group at the end of its scope", function()
  it("interrupts what is left and waits for its end", with_loop(function()
    local log = {}
    do
      local group <close> = fiber.group()
      for i = 1, 3 do
        group:spawn(function()
          pcall(fiber.sleep, 100)
          fiber.shield(fiber.sleep, 0.001)
          log[#log + 1] = i
        end)
      end
      fiber.yield()
    end
    assert.equal(3, #log)
  end))

  it("waits on the main thread, too", on_main(function()
    local one
    do
      local group <close> = fiber.group()
      one = group:spawn(fiber.sleep, 100)
    end
    assert.equal("interrupted", one.status)
  end))

  it("waits after an error, which goes on", with_loop(function()
    local one
    local err = error_of(function()
      local group <close> = fiber.group()
      one = group:spawn(fiber.sleep, 100)
      error("failure", 0)
    end)
    assert.equal("failure", err)
    assert.equal("interrupted", one.status)
  end))

  it("gives the first error to on_error, once, if no join has raised it", with_loop(function()
    local seen = collect_errors()
    local bad
    do
      local group <close> = fiber.group()
      bad = group:spawn(error, "failure", 0)
      group:spawn(fiber.sleep, 100)
      fiber.yield()
      fiber.yield()
    end
    assert.equal(1, #seen)
    assert.equal("failure", seen[1][1])
    assertions.assert_contains(seen[1][2], "stack traceback")
    assert.equal(bad, seen[1][3])
    do
      local group <close> = fiber.group()
      group:spawn(error, "joined", 0)
      pcall(group.join, group)
    end
    collectgarbage()
    assert.equal(1, #seen)
  end))

  it("waits in spite of an interruption and a deadline, which are raised afterwards", with_loop(function()
    local ended = false
    local function body()
      local group <close> = fiber.group()
      group:spawn(function()
        pcall(fiber.sleep, 100)
        fiber.shield(fiber.sleep, 0.01)
        ended = true
      end)
      fiber.yield()
    end
    local interrupted = fiber.spawn(function()
      body()
      assert(ended)
      fiber.yield()
    end)
    fiber.yield()
    fiber.yield()
    fiber.yield()
    interrupted:interrupt()
    interrupted:join()
    assert.is_true(ended)
    assert.equal("interrupted", interrupted.status)
    ended = false
    local err = error_of(fiber.with_timeout, 0.005, function()
      body()
      assert(ended)
      fiber.yield()
    end)
    assert.equal(ip.error.ETIMEDOUT, err)
    assert.is_true(ended)
  end))

  it("only interrupts where it cannot wait", with_loop(function()
    local one, seen
    local co = coroutine.create(function()
      local group <close> = fiber.group()
      one = group:spawn(fiber.sleep, 100)
      group:spawn(function()
        pcall(fiber.sleep, 100)
        error("late", 0)
      end)
      fiber.yield()
      coroutine.yield()
    end)
    coroutine.resume(co)
    fiber.yield()
    fiber.yield()
    seen = collect_errors()
    coroutine.close(co)
    wait_until(function() return #seen == 1 end)
    assert.equal("interrupted", one.status)
    assert.equal("late", seen[1][1])
  end))

  it("in a member interrupts all and does not wait for itself", with_loop(function()
    local group = fiber.group()
    local other = group:spawn(fiber.sleep, 100)
    local one = group:spawn(function()
      local closing <close> = group -- luacheck: ignore closing
    end)
    group:join()
    assert.equal("done", one.status)
    assert.equal("interrupted", other.status)
  end))

  it("holds the fiber's own end back, so that nested groups end inside out", with_loop(function()
    local log = {}
    local outer = fiber.group()
    outer:spawn(function()
      local inner <close> = fiber.group()
      inner:spawn(function()
        pcall(fiber.sleep, 100)
        fiber.shield(fiber.sleep, 0.002)
        log[#log + 1] = "inner"
      end)
      local ok = pcall(fiber.sleep, 100)
      assert(not ok)
    end)
    wait_until(function() return #fiber.list() >= 3 end)
    fiber.yield()
    outer:interrupt()
    outer:join()
    log[#log + 1] = "outer"
    assert.same({ "inner", "outer" }, log)
  end))

  it("raises EDEADLK on the main thread where nothing can end the members", function()
    assert_prints("false\tEDEADLK\tclose\n", [[
      local fiber = require "ip".fiber
      local ok, err = pcall(function()
        local group <close> = fiber.group()
        group:spawn(fiber.shield, function() fiber.condition():wait() end)
        fiber.yield()
      end)
      print(ok, err.name, err.operation)
    ]])
  end)
end)

describe("a group that the program drops", function()
  it("leaves its members running", with_loop(function()
    local one
    do
      local group = fiber.group()
      one = group:spawn(function()
        fiber.sleep(0.003)
        return "result"
      end)
    end
    collectgarbage()
    collectgarbage()
    assert.equal("result", one:join())
  end))

  it("is collected when they have ended, and reports an error that nobody got", with_loop(function()
    local seen = collect_errors()
    do
      local group = fiber.group()
      group:spawn(error, "failure", 0)
    end
    fiber.yield()
    fiber.yield()
    wait_until(function()
      collectgarbage()
      return #seen == 1
    end)
    assert.equal("failure", seen[1][1])
  end))
end)
