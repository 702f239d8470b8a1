-- What ip.fiber.coroutine promises: Lua's own coroutine table, whose coroutines may wait where their resumer
-- waits.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local generators = require "spec.support.generators"
local memory = require "spec.support.memory"
local places = require "spec.support.places"

local fiber = ip.fiber
local co = fiber.coroutine
local with_loop, on_main = support.with_loop, support.on_main
local error_of, wait_until, bound = support.error_of, support.wait_until, support.bound
local assert_contains = assertions.assert_contains
local send, texts_of, in_three_places = support.send, generators.texts_of, places.in_three_places

-- What `lib` does in plain use, as a list of lines.
local function behaviour_of(lib)
  local lines = {}
  local function note(...)
    local values = table.pack(...)
    for i = 1, values.n do values[i] = type(values[i]) == "thread" and "thread" or tostring(values[i]) end
    lines[#lines + 1] = table.concat(values, "|"):gsub("%S+%.lua:%d+: ", "HERE: "):gsub("to '[%w.]-(%w+)'", "to '%1'")
  end
  local function noted(fn, ...) note(pcall(fn, ...)) end

  local one = lib.create(function(...)
    note("started", ...)
    note("resumed", lib.yield(1, nil, nil))
    note("resumed", lib.yield())
    note(lib.isyieldable(), select(2, lib.running()))
    return nil, "end", nil
  end)
  note(lib.status(one), type(one))
  note(lib.resume(one, "a", nil))
  note(lib.resume(one, nil, "b", nil))
  note(lib.status(one))
  note(lib.resume(one))
  note(lib.status(one))
  note(lib.resume(one))
  noted(lib.wrap(function() error("text") end))
  noted(lib.wrap(function() error("text", 0) end))
  noted(function() lib.wrap(function() error("text", 0) end)() end)
  noted(function() return type(select(2, pcall(lib.wrap(error), {}))) end)
  noted(lib.wrap(function() error() end))
  local dead = lib.wrap(function() return "last" end)
  noted(dead)
  noted(dead)
  local failing = lib.create(function() error("in it", 0) end)
  note(lib.resume(failing))
  note(lib.resume(failing))
  note(lib.close(failing))
  local held = lib.create(function()
    local guard <close> = setmetatable({}, { __close = function() note("closed") end }) -- luacheck: ignore guard
    lib.yield()
  end)
  lib.resume(held)
  note(lib.close(held))
  note(lib.status(held))
  local bad_close = lib.wrap(function()
    local guard <close> = setmetatable({}, { __close = function(_, err) error(err .. "+close", 0) end }) -- luacheck: ignore
    error("body", 0)
  end)
  noted(bad_close)
  local self
  self = lib.create(function() note(lib.resume(self)); note(lib.status(self)); noted(lib.close, self) end)
  note(lib.resume(self))
  local again
  again = lib.wrap(function() local result = again() return result end)
  noted(again)
  for _, name in ipairs({ "create", "wrap", "resume", "status", "close" }) do
    if name ~= "close" or _VERSION == "Lua 5.4" then noted(lib[name]) end -- Lua 5.5 closes the running coroutine
    noted(lib[name], 1)
    noted(lib[name], {})
  end
  local outer = lib.create(function()
    local inner = lib.create(function(thread) return lib.status(thread) end)
    return lib.resume(inner, (lib.running()))
  end)
  note(lib.resume(outer))
  note(pcall(lib.wrap(function() return lib.wrap(function() lib.yield("through") return "x" end)() end)))
  local sum = 0
  for i in lib.wrap(function() for i = 1, 100 do lib.yield(i) end end) do sum = sum + i end
  note(sum)
  return lines
end

describe("ip.fiber.coroutine", function()
  in_three_places("does in plain use what Lua's own does", function()
    assert.same(behaviour_of(coroutine), behaviour_of(co))
  end)

  it("has all that Lua's own has, and leaves that alone", function()
    for name, value in pairs(coroutine) do assert.equal(type(value), type(co[name]), name) end
    for name in pairs(co) do assert.is_not_nil(coroutine[name], name) end
    assert.are_not.equal(coroutine, co)
    assert.are_not.equal(coroutine.resume, co.resume)
  end)

  it("works with coroutines that Lua's own made, and the other way round", with_loop(function()
    local sock, port = bound()
    send(sock, port, "there already")
    local raw = coroutine.create(function() fiber.sleep(0.001) return (sock:receive_string()) end)
    assert.same({ true, "there already" }, { co.resume(raw) })
    local ours = co.create(function(x) return x + coroutine.yield(x) end)
    assert.same({ true, 1 }, { coroutine.resume(ours, 1) })
    assert.same({ true, 3 }, { coroutine.resume(ours, 2) })
    sock:close()
  end))
end)

describe("a generator that waits", function()
  in_three_places("gives its values as if it had not waited", function()
    local sock, port = bound()
    local sender = fiber.spawn(function()
      for i = 1, 5 do
        fiber.sleep(0.001)
        send(sock, port, tostring(i))
      end
      fiber.sleep(0.001)
      send(sock, port, "end")
    end)
    local got = {}
    for text in texts_of(sock) do got[#got + 1] = text end
    assert.same({ "1", "2", "3", "4", "5" }, got)
    sender:join()
    sock:close()
  end)

  in_three_places("may be inside others, three deep", function()
    local sock, port = bound()
    local sender = fiber.spawn(function()
      for _, text in ipairs({ "a", "b", "end" }) do
        fiber.sleep(0.001)
        send(sock, port, text)
      end
    end)
    local got = {}
    for text in texts_of(sock, 3) do got[#got + 1] = text end
    assert.same({ "a", "b" }, got)
    sender:join()
    sock:close()
  end)

  it("lets other fibers run meanwhile", with_loop(function()
    local order = {}
    local other = fiber.spawn(function() order[#order + 1] = "other" end)
    co.wrap(function() fiber.sleep(0.005) order[#order + 1] = "generator" end)()
    assert.same({ "other", "generator" }, order)
    other:join()
  end))

  it("keeps arguments and results, nils included, on both sides of a wait", with_loop(function()
    local gen = co.create(function(...)
      fiber.yield()
      local got = table.pack(co.yield(select("#", ...), nil, nil))
      fiber.sleep(0.001)
      return got.n, got[2], nil
    end)
    assert.same({ n = 4, true, 3 }, table.pack(co.resume(gen, nil, nil, nil)))
    assert.same({ n = 4, true, 2, "x" }, table.pack(co.resume(gen, nil, "x")))
    assert.equal("dead", co.status(gen))
  end))

  in_three_places("hands on the errors of its calls and its own", function()
    local sock = bound()
    local gen = co.create(function()
      local ok, err = pcall(fiber.with_timeout, 0.001, sock.receive_string, sock)
      co.yield(ok, err)
      sock:close()
      sock:receive_string()
    end)
    local _, ok, err = co.resume(gen)
    assert.is_false(ok)
    assert.equal(ip.error.ETIMEDOUT, err)
    assert.equal("with_timeout", err.operation)
    ok, err = co.resume(gen)
    assert.is_false(ok)
    assert.equal(ip.error.EBADF, err)
    assert.equal("dead", co.status(gen))
    err = error_of(co.wrap(function() fiber.sleep(0.001) error("after a wait") end))
    assert_contains(err, "after a wait")
  end)

  it("runs its __close after an error, and may wait there", with_loop(function()
    local sock, port = bound()
    local got
    send(sock, port, "in __close")
    local err = error_of(co.wrap(function()
      local guard <close> = setmetatable({}, { __close = function() -- luacheck: ignore guard
        fiber.sleep(0.001)
        got = sock:receive_string()
      end })
      error("x", 0)
    end))
    -- Lua runs what a failed coroutine has to close where it cannot be suspended
    assert.is_truthy(err == "x" or tostring(err):find("cannot wait in sleep", 1, true))
    assert.is_nil(got)
    assert.equal("in __close", (sock:receive_string()))
    sock:close()
  end))

  it("is in its fiber: current() and what bounds it", with_loop(function()
    local self = fiber.current()
    local seen = co.wrap(function()
      local before = fiber.current()
      fiber.sleep(0.001)
      local deep = co.wrap(function() fiber.yield() return fiber.current() end)()
      return { before, fiber.current(), deep }
    end)()
    assert.same({ self, self, self }, seen)
    assert.is_nil((coroutine.wrap(fiber.current)()))
  end))

  it("stays bounded by its fiber where somebody tries to resume it while it runs", with_loop(function()
    local sock <close> = bound()
    -- Waits twice; between the waits it tries to resume itself.
    local function waits_again()
      local self
      self = co.create(function()
        local ok, err = pcall(sock.receive_string, sock)
        assert.is_false((co.resume(self)))
        return ok, err, pcall(sock.receive_string, sock)
      end)
      return self
    end
    local timed_out, interrupted
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.01, function()
      timed_out = { co.resume(waits_again()) }
    end))
    assert.same({ true, false, ip.error.ETIMEDOUT, false, ip.error.ETIMEDOUT }, timed_out)
    local waiting = support.waiting(function() interrupted = { co.resume(waits_again()) } end)
    waiting:interrupt()
    waiting:join()
    assert.same({ true, false, ip.error.INTERRUPTED, false, ip.error.INTERRUPTED }, interrupted)
  end))

  it("is bounded by a deadline of now, too, where it has left a deadline of its own meanwhile", with_loop(function()
    for _, text in ipairs { false, "there already" } do
      local sock, port = bound()
      local made = coroutine.create(function()
        fiber.with_timeout(10, coroutine.yield)
        return pcall(sock.receive_string, sock)
      end)
      coroutine.resume(made)
      if text then send(sock, port, text) end
      local resumed, ok, result
      fiber.with_timeout(2, function() -- this one has time left
        pcall(fiber.with_timeout, 0, function() resumed, ok, result = co.resume(made) end)
        fiber.sleep(0.001)
      end)
      assert.is_true(resumed)
      assert.equal(text and true or false, ok)
      assert.equal(text or ip.error.ETIMEDOUT, result)
      sock:close()
    end
  end))

  it("has no fiber on the main thread", on_main(function()
    assert.is_nil((co.wrap(function() fiber.sleep(0.001) return fiber.current() end)()))
  end))

  it("does not let the fiber join itself", with_loop(function()
    local self = fiber.current()
    assert.equal(ip.error.EDEADLK, error_of(co.wrap(function() self:join() end)))
  end))

  it("shows its fiber as waiting", with_loop(function()
    local waiting = fiber.spawn(function() co.wrap(function() fiber.sleep(100) end)() end)
    fiber.yield()
    assert.equal("waiting", waiting.status)
    waiting:interrupt()
    waiting:join()
    assert.is_true(waiting.interruption_caught)
  end))

  it("may be resumed by two fibers by turns", with_loop(function()
    local sock, port = bound()
    local gen = texts_of(sock)
    local got, turn = {}, 1
    local function taker(mine, other)
      return function()
        for _ = 1, 20 do
          wait_until(function() return turn == mine end)
          got[#got + 1] = mine .. gen()
          turn = other
        end
      end
    end
    local one, two = fiber.spawn(taker(1, 2)), fiber.spawn(taker(2, 1))
    for i = 1, 40 do
      send(sock, port, ":" .. i)
      if i % 3 == 0 then fiber.sleep(0.0005) end
    end
    one:join()
    two:join()
    for i = 1, 40 do assert.equal(("%d:%d"):format(2 - i % 2, i), got[i]) end
    sock:close()
  end))

  it("keeps its place in the queue of a socket: first come, first served", with_loop(function()
    local sock, port = bound()
    local got, waiters = {}, {}
    for i = 1, 6 do
      waiters[i] = fiber.spawn(function()
        if i % 2 == 0 then
          got[i] = texts_of(sock, i // 2)()
        else
          got[i] = sock:receive_string()
        end
      end)
      fiber.yield()
    end
    for i = 1, 6 do send(sock, port, tostring(i)) end
    for i = 1, 6 do waiters[i]:join() end
    assert.same({ "1", "2", "3", "4", "5", "6" }, got)
    sock:close()
  end))
end)

describe("many generators", function()
  it("lose, repeat and mix up nothing", with_loop(function()
    math.randomseed(20240607)
    local sockets, fibers, expected = {}, {}, 60
    for i = 1, 8 do
      local sock, port = bound()
      sockets[i] = { sock = sock, port = port }
      fibers[i] = fiber.spawn(function()
        local gen, last = texts_of(sock, i % 3 + 1), 0
        while last < expected do
          local ok, text = pcall(fiber.with_timeout, math.random() < 0.3 and 0.0004 or 10, gen)
          if ok then
            assert.equal(last + 1, tonumber(text))
            last = last + 1
          else
            assert.equal(ip.error.ETIMEDOUT, text)
            gen = texts_of(sock, math.random(3)) -- the deadline has ended the old one
          end
          if math.random() < 0.1 then collectgarbage("step") end
        end
      end)
    end
    local sender = bound()
    for number = 1, expected do
      for _, each in ipairs(sockets) do send(sender, each.port, tostring(number)) end
      fiber.sleep(math.random() * 0.001)
    end
    for i, each in ipairs(sockets) do
      fibers[i]:join()
      each.sock:close()
    end
    sender:close()
  end, 60))

  it("survive a collector that runs all the time", with_loop(function()
    local sock, port = bound()
    local pause, multiplier = collectgarbage("incremental", 0, 10000), nil -- luacheck: ignore
    for i = 1, 100 do
      local gen = texts_of(sock, i % 3 + 1)
      local waiting = fiber.spawn(gen)
      fiber.yield()
      collectgarbage()
      if i % 4 == 0 then
        waiting:interrupt()
        waiting:join()
      else
        send(sock, port, tostring(i))
        assert.equal(tostring(i), (waiting:join()))
      end
    end
    collectgarbage("incremental", 200, 100)
    sock:close()
  end, 30))

  it("leave no memory behind, 10,000 of them", with_loop(function()
    local function round(count)
      for i = 1, count do
        local gen = co.wrap(function()
          fiber.yield()
          co.yield(1)
          fiber.yield()
        end)
        gen()
        if i % 2 == 0 then gen() end -- the others are dropped where they are
      end
    end
    round(1000)
    local before = memory.used()
    round(10000)
    local more = memory.used() - before
    assert.is_true(more < 32, ("%.1f KiB more"):format(more))
  end, 60))
end)
