-- What fiber:interrupt and fiber.shield promise.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local samples = require "spec.support.sample_fibers"

local fiber = ip.fiber
local with_loop, on_main, error_of = support.with_loop, support.on_main, support.error_of
local assert_message = assertions.assert_message
local collect_errors, sleeper, stop = samples.collect_errors, samples.sleeper, samples.stop

after_each(samples.restore_on_error)

describe("fiber:interrupt", function()
  it("makes the pending call raise INTERRUPTED", with_loop(function()
    local one = fiber.spawn(function() return error_of(fiber.sleep, 100) end)
    fiber.yield()
    assert.equal("waiting", one.status)
    one:interrupt()
    local err = one:join()
    assert.equal(ip.error.INTERRUPTED, err)
    assert.equal("sleep", err.operation)
    assert.equal("fiber", err.category)
  end))

  it("ends a receive without taking the datagram that comes later", with_loop(function()
    local sock, port = support.bound()
    local one = fiber.spawn(sock.receive_string, sock)
    fiber.yield()
    stop(one)
    sock:send_to("next", "127.0.0.1", port)
    assert.equal("next", (sock:receive_string()))
    sock:close()
  end))

  it("takes effect at the next suspending call when the fiber waits in none", with_loop(function()
    local reached, err
    local one = fiber.spawn(function()
      fiber.current():interrupt()
      reached = true
      err = error_of(fiber.yield)
    end)
    one:join()
    assert.is_true(reached)
    assert.equal(ip.error.INTERRUPTED, err)
    assert.equal("yield", err.operation)
  end))

  it("makes every later suspending call raise too, also one that could complete at once", with_loop(function()
    local sock, port = support.bound()
    local errors = {}
    local one = fiber.spawn(function()
      errors[1] = error_of(fiber.sleep, 100)
      errors[2] = error_of(fiber.yield)
      errors[3] = error_of(sock.send_to, sock, "x", "127.0.0.1", port)
      errors[4] = error_of(sock.receive_string, sock)
      errors[5] = error_of(fiber.sleep, 0)
      errors[6] = error_of(fiber.with_timeout, 1, fiber.sleep, 0)
    end)
    fiber.yield()
    sock:send_to("there", "127.0.0.1", port)
    one:interrupt()
    one:join()
    assert.equal(6, #errors)
    for _, err in ipairs(errors) do assert.equal(ip.error.INTERRUPTED, err) end
    assert.equal("there", (sock:receive_string()))
    sock:close()
  end))

  it("cannot be swallowed by a pcall: the next suspending call raises again", with_loop(function()
    local rounds = 0
    local one = fiber.spawn(function()
      while true do
        pcall(fiber.sleep, 100)
        rounds = rounds + 1
        if rounds == 3 then fiber.yield() end
      end
    end)
    fiber.yield()
    one:interrupt()
    one:join()
    assert.equal(3, rounds)
    assert.is_true(one.interruption_caught)
  end))

  it("before the start takes effect at the first suspending call", with_loop(function()
    local started = false
    local one = fiber.spawn(function()
      started = true
      fiber.yield()
    end)
    one:interrupt()
    one:join()
    assert.is_true(started)
    assert.equal("interrupted", one.status)
  end))

  it("while the fiber is ready leaves it its result and takes effect at the next call", with_loop(function()
    local first, second
    local one = fiber.spawn(function()
      fiber.yield()
      first = true
      second = error_of(fiber.yield)
    end)
    fiber.yield() -- it is suspended in a yield that is over already
    assert.equal("ready", one.status)
    one:interrupt()
    one:join()
    assert.is_true(first)
    assert.equal(ip.error.INTERRUPTED, second)
  end))

  it("of a fiber that never suspends changes nothing", with_loop(function()
    local one = fiber.spawn(function() return "finished" end)
    one:interrupt()
    assert.equal("finished", one:join())
    assert.equal("done", one.status)
    assert.is_false(one.interruption_caught)
  end))

  it("of a fiber that has ended changes nothing", with_loop(function()
    local done = fiber.spawn(function() return "result" end)
    fiber.yield()
    done:interrupt()
    assert.equal("done", done.status)
    assert.equal("result", done:join())
    collect_errors()
    local failed = fiber.spawn(error, "failure", 0)
    fiber.yield()
    failed:interrupt()
    assert.equal("failed", failed.status)
    assert.equal("failure", error_of(failed.join, failed))
  end))

  it("twice is as once", with_loop(function()
    local one = sleeper()
    fiber.yield()
    one:interrupt()
    one:interrupt()
    one:join()
    assert.equal("interrupted", one.status)
  end))

  it("never suspends the caller", with_loop(function()
    local one = sleeper()
    fiber.yield()
    one:interrupt()
    assert.equal("ready", one.status) -- it has not run yet
    one:join()
  end))

  it("leaves interruption_caught false when the fiber ends in another way", with_loop(function()
    collect_errors()
    local returned = fiber.spawn(function() return (select(2, pcall(fiber.sleep, 100))) end)
    local failed = fiber.spawn(function()
      pcall(fiber.sleep, 100)
      error("own", 0)
    end)
    fiber.yield()
    returned:interrupt()
    failed:interrupt()
    assert.equal(ip.error.INTERRUPTED, returned:join())
    assert.is_false(returned.interruption_caught)
    assert.equal("done", returned.status)
    assert.equal("own", error_of(failed.join, failed))
    assert.is_false(failed.interruption_caught)
    assert.equal("failed", failed.status)
  end))

  it("reaches a fiber that yielded by plain coroutine.yield at its next suspending call", with_loop(function()
    local rounds = 0
    local one = fiber.spawn(function()
      for _ = 1, 3 do
        coroutine.yield()
        rounds = rounds + 1
      end
      fiber.yield()
      rounds = -1
    end)
    fiber.yield()
    one:interrupt()
    one:join()
    assert.equal(3, rounds)
    assert.equal("interrupted", one.status)
  end))

  it("may interrupt many fibers in one loop iteration", with_loop(function()
    local fibers = {}
    for i = 1, 1000 do fibers[i] = sleeper() end
    fiber.yield()
    for _, one in ipairs(fibers) do one:interrupt() end
    for _, one in ipairs(fibers) do
      one:join()
      assert.is_true(one.interruption_caught)
    end
  end))
end)

describe("fiber.shield", function()
  it("returns the results of the function, nils included", with_loop(function()
    local function framed(a, b) return nil, a, b, nil end
    assert.same({ n = 4, nil, 1, 2, nil }, table.pack(fiber.shield(framed, 1, 2)))
    assert.equal(0, select("#", fiber.shield(function() end)))
  end))

  it("passes errors on unchanged", with_loop(function()
    local object = {}
    assert.equal(object, error_of(fiber.shield, error, object))
  end))

  it("holds a pending interruption back while the function runs", with_loop(function()
    local finished, after = false, nil
    local one = fiber.spawn(function()
      fiber.shield(function()
        fiber.sleep(0.01)
        fiber.yield()
        finished = true
      end)
      after = error_of(fiber.yield)
    end)
    fiber.yield()
    one:interrupt()
    assert.equal("waiting", one.status)
    one:join()
    assert.is_true(finished)
    assert.equal(ip.error.INTERRUPTED, after)
  end))

  it("lets a fiber that was interrupted already wait in its clean-up", with_loop(function()
    local cleaned = false
    local one = fiber.spawn(function()
      local ok, err = pcall(fiber.sleep, 100)
      fiber.shield(function()
        fiber.sleep(0.001)
        cleaned = true
      end)
      if not ok then error(err, 0) end
    end)
    fiber.yield()
    one:interrupt()
    one:join()
    assert.is_true(cleaned)
    assert.is_true(one.interruption_caught)
  end))

  it("nests: only the end of the outermost lets the interruption through", with_loop(function()
    local inner, outer
    local one = fiber.spawn(function()
      fiber.shield(function()
        fiber.shield(fiber.sleep, 0.002)
        inner = pcall(fiber.sleep, 0.002)
        pcall(fiber.shield, error, "left by an error")
        outer = pcall(fiber.sleep, 0.002)
      end)
      fiber.yield()
    end)
    fiber.yield()
    one:interrupt()
    one:join()
    assert.is_true(inner)
    assert.is_true(outer)
    assert.is_true(one.interruption_caught)
  end))

  it("that an error has left shields no more", with_loop(function()
    local one = fiber.spawn(function()
      pcall(fiber.shield, error, "failure")
      fiber.sleep(100)
    end)
    fiber.yield()
    one:interrupt()
    one:join()
    assert.is_true(one.interruption_caught)
  end))

  it("shields the calling fiber only", with_loop(function()
    local other = sleeper()
    fiber.yield()
    fiber.shield(function()
      other:interrupt()
      other:join()
    end)
    assert.is_true(other.interruption_caught)
  end))

  it("works where nothing can be interrupted: on the main thread and in coroutines of others", on_main(function()
    assert.equal(3, fiber.shield(function()
      fiber.sleep(0.001)
      return 3
    end))
    local got
    coroutine.wrap(function()
      got = fiber.shield(function()
        fiber.sleep(0.001)
        return 4
      end)
    end)()
    fiber.run()
    assert.equal(4, got)
  end))

  it("refuses what is no function", function()
    assert_message("bad argument #1 to 'shield' (function expected, got no value)", fiber.shield)
    assert_message("bad argument #1 to 'shield' (function expected, got number 1)", fiber.shield, 1)
  end)
end)
