-- What ends a wait inside a generator: deadlines, interruptions, cancelling, closing, and others who resume
-- it.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local generators = require "spec.support.generators"
local places = require "spec.support.places"

local fiber = ip.fiber
local co = fiber.coroutine
local with_loop, on_main = support.with_loop, support.on_main
local error_of, wait_until, bound = support.error_of, support.wait_until, support.bound
local assert_contains = assertions.assert_contains
local send, texts_of, in_three_places = support.send, generators.texts_of, places.in_three_places

describe("a deadline or an interruption", function()
  for depth = 1, 3 do
    in_three_places(("around a generator (%d deep) ends its call, which takes nothing"):format(depth), function()
      local sock, port = bound()
      local inside
      local err = error_of(fiber.with_timeout, 0.005, function()
        local function wait(level)
          if level == 0 then sock:receive_string() end
          local ok, problem = co.resume(co.create(wait), level - 1)
          if level == 1 then inside = problem end
          if not ok then error(problem, 0) end
        end
        wait(depth)
      end)
      assert.equal(ip.error.ETIMEDOUT, err)
      assert.equal("with_timeout", err.operation)
      assert.equal(ip.error.ETIMEDOUT, inside)
      send(sock, port, "still there")
      assert.equal("still there", (sock:receive_string()))
      sock:close()
    end)
  end

  in_three_places("inside a generator is its own, and leaves what is around alone", function()
    local sock, port = bound()
    local gen = co.wrap(function()
      local _, err = pcall(fiber.with_timeout, 0.002, sock.receive_string, sock)
      co.yield(err)
      return (sock:receive_string())
    end)
    fiber.with_timeout(100, function()
      local err = gen()
      assert.equal(ip.error.ETIMEDOUT, err)
      assert.equal("with_timeout", err.operation)
      send(sock, port, "x")
      assert.equal("x", gen())
    end)
    sock:close()
  end)

  in_three_places("of zero seconds lets a generator take what is there, and no more", function()
    local sock, port = bound()
    send(sock, port, "there")
    local gen = texts_of(sock)
    assert.equal("there", fiber.with_timeout(0, gen))
    local err = error_of(fiber.with_timeout, 0, gen)
    assert.equal(ip.error.ETIMEDOUT, err)
    sock:close()
  end)

  it("by interrupt() reaches the call that the generator waits in", with_loop(function()
    for depth = 1, 3 do
      local sock, port = bound()
      local inside
      local victim = fiber.spawn(function()
        local gen = co.create(function()
          texts_of(sock, depth)()
        end)
        local ok, err = co.resume(gen)
        inside = err
        if not ok then error(err, 0) end
      end)
      fiber.yield()
      victim:interrupt()
      victim:join()
      assert.is_true(victim.interruption_caught)
      assert.equal(ip.error.INTERRUPTED, inside)
      send(sock, port, "next")
      assert.equal("next", (sock:receive_string()))
      sock:close()
    end
  end))

  it("is held back by a shield, around and inside", with_loop(function()
    local sock, port = bound()
    local got = {}
    local victim = fiber.spawn(function()
      got[1] = fiber.shield(texts_of(sock))
      got[2] = co.wrap(function() return (fiber.shield(sock.receive_string, sock)) end)()
      fiber.sleep(0)
    end)
    fiber.yield()
    victim:interrupt()
    fiber.yield()
    send(sock, port, "one")
    send(sock, port, "two")
    victim:join()
    assert.same({ "one", "two" }, got)
    assert.is_true(victim.interruption_caught)
    sock:close()
  end))

  it("in a generator whose fiber is gone harms nobody", with_loop(function()
    for _ = 1, 20 do
      local gen = co.create(function()
        fiber.with_timeout(0.003, fiber.shield, function() co.yield("inside") end)
        return "out"
      end)
      fiber.spawn(function() assert.same({ true, "inside" }, { co.resume(gen) }) end):join()
      collectgarbage()
      collectgarbage()
      fiber.sleep(0.004)
      assert.same({ true, "out" }, { co.resume(gen) })
    end
  end))

  it("in a generator that is dropped harms nobody", with_loop(function()
    fiber.spawn(function()
      co.resume(co.create(function() fiber.with_timeout(0.002, co.yield) end))
    end):join()
    collectgarbage()
    collectgarbage()
    fiber.sleep(0.004)
  end))
end)

describe("cancelling or closing", function()
  it("a socket ends the call inside the generator", with_loop(function()
    for _, method in ipairs({ "cancel", "close" }) do
      local sock = bound()
      local waiting = fiber.spawn(texts_of(sock, 2))
      fiber.yield()
      sock[method](sock)
      local ok, err = pcall(waiting.join, waiting)
      assert.is_false(ok)
      assert.equal(ip.error.ECANCELED, err)
      sock:close()
    end
  end))

  it("the generator itself cancels its call, and wakes the fiber that waits in it", with_loop(function()
    local sock, port = bound()
    local gen = co.create(function() sock:receive_string() end)
    local waiting = fiber.spawn(function() return co.resume(gen) end)
    fiber.yield()
    local next_one = fiber.spawn(sock.receive_string, sock)
    fiber.yield()
    assert.is_true(co.close(gen))
    local ok, err = waiting:join()
    assert.is_false(ok)
    assert_contains(err, "dead coroutine")
    send(sock, port, "for the next")
    assert.equal("for the next", (next_one:join()))
    sock:close()
  end))

  it("the fiber closes the generators that it waits in, and the next waiter gets the datagram", with_loop(function()
    for depth = 1, 3 do
      local sock, port = bound()
      local thread, closed
      local abandoned = fiber.spawn(function()
        thread = coroutine.running()
        co.wrap(function()
          local guard <close> = setmetatable({}, { __close = function() closed = true end }) -- luacheck: ignore guard
          texts_of(sock, depth)()
        end)()
      end)
      fiber.yield()
      local next_one = fiber.spawn(sock.receive_string, sock)
      fiber.yield()
      assert.is_true(coroutine.close(thread))
      assert.is_true(closed)
      send(sock, port, "for the next")
      assert.equal("for the next", (next_one:join()))
      assert.equal(ip.error.ECANCELED, error_of(abandoned.join, abandoned))
      sock:close()
    end
  end))

  it("by a break leaves what has not been asked for", with_loop(function()
    local sock, port = bound()
    for i = 1, 3 do send(sock, port, tostring(i)) end
    for text in texts_of(sock, 2) do
      if text == "1" then break end
    end
    collectgarbage()
    collectgarbage()
    assert.equal("2", (sock:receive_string()))
    sock:close()
  end))
end)

describe("resumed by others", function()
  it("a generator that waits raises, and its fiber goes on", with_loop(function()
    local sock, port = bound()
    local gen = co.create(function() sock:receive_string() end)
    local waiting = fiber.spawn(function() return co.resume(gen) end)
    fiber.yield()
    local ok, err = coroutine.resume(gen)
    assert.is_false(ok)
    assert_contains(err, "resumed while waiting in receive_string")
    ok, err = waiting:join()
    assert.is_false(ok)
    assert_contains(err, "dead coroutine")
    send(sock, port, "kept")
    assert.equal("kept", (sock:receive_string()))
    sock:close()
  end))

  it("a fiber that waits in a generator raises, and its generator is closed", with_loop(function()
    local sock, port = bound()
    local thread
    local victim = fiber.spawn(function()
      thread = coroutine.running()
      return pcall(texts_of(sock))
    end)
    fiber.yield()
    assert.is_true((coroutine.resume(thread)))
    assert.equal(ip.error.ECANCELED, error_of(victim.join, victim))
    send(sock, port, "kept")
    assert.equal("kept", (sock:receive_string()))
    sock:close()
  end))

  it("a generator inside one that was resumed by Lua's own waits alone", with_loop(function()
    local got
    local outer = coroutine.wrap(function()
      got = co.wrap(function() fiber.sleep(0.001) return "late" end)()
    end)
    outer()
    assert.is_nil(got)
    wait_until(function() return got end)
    assert.equal("late", got)
  end))
end)

describe("where the resumer cannot be suspended", function()
  it("a call in a generator raises and takes nothing", with_loop(function()
    local function check()
      local sock, port = bound()
      local results
      table.sort({ 2, 1 }, function(a, b)
        results = results or table.pack(co.resume(co.create(function() return sock:receive_string() end)))
        return a < b
      end)
      assert.is_false(results[1])
      assert_contains(results[2], "resumed while waiting in receive_string")
      send(sock, port, "kept")
      assert.equal("kept", (sock:receive_string()))
      sock:close()
    end
    check()
    local ok, err
    coroutine.wrap(function() ok, err = pcall(check) end)()
    wait_until(function() return ok ~= nil end)
    assert.is_true(ok, err)
  end))

  it("on the main thread, which drives the loop there too, it waits", on_main(function()
    local sock, port = bound()
    fiber.spawn(function() fiber.sleep(0.001) send(sock, port, "late") end)
    local text
    table.sort({ 2, 1 }, function(a, b)
      text = text or texts_of(sock)()
      return a < b
    end)
    assert.equal("late", text)
    sock:close()
  end))

  in_three_places("a generator that does not have to wait does its work", function()
    local sock, port = bound()
    send(sock, port, "there")
    local text
    table.sort({ 2, 1 }, function(a, b)
      text = text or texts_of(sock)()
      return a < b
    end)
    assert.equal("there", text)
    sock:close()
  end)
end)
