-- What ip.fiber.with_timeout promises.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local places = require "spec.support.places"
local platform = require "spec.support.platform"
local support = require "spec.support"

local fiber = ip.fiber
local with_timeout = fiber.with_timeout
local with_loop, on_main = support.with_loop, support.on_main
local in_three_places = places.in_three_places
local error_of, wait_until = support.error_of, support.wait_until
local assert_contains, assert_prints = assertions.assert_contains, assertions.assert_prints

local function text_of(fn, ...)
  return tostring(error_of(fn, ...))
end

-- The error of a with_timeout whose time is over, and of nothing else.
local function assert_deadline(err)
  assert.equal(ip.error.ETIMEDOUT, err)
  assert.equal("with_timeout", err.operation)
end

-- Computes, without suspending, until `seconds` have gone.
local function compute(seconds)
  local finish = fiber.now() + seconds
  while fiber.now() < finish do end -- luacheck: ignore 542
end

describe("with_timeout", function()
  in_three_places("raises ETIMEDOUT when the time is over, and never early", function()
    local start = fiber.now()
    assert_deadline(error_of(with_timeout, 0.01, fiber.sleep, 100))
    assert.is_true(fiber.now() - start >= 0.01)
  end)

  in_three_places("returns the results, nils included, when it is not", function()
    local results = table.pack(with_timeout(100, function(...)
      fiber.sleep(0.001)
      return nil, select("#", ...), nil
    end, nil, nil))
    assert.same({ n = 3, nil, 2, nil }, results)
    assert.equal(0, select("#", with_timeout(100, function() end)))
  end)

  in_three_places("cancels a receive, which takes nothing", function()
    local sock, port = support.bound()
    assert_deadline(error_of(with_timeout, 0.005, sock.receive_string, sock))
    sock:send_to("kept", "127.0.0.1", port)
    assert.equal("kept", (sock:receive_string()))
    sock:close()
  end)

  in_three_places("makes every further suspending call inside raise, also one that could complete at once", function()
    local sock, port = support.bound()
    local errors = {}
    assert_deadline(error_of(with_timeout, 0.002, function()
      errors[1] = error_of(fiber.sleep, 100)
      errors[2] = error_of(fiber.yield)
      errors[3] = error_of(sock.send_to, sock, "x", "127.0.0.1", port)
      assert.equal(1, sock:try_send_to("y", "127.0.0.1", port)) -- never suspends: not bounded
      errors[4] = error_of(sock.receive_string, sock)
      errors[5] = error_of(fiber.sleep, 0)
    end))
    assert.equal(5, #errors)
    for _, err in ipairs(errors) do assert_deadline(err) end
    assert.equal("y", (sock:receive_string()))
    sock:close()
  end)

  in_three_places("cannot be swallowed by a pcall: it raises although the function returned", function()
    local caught
    local err = error_of(with_timeout, 0.002, function()
      caught = error_of(fiber.sleep, 100)
      return "results"
    end)
    assert_deadline(caught)
    assert_deadline(err)
  end)

  in_three_places("is without effect once it is left", function()
    assert_deadline(error_of(with_timeout, 0.002, fiber.sleep, 100))
    fiber.sleep(0.005)
    with_timeout(0.002, function() end)
    fiber.sleep(0.01)
    fiber.yield()
  end)

  in_three_places("returns the results when no call met the deadline, although the time is over", function()
    local results = { with_timeout(0.001, function()
      compute(0.005)
      return "computed", 2
    end) }
    assert.same({ "computed", 2 }, results)
  end)

  in_three_places("raises at the first suspending call after a long computation", function()
    local sock = support.bound()
    local met
    local err = error_of(with_timeout, 0.001, function()
      compute(0.005)
      fiber.sleep(100)
      met = false
    end)
    assert_deadline(err)
    assert.is_nil(met)
    sock:close()
  end)

  in_three_places("passes errors of the function on unchanged", function()
    local object = {}
    for _, value in ipairs { "text", 12, object, ip.error.EACCES } do
      assert.equal(value, error_of(with_timeout, 10, error, value, 0))
    end
    local _, nothing = pcall(error) -- nil, which Lua 5.5 makes a text
    assert.equal(nothing, error_of(with_timeout, 10, error, nil))
    assert.equal("own", error_of(with_timeout, 0.001, function()
      pcall(fiber.sleep, 100)
      error("own", 0) -- after the deadline was met: the function's own error is the news
    end))
  end)

  it("bounds the calls of its own fiber only", with_loop(function()
    local other
    assert_deadline(error_of(with_timeout, 0.002, function()
      other = fiber.spawn(function()
        fiber.sleep(0.01)
        return "unbounded"
      end)
      fiber.sleep(100)
    end))
    assert.equal("unbounded", other:join())
  end))

  it("bounds a join, which may be repeated", with_loop(function()
    local one = fiber.spawn(function()
      fiber.sleep(0.02)
      return 1
    end)
    assert_deadline(error_of(with_timeout, 0.002, one.join, one))
    assert.equal(1, one:join())
  end))

  it("bounds fiber.run with a function on the main thread, and leaves that fiber alone", on_main(function()
    local ended = false
    assert_deadline(error_of(with_timeout, 0.002, fiber.run, function()
      fiber.sleep(0.02)
      ended = true
    end))
    wait_until(function() return ended end)
  end))

  it("lets the second of two waiters have the datagram that the first no longer waits for", with_loop(function()
    local sock, port = support.bound()
    local first = fiber.spawn(function() return error_of(with_timeout, 0.002, sock.receive_string, sock) end)
    local second = fiber.spawn(function() return (sock:receive_string()) end)
    assert_deadline(first:join())
    sock:send_to("for the second", "127.0.0.1", port)
    assert.equal("for the second", second:join())
    sock:close()
  end))

  it("takes the closest of many deadlines first, whatever the order they were made in", with_loop(function()
    local order, fibers = {}, {}
    for _, milliseconds in ipairs { 20, 5, 15, 10 } do
      fibers[#fibers + 1] = fiber.spawn(function()
        pcall(with_timeout, milliseconds / 1000, fiber.sleep, 100)
        order[#order + 1] = milliseconds
      end)
    end
    for _, one in ipairs(fibers) do one:join() end
    assert.same({ 5, 10, 15, 20 }, order)
  end))

  it("leaves a call that is over its result, and bounds what follows", with_loop(function()
    local busy = fiber.spawn(compute, 0.01)
    local first
    assert_deadline(error_of(with_timeout, 0.005, function()
      first = pcall(fiber.yield) -- over at once; the time goes before its coroutine runs again
      while true do fiber.yield() end
    end))
    assert.is_true(first)
    busy:join()
  end))

  it("keeps the error that the operation itself had", with_loop(function()
    local sock = support.bound()
    local closer = fiber.spawn(function() sock:close() end)
    local err = error_of(with_timeout, 10, sock.receive_string, sock)
    assert.equal(ip.error.ECANCELED, err)
    assert.equal("receive_string", err.operation)
    closer:join()
  end))
end)

describe("nested with_timeouts", function()
  in_three_places("raise the inner deadline when it is the first, inside the inner one", function()
    local inner
    local result = with_timeout(100, function()
      inner = error_of(with_timeout, 0.002, fiber.sleep, 100)
      fiber.sleep(0.001)
      return "outer goes on"
    end)
    assert_deadline(inner)
    assert.equal("outer goes on", result)
  end)

  in_three_places("raise the outer deadline when it is the first, through the inner one", function()
    local inner_result
    local after
    local err = error_of(with_timeout, 0.002, function()
      inner_result = error_of(with_timeout, 100, fiber.sleep, 100)
      after = error_of(fiber.yield)
    end)
    assert_deadline(err)
    assert_deadline(inner_result)
    assert_deadline(after)
  end)

  in_three_places("raise the innermost first when both are over", function()
    local trace = {}
    local err = error_of(with_timeout, 0.002, function()
      local inner = error_of(with_timeout, 0.001, function()
        compute(0.01)
        local ok = pcall(fiber.sleep, 0.001) -- both deadlines are past; the inner one is due
        trace[#trace + 1] = ok
        return "swallowed"
      end)
      assert_deadline(inner)
      trace[#trace + 1] = "inner left"
      trace[#trace + 1] = pcall(fiber.yield)
    end)
    assert_deadline(err)
    assert.same({ false, "inner left", false }, trace)
  end)

  in_three_places("let an inner one that met nothing return, though the outer one has been met", function()
    local inner
    local err = error_of(with_timeout, 0.001, function()
      pcall(fiber.sleep, 100)
      inner = with_timeout(100, function() return "inner result" end)
    end)
    assert_deadline(err)
    assert.equal("inner result", inner)
  end)

  in_three_places("may be a thousand deep", function()
    local function nest(depth, seconds)
      if depth > 0 then return (with_timeout(100, nest, depth - 1, seconds)) end
      fiber.sleep(seconds)
      return "bottom"
    end
    assert.equal("bottom", nest(1000, 0.001))
    assert_deadline(error_of(with_timeout, 0.002, nest, 1000, 100))
  end)
end)

describe("a with_timeout of zero or less", function()
  for _, seconds in ipairs { 0, 0.0, -0.0, -1, -math.huge, math.mininteger } do
    local name = tostring(seconds)

    it("lets operations that can complete at once do so (" .. name .. ")", with_loop(function()
      local sock, port = support.bound()
      sock:send_to("there", "127.0.0.1", port)
      local ended = fiber.spawn(function() return "ended" end)
      fiber.yield()
      local text, result = with_timeout(seconds, function()
        local got = sock:receive_string()
        sock:send_to("sent", "127.0.0.1", port)
        return got, ended:join()
      end)
      assert.equal("there", text)
      assert.equal("ended", result)
      assert.equal("sent", (sock:receive_string()))
      sock:close()
    end))

    it("makes the first that would wait raise, and every later one too (" .. name .. ")", with_loop(function()
      local sock, port = support.bound()
      local errors = {}
      assert_deadline(error_of(with_timeout, seconds, function()
        errors[1] = error_of(sock.receive_string, sock)
        errors[2] = error_of(sock.send_to, sock, "x", "127.0.0.1", port)
        errors[3] = error_of(fiber.sleep, 0.001)
        errors[4] = error_of(fiber.yield)
      end))
      assert.equal(4, #errors)
      for _, err in ipairs(errors) do assert_deadline(err) end
      assert.is_nil((sock:try_receive(ip.byte_span.new(1)))) -- the second call has sent nothing
      sock:close()
    end))
  end

  it("works on the main thread and in coroutines of others", on_main(function()
    local sock, port = support.bound()
    local function check()
      sock:send_to("x", "127.0.0.1", port)
      assert.equal("x", (with_timeout(0, sock.receive_string, sock)))
      assert_deadline(error_of(with_timeout, 0, sock.receive_string, sock))
      assert_deadline(error_of(with_timeout, 0, fiber.sleep, 1))
    end
    check()
    local done
    coroutine.wrap(function()
      check()
      done = true
    end)()
    assert.is_true(done)
    sock:close()
  end))

  it("finds the datagram on a socket that has often had none", with_loop(function()
    local sock, port = support.bound()
    for _ = 1, 100 do
      assert_deadline(error_of(with_timeout, 0, sock.receive_string, sock))
    end
    for i = 1, 100 do
      sock:send_to(tostring(i), "127.0.0.1", port)
      assert.equal(tostring(i), (with_timeout(0, sock.receive_string, sock)))
    end
    sock:close()
  end))

  it("does not take a datagram away from who waits already", with_loop(function()
    local sock, port = support.bound()
    local first = fiber.spawn(function() return (sock:receive_string()) end)
    fiber.yield()
    sock:send_to("for the first", "127.0.0.1", port)
    assert_deadline(error_of(with_timeout, 0, sock.receive_string, sock))
    assert.equal("for the first", first:join())
    sock:close()
  end))

  it("drains a socket of everything that is there, however much that is", with_loop(function()
    local sock, port = support.bound()
    local count = 0
    for _ = 1, 3 do
      for _ = 1, 100 do sock:send_to("x", "127.0.0.1", port) end
      pcall(with_timeout, 0, function()
        while true do
          sock:receive_string()
          count = count + 1
        end
      end)
    end
    assert.equal(300, count)
    sock:close()
  end))
end)

describe("with_timeout and a socket's own receive_timeout", function()
  it("are told apart by the error's operation", with_loop(function()
    local sock = support.bound()
    sock.receive_timeout = 0.002
    local err = error_of(with_timeout, 100, sock.receive_string, sock)
    assert.equal(ip.error.ETIMEDOUT, err)
    assert.equal("receive_string", err.operation)
    sock.receive_timeout = 100
    assert_deadline(error_of(with_timeout, 0.002, sock.receive_string, sock))
    sock:close()
  end))

  it("leave the scope as it was when the socket's own time is over", with_loop(function()
    local sock = support.bound()
    sock.receive_timeout = 0.001
    assert.equal("tried", (with_timeout(100, function()
      for _ = 1, 3 do assert.equal("receive_string", error_of(sock.receive_string, sock).operation) end
      fiber.yield()
      return "tried"
    end)))
    sock:close()
  end))
end)

describe("with_timeout inside shield", function()
  it("works: only interruption is held back", with_loop(function()
    local err
    local one = fiber.spawn(function()
      fiber.shield(function() err = error_of(with_timeout, 0.002, fiber.sleep, 100) end)
      fiber.yield()
    end)
    fiber.yield()
    one:interrupt()
    one:join()
    assert_deadline(err)
    assert.is_true(one.interruption_caught)
  end))

  it("outside of it bounds the shielded calls too", with_loop(function()
    assert_deadline(error_of(with_timeout, 0.002, fiber.shield, fiber.sleep, 100))
  end))
end)

describe("with_timeout and interruption", function()
  it("lets INTERRUPTED pass", with_loop(function()
    local err
    local one = fiber.spawn(function() err = error_of(with_timeout, 100, fiber.sleep, 100) end)
    fiber.yield()
    one:interrupt()
    one:join()
    assert.equal(ip.error.INTERRUPTED, err)
  end))

  it("raises ETIMEDOUT once the deadline was met, although the function caught it and INTERRUPTED", with_loop(function()
    local err
    local one = fiber.spawn(function()
      err = error_of(with_timeout, 0.001, function()
        pcall(fiber.sleep, 100)
        fiber.current():interrupt()
        pcall(fiber.sleep, 100)
      end)
    end)
    one:join()
    assert_deadline(err)
  end))
end)

describe("with_timeout's arguments", function()
  it("of the wrong type are refused with Lua's own messages, at the caller's line", function()
    for _, wrong in ipairs { "1", true, {}, print } do
      assert_contains(text_of(with_timeout, wrong, print),
        ("bad argument #1 to 'with_timeout' (number expected, got %s"):format(type(wrong)))
    end
    assert_contains(text_of(with_timeout), "bad argument #1 to 'with_timeout' (number expected, got no value)")
    assert_contains(text_of(with_timeout, 1), "bad argument #2 to 'with_timeout' (function expected, got no value)")
    assert_contains(text_of(with_timeout, 1, "f"),
      "bad argument #2 to 'with_timeout' (function expected, got string 'f')")
    local message = error_of(function()
      with_timeout("1", print)
    end)
    assert.is_truthy(message:match("^[^:]*timeout_spec%.lua:%d+: bad argument #1 to 'with_timeout'"), message)
  end)

  it("NaN is no number of seconds", function()
    assert_contains(text_of(with_timeout, 0 / 0, print), "bad argument #1 to 'with_timeout' (")
    assert_contains(text_of(with_timeout, 0 / 0, print), "NaN")
  end)

  it("may be huge or infinite, for no deadline at all", with_loop(function()
    for _, seconds in ipairs { 1e10, 1e300, math.maxinteger, math.huge } do
      assert.equal("result", (with_timeout(seconds, function()
        fiber.sleep(0.001)
        return "result"
      end)))
    end
  end))
end)

describe("a coroutine that is dropped or closed inside with_timeout", function()
  it("leaves its deadline to no other coroutine", on_main(function()
    collectgarbage("incremental", 1000, 25, 3)
    local wrong = 0
    for _ = 1, 20 do
      for _ = 1, 300 do
        coroutine.wrap(function()
          with_timeout(0, function()
            pcall(fiber.sleep, 1)
            coroutine.yield()
          end)
        end)()
      end
      for i = 1, 2000 do
        collectgarbage("step", 0)
        local new = coroutine.create(function() fiber.yield() end)
        if not coroutine.resume(new) then wrong = wrong + 1 end
        if i % 100 == 0 then fiber.yield() end
      end
    end
    collectgarbage("incremental", 200, 100, 13)
    assert.equal(0, wrong)
  end))

  it("takes its deadline with it", on_main(function()
    local sock = support.bound()
    local one = coroutine.create(function() with_timeout(0.002, sock.receive_string, sock) end)
    coroutine.resume(one)
    assert.is_true(coroutine.close(one))
    fiber.sleep(0.005)
    local dropped = coroutine.wrap(function() with_timeout(0.002, coroutine.yield) end)
    dropped()
    dropped = nil -- luacheck: ignore 311
    collectgarbage()
    fiber.sleep(0.005)
    sock:close()
  end))
end)

describe("many with_timeouts", function()
  it("make no garbage that stays: ten thousand leave the memory as it was", with_loop(function()
    local function ten_thousand()
      for _ = 1, 10000 do with_timeout(100, fiber.yield) end
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    ten_thousand()
    local before = ten_thousand()
    local after = ten_thousand()
    assert.is_true(after - before < 16, ("grew by %.1f KiB"):format(after - before))
  end))

  it("take their timers from a pool: a hundred thousand in a row leave the process as large as it was", function()
    local output = support.run_program [[
      local fiber = require "ip".fiber
      local resident = require "spec.support.resident"
      local function nothing() end
      local function rounds(n)
        for _ = 1, n do fiber.with_timeout(100, nothing) end
      end
      rounds(20000)
      local before = resident()
      rounds(100000)
      print(before and resident() - before or "unknown")
    ]]
    local grown = tonumber(output)
    if output:find("unknown", 1, true) then return pending("the system does not tell the size of a process") end
    if platform.mode == "sanitize" then return end -- it keeps freed memory
    assert.is_true(grown ~= nil and grown < 1 << 20, output)
  end)

  -- in a process of its own, as the operations and timers that it needed stay in their pools
  it("may be open at once: a hundred thousand fibers inside one each, all of which expire", function()
    assert_prints("100000\n", [[
      local ip = require "ip"
      local fiber = ip.fiber
      local count, expired = 100000, 0
      for _ = 1, count do
        fiber.spawn(function()
          local ok, err = pcall(fiber.with_timeout, 0.05, fiber.sleep, 100)
          if not ok and err == ip.error.ETIMEDOUT and err.operation == "with_timeout" then expired = expired + 1 end
        end)
      end
      fiber.run()
      print(expired)
    ]])
  end)
end)

describe("with_timeout around run()", function()
  it("bounds it on the main thread, and leaves the fibers as they are", support.on_main(function()
    local sleeper = ip.fiber.spawn(function() ip.fiber.sleep(60) end)
    local err = support.error_of(ip.fiber.with_timeout, 0.01, ip.fiber.run)
    assert.equal(ip.error.ETIMEDOUT, err)
    assert.equal("with_timeout", err.operation)
    assert.equal("waiting", sleeper.status)
    sleeper:interrupt()
    ip.fiber.run()
    assert.equal("interrupted", sleeper.status)
  end))
end)
