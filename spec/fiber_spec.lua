-- What ip.fiber promises: spawn, run, join, interrupt, shield, detach, sleep, yield, on_error.
-- luacheck: ignore 211/outer 211/inner 211/guard

local ip = require "ip"
local support = require "spec.support"

local fiber = ip.fiber
local with_loop, on_main = support.with_loop, support.on_main
local error_of, wait_until = support.error_of, support.wait_until

local function text_of(fn, ...)
  return tostring(error_of(fn, ...))
end

local function assert_contains(text, part)
  assert.is_truthy(text:find(part, 1, true), ("%q does not contain %q"):format(text, part))
end

-- Collects what on_error is called with.
local function collect_errors()
  local seen = {}
  fiber.on_error(function(...)
    seen[#seen + 1] = table.pack(...)
  end)
  return seen
end

-- A fiber that waits until it is interrupted.
local function sleeper()
  return fiber.spawn(fiber.sleep, math.huge)
end

local function stop(...)
  for _, one in ipairs { ... } do
    one:interrupt()
    one:join()
  end
end

-- A value for a <close> variable: calls fn(err) when the variable goes.
local function on_close(fn)
  return setmetatable({}, { __close = function(_, err) fn(err) end })
end

after_each(function()
  fiber.on_error(nil)
end)

describe("fiber.spawn", function()
  it("starts the function at the next turn, not before it returns", with_loop(function()
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
      local message = text_of(fiber.spawn, wrong)
      assert_contains(message, "bad argument #1 to ")
      assert_contains(message, "function expected")
    end
    assert_contains(text_of(fiber.spawn), "function expected, got no value")
    assert_contains(text_of(fiber.spawn, nil), "function expected, got nil")
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
    assert.is_nil(error_of(fiber.run, error, nil))
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
      assert_contains(text_of(fiber.run, wrong), "bad argument #1 to 'run' (function expected, got " .. type(wrong))
    end
    assert_contains(text_of(fiber.run, false), "function expected, got boolean")
  end))

  it("raises inside a fiber, in both forms", with_loop(function()
    assert_contains(text_of(fiber.run), "main thread")
    assert_contains(text_of(fiber.run, print), "main thread")
  end))

  it("raises inside a coroutine of others, in both forms", on_main(function()
    coroutine.wrap(function()
      assert_contains(text_of(fiber.run), "main thread")
      assert_contains(text_of(fiber.run, print), "main thread")
    end)()
  end))

  it("raises EDEADLK instead of hanging when nothing can end a fiber any more", function()
    local output, code = support.run_program [[
      local fiber = require "ip".fiber
      local one = fiber.spawn(fiber.sleep, math.huge)
      local ok, err = pcall(fiber.run)
      print(ok, err, one.status)
      one:interrupt()
      fiber.run()
      print(one.status)
    ]]
    assert.equal("false\trun: resource deadlock avoided (EDEADLK)\twaiting\ninterrupted\n", output)
    assert.equal(0, code)
  end)
end)

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
    local err = error_of(one.join, one)
    assert.equal(ip.error.EINVAL, err)
    assert.equal("join", err.operation)
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
    local one = fiber.spawn(function()
      fiber.sleep(0.02)
      return "late"
    end)
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, one.join, one))
    assert.is_true(one.joinable)
    assert.equal("late", one:join())
  end))

  it("may be repeated after it was interrupted", with_loop(function()
    local one = fiber.spawn(function()
      fiber.sleep(0.01)
      return "late"
    end)
    local joiner = fiber.spawn(one.join, one)
    fiber.yield()
    stop(joiner)
    assert.is_true(one.joinable)
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
    local output, code = support.run_program [[
      local fiber = require "ip".fiber
      local one = fiber.spawn(fiber.sleep, math.huge)
      local ok, err = pcall(one.join, one)
      print(ok, err.name, err.operation, one.status, one.joinable)
      one:interrupt()
      print(select("#", one:join()), one.status)
    ]]
    assert.equal("false\tEDEADLK\tjoin\twaiting\ttrue\n0\tinterrupted\n", output)
    assert.equal(0, code)
  end)

  it("refuses what is no fiber", function()
    local one = fiber.spawn(function() end)
    for _, wrong in ipairs { 1, "x", {}, coroutine.create(print), ip.error.EINVAL } do
      assert_contains(text_of(one.join, wrong), "ip.fiber expected")
    end
    one:join()
  end)
end)

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

  it("reaches a fiber that gave way by plain coroutine.yield at its next suspending call", with_loop(function()
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

  it("may interrupt many fibers in one turn", with_loop(function()
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
    assert_contains(text_of(fiber.shield), "bad argument #1 to 'shield' (function expected, got no value)")
    assert_contains(text_of(fiber.shield, 1), "bad argument #1 to 'shield' (function expected, got number)")
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
    local err = error_of(detached.detach, detached)
    assert.equal(ip.error.EINVAL, err)
    assert.equal("detach", err.operation)
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
    for _, milliseconds in ipairs { 30, 5, 20, 10, 25, 15 } do
      fibers[#fibers + 1] = fiber.spawn(function()
        fiber.sleep(milliseconds / 1000)
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
      local message = text_of(fiber.sleep, wrong)
      assert_contains(message, "bad argument #1 to ")
      assert_contains(message, "number expected, got " .. type(wrong))
    end
    assert_contains(text_of(fiber.sleep), "number expected, got no value")
    assert_contains(text_of(fiber.sleep, nil), "number expected, got nil")
    assert_contains(text_of(fiber.sleep, 0 / 0), "NaN")
  end))

  it("without end raises EDEADLK on the main thread instead of hanging", function()
    local output, code = support.run_program [[
      local ok, err = pcall(require "ip".fiber.sleep, math.huge)
      print(ok, err)
    ]]
    assert.equal("false\tsleep: resource deadlock avoided (EDEADLK)\n", output)
    assert.equal(0, code)
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
  it("gives way as fiber.yield does", with_loop(function()
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
    assert_contains(text_of(function() return one.stauts end), "stauts")
    assert_contains(text_of(function() one.stauts = 1 end), "stauts")
    one:join()
  end))

  it("cannot be written", with_loop(function()
    local one = fiber.spawn(function() end)
    for _, name in ipairs { "status", "joinable", "interruption_caught", "join" } do
      assert_contains(text_of(function() one[name] = true end), name)
    end
    one:join()
  end))
end)

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
    -- the handler runs where Lua cannot suspend; the join of an ended fiber would not have to, but is refused alike
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
    local one = fiber.spawn(function()
      fiber.sleep(0.01)
      error("failure", 0)
    end)
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, one.join, one))
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
    assert.is_nil(seen[#seen][1])
  end))

  it("gets the errors of coroutines made by others, with fiber nil", on_main(function()
    local seen = collect_errors()
    coroutine.wrap(function()
      fiber.sleep(0.001)
      error("of a stranger", 0)
    end)()
    fiber.run()
    assert.equal(1, #seen)
    assert.equal("of a stranger", seen[1][1])
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
      assert_contains(text_of(fiber.on_error, wrong), "bad argument #1 to 'on_error' (function expected, got ")
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
    local held
    local one = fiber.spawn(function()
      local sock <close> = support.bound()
      held = sock
      error("failure")
    end)
    fiber.yield()
    assert.equal("failed", one.status)
    assert.is_false(held.is_open)
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
