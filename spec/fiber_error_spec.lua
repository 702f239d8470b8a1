-- What becomes of an error in a fiber: fiber.on_error, join, and the variables that are closed.
-- luacheck: ignore 211/outer 211/inner 211/guard
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local samples = require "spec.support.sample_fibers"

local fiber = ip.fiber
local with_loop, on_main = support.with_loop, support.on_main
local error_of, wait_until = support.error_of, support.wait_until
local assert_contains, assert_message = assertions.assert_contains, assertions.assert_message
local collect_errors, on_close = samples.collect_errors, samples.on_close
local held, sleeper, stop = samples.held, samples.sleeper, samples.stop

after_each(samples.restore_on_error)

describe("on_error", function()
  it("is called at once, with error, traceback and fiber, for an error nobody joins for", with_loop(function()
    local seen = collect_errors()
    local function failing_function() error("failure", 0) end
    local one = fiber.spawn(function() failing_function() end)
    assert.equal(0, #seen)
    fiber.yield()
    assert.equal(1, #seen)
    assert.equal(3, seen[1].n)
    assert.equal("failure", seen[1][1])
    assert_contains(seen[1][2], "stack traceback:")
    assert_contains(seen[1][2], "failing_function")
    assert.is_true(rawequal(one, seen[1][3]))
  end))

  it("sees the fiber failed already, and may join it there for its error", with_loop(function()
    local status, again
    fiber.on_error(function(_, _, failed)
      status = failed.status
      again = error_of(failed.join, failed)
    end)
    local one = fiber.spawn(error, "failure", 0)
    fiber.yield()
    assert.equal("failed", status)
    -- the handler runs where Lua cannot suspend; the join of an ended fiber would not have to, but is refused
    -- alike
    assert_contains(tostring(again), "cannot wait in join")
    assert.equal("failure", error_of(one.join, one))
  end))

  it("is not called when somebody joins, who gets the error", with_loop(function()
    local seen = collect_errors()
    local one = fiber.spawn(function()
      fiber.yield()
      error("failure", 0)
    end)
    assert.equal("failure", error_of(one.join, one))
    assert.equal(0, #seen)
  end))

  it("is called when the join has timed out before, and a later join re-raises all the same", with_loop(function()
    local seen = collect_errors()
    local one, release = held(error, "failure", 0)
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, one.join, one))
    release()
    wait_until(function() return one.status == "failed" end)
    assert.equal(1, #seen)
    assert.equal("failure", error_of(one.join, one))
    assert.equal(1, #seen)
  end))

  it("is not called for INTERRUPTED", with_loop(function()
    local seen = collect_errors()
    local one, detached = sleeper(), sleeper()
    detached:detach()
    fiber.yield()
    one:interrupt()
    detached:interrupt()
    wait_until(function() return one.status == "interrupted" and detached.status == "interrupted" end)
    assert.equal(0, #seen)
  end))

  it("is called for another error of an interrupted fiber", with_loop(function()
    local seen = collect_errors()
    local one = fiber.spawn(function()
      pcall(fiber.sleep, 100)
      error("while cleaning up", 0)
    end)
    fiber.yield()
    one:interrupt()
    wait_until(function() return one.status == "failed" end)
    assert.equal("while cleaning up", seen[1][1])
  end))

  it("is called for detached fibers", with_loop(function()
    local seen = collect_errors()
    fiber.spawn(error, "failure", 0):detach()
    fiber.yield()
    assert.equal("failure", seen[1][1])
  end))

  it("gets error values of every type as they are", with_loop(function()
    local seen = collect_errors()
    local object = setmetatable({}, { __tostring = function() return "object" end })
    local values = { "text", 12, 1.5, true, false, object, {}, print, ip.error.EACCES }
    for _, value in ipairs(values) do fiber.spawn(error, value, 0) end
    fiber.spawn(error)
    fiber.yield()
    assert.equal(#values + 1, #seen)
    for i, value in ipairs(values) do
      assert.is_true(rawequal(value, seen[i][1]))
      assert.is_string(seen[i][2])
    end
    local _, nothing = pcall(error) -- nil, which Lua 5.5 makes a text
    assert.equal(nothing, seen[#seen][1])
  end))

  it("gets the errors of coroutines made by others, with fiber nil", on_main(function()
    local seen = collect_errors()
    coroutine.wrap(function()
      fiber.sleep(0.001)
      error("of a coroutine", 0)
    end)()
    fiber.run()
    assert.equal(1, #seen)
    assert.equal("of a coroutine", seen[1][1])
    assert.is_string(seen[1][2])
    assert.equal(3, seen[1].n)
    assert.is_nil(seen[1][3])
  end))

  it("may spawn fibers and change the handler", with_loop(function()
    local second = {}
    local spawned
    fiber.on_error(function()
      spawned = fiber.spawn(function() return "spawned" end)
      fiber.on_error(function(err) second[#second + 1] = err end)
    end)
    fiber.spawn(error, "one", 0)
    fiber.spawn(error, "two", 0)
    fiber.yield()
    assert.same({ "two" }, second)
    assert.equal("spawned", spawned:join())
  end))

  it("refuses what is neither function nor nil", function()
    for _, wrong in ipairs { 1, "x", {}, true } do
      assert_message("bad argument #1 to 'on_error' (function expected, got ", fiber.on_error, wrong)
    end
  end)

  it("by default writes error and traceback to stderr, and the program goes on", function()
    local output, code = support.run_program [[
      local fiber = require "ip".fiber
      local function failing_function() error("the failure") end
      fiber.spawn(function() failing_function() end)
      fiber.run()
      print("went on")
    ]]
    assert_contains(output, "the failure")
    assert_contains(output, "stack traceback:")
    assert_contains(output, "failing_function")
    assert_contains(output, "went on\n")
    assert.equal(0, code)
  end)

  it("nil restores the default", function()
    local output = support.run_program [[
      local fiber = require "ip".fiber
      fiber.on_error(function() print("custom") end)
      fiber.on_error(nil)
      fiber.spawn(error, "to stderr")
      fiber.run()
    ]]
    assert_contains(output, "to stderr")
    assert.is_nil(output:find("custom", 1, true))
  end)

  it("an error in the handler is written to stderr, with the error it was called for", function()
    local output, code = support.run_program [[
      local fiber = require "ip".fiber
      fiber.on_error(function() error("handler failure") end)
      fiber.spawn(error, "first failure")
      fiber.spawn(error, "second failure")
      fiber.run()
      print("went on")
    ]]
    assert_contains(output, "handler failure")
    assert_contains(output, "first failure")
    assert_contains(output, "second failure")
    assert_contains(output, "went on\n")
    assert.equal(0, code)
  end)

  it("writes something also where an error object cannot be turned into text", function()
    local output, code = support.run_program [[
      local fiber = require "ip".fiber
      local bad = setmetatable({}, { __tostring = function() error("no text") end })
      fiber.spawn(error, bad)
      fiber.run()
      io.stderr:write("--\n")
      fiber.on_error(function() error(bad) end)
      fiber.spawn(error, "the original")
      fiber.run()
      print("went on")
    ]]
    assert.is_truthy(output:match("^.+\n%-%-\n.*the original.*went on\n$"), output)
    assert.equal(0, code)
  end)
end)

describe("an error in one fiber", function()
  it("never stops the others", with_loop(function()
    local seen = collect_errors()
    local finished = 0
    local good = {}
    for i = 1, 100 do
      good[i] = fiber.spawn(function()
        fiber.sleep(0.002)
        finished = finished + 1
      end)
      fiber.spawn(function()
        if i % 2 == 0 then fiber.sleep(0.001) end
        error(i, 0)
      end)
    end
    for _, one in ipairs(good) do one:join() end
    assert.equal(100, finished)
    assert.equal(100, #seen)
  end))

  it("runs the fiber's __close variables, with the error, after the handler has seen the stack", with_loop(function()
    local trace = {}
    fiber.on_error(function(err) trace[#trace + 1] = "handler " .. err end)
    local one = fiber.spawn(function()
      local outer <close> = on_close(function(err) trace[#trace + 1] = "outer " .. err end)
      local inner <close> = on_close(function(err) trace[#trace + 1] = "inner " .. err end)
      fiber.yield()
      error("e", 0)
    end)
    wait_until(function() return one.status == "failed" end)
    assert.same({ "handler e", "inner e", "outer e" }, trace)
  end))

  it("closes a socket in a <close> variable", with_loop(function()
    collect_errors()
    local socket
    local one = fiber.spawn(function()
      local sock <close> = support.bound()
      socket = sock
      error("failure")
    end)
    fiber.yield()
    assert.equal("failed", one.status)
    assert.is_false(socket.is_open)
  end))

  it("runs the __close variables of an interrupted fiber too", with_loop(function()
    local closed
    local one = fiber.spawn(function()
      local guard <close> = on_close(function(err) closed = err end)
      fiber.sleep(100)
    end)
    fiber.yield()
    stop(one)
    assert.equal(ip.error.INTERRUPTED, closed)
  end))

  it("in a __close handler replaces the fiber's error for join, as in Lua", with_loop(function()
    local seen = collect_errors()
    local one = fiber.spawn(function()
      local guard <close> = on_close(function() error("from close", 0) end)
      error("from body", 0)
    end)
    fiber.yield()
    assert.equal("from body", seen[1][1])
    assert.equal("from close", error_of(one.join, one))
  end))

  it("leaves the traceback the lines of the failed fiber's own stack after suspensions", with_loop(function()
    local seen = collect_errors()
    local function deep_function()
      fiber.sleep(0.001)
      error("deep", 0)
    end
    local one = fiber.spawn(function()
      deep_function()
      return 1
    end)
    wait_until(function() return one.status == "failed" end)
    assert_contains(seen[1][2], "deep_function")
  end))
end)
