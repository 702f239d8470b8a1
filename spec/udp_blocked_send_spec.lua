-- What send and send_to promise while the system cannot take a datagram yet.
local blocked_programs = require "spec.support.blocked_programs"

local it_blocked = blocked_programs.it_blocked

describe("a send that the system cannot take yet", function()
  -- What the programs begin with; see spec/support/blocked_link.lua.
  local prelude = [[
    local ip = require "ip"
    local fiber = ip.fiber
    local link = require "spec.support.blocked_link"
    local sink, out = link.sink, link.out
    local text_of = require("spec.support").text_of
    local unblock, arriving, equal, ends_with = link.unblock, link.arriving, link.equal, link.ends_with
    local function waiting_send(...) return link.waiting(out.send, out, ...) end
    -- Calls that send what never arrives.
    local batch = ip.udp.batch.new(2)
    for i = 1, 2 do batch:set(i, "never") end
    local calls = {
      send = function() return out:send("never") end,
      send_with = function() return out:send_with(5, function(span) span:copy("never") end) end,
      send_message = function() return out:send_message("never", {}) end,
      send_many = function() return out:send_many(batch) end,
    }
  ]]

  local function blocked(body) return blocked_programs.passes(prelude .. body) end

  it_blocked("waits, is counted, and completes in order when there is room", blocked [[
    fiber.run(function()
      local first, second, third = waiting_send("one"), waiting_send("four"), waiting_send({ "se", "ven" })
      equal(3, out.send_queue_count)
      equal(12, out.send_queue_size)
      unblock()
      equal(3, select(2, first:join()))
      equal(4, select(2, second:join()))
      equal(5, select(2, third:join()))
      equal(0, out.send_queue_count)
      equal(0, out.send_queue_size)
      equal("one four seven", arriving(3))
    end)
  ]])

  it_blocked("makes try_send and try_send_to give EAGAIN, and nothing is sent by them", blocked [[
    fiber.run(function()
      local value, err = out:try_send("x")
      equal(nil, value)
      equal(ip.error.EAGAIN, err)
      value, err = out:try_send_to("x", "127.0.0.1", sink.local_port)
      equal(nil, value)
      equal(ip.error.EAGAIN, err)
      equal(0, out.send_queue_count)
      unblock()
      equal("", arriving(0))
    end)
  ]])

  it_blocked("is not overtaken by one that begins later", blocked [[
    fiber.run(function()
      local first = waiting_send("first")
      unblock()
      equal(nil, (out:try_send("never")))
      equal(6, out:send("second"))
      equal(true, (first:join()))
      equal("first second", arriving(2))
    end)
  ]])

  it_blocked("raises ETIMEDOUT in time behind one that waits without a timeout", blocked [[
    fiber.run(function()
      local first = waiting_send("first")
      for name, call in pairs(calls) do
        for _, way in ipairs { "send_timeout", "with_timeout", "both at once" } do
          local begin = fiber.now()
          out.send_timeout = way ~= "with_timeout" and 0.01 or nil
          local other = way == "both at once" and link.waiting(call)
          local ok, err = pcall(fiber.with_timeout, way == "with_timeout" and 0.01 or 5, call)
          assert(not ok and err == ip.error.ETIMEDOUT and fiber.now() - begin < 2, name .. " " .. way)
          equal(name == "send_many" and 0 or nil, err.sent)
          if other then equal(false, (other:join())) end
        end
      end
      equal(1, out.send_queue_count)
      unblock()
      equal(true, (first:join()))
      equal("first", arriving(1))
    end)
  ]])

  it_blocked("raises ETIMEDOUT at once behind another where it may not wait, also when it gives way", blocked [[
    local lock = fiber.semaphore(1)
    fiber.run(function()
      local first = waiting_send("first")
      for name, call in pairs(calls) do
        for budget = 126, 130 do -- a fiber gives way after 128 transfers and permits
          fiber.yield()
          for _ = 1, budget do
            lock:acquire()
            lock:release()
          end
          local begin = fiber.now()
          local ok, err = pcall(fiber.with_timeout, 2, function() return fiber.with_timeout(0, call) end)
          assert(not ok and err == ip.error.ETIMEDOUT and fiber.now() - begin < 1, name)
          equal(1, out.send_queue_count)
        end
      end
      unblock()
      equal(true, (first:join()))
      equal("first", arriving(1))
    end)
  ]])

  it_blocked("raises ETIMEDOUT after send_timeout, and is not sent", blocked [[
    fiber.run(function()
      out.send_timeout = 0.02
      local before = fiber.now()
      local ok, err = pcall(out.send, out, "late")
      equal(false, ok)
      equal("send: connection timed out (ETIMEDOUT)", text_of(err))
      assert(fiber.now() - before >= 0.02)
      ok, err = pcall(out.send_to, out, "late", "127.0.0.1", sink.local_port)
      equal("send_to 127.0.0.1:" .. sink.local_port .. ": connection timed out (ETIMEDOUT)", text_of(err))
      out.send_timeout = 0
      ok, err = pcall(out.send, out, "late")
      equal("ETIMEDOUT", err.name)
      equal(0, out.send_queue_count)
      equal(0, out.send_queue_size)
      unblock()
      equal("", arriving(0))
    end)
  ]])

  it_blocked("is ended by with_timeout, and is not sent", blocked [[
    fiber.run(function()
      local ok, err = pcall(fiber.with_timeout, 0.02, out.send, out, "late")
      equal(false, ok)
      equal("with_timeout ETIMEDOUT", err.operation .. " " .. err.name)
      equal(0, out.send_queue_count)
      unblock()
      equal("", arriving(0))
    end)
  ]])

  it_blocked("is ended by cancel, each exactly once, and the socket works on", blocked [[
    fiber.run(function()
      local first, second = waiting_send("one"), waiting_send("two")
      local reader = fiber.spawn(pcall, out.receive_string, out)
      while reader.status ~= "waiting" do fiber.yield() end
      out:cancel()
      out:cancel()
      ends_with("ECANCELED", first)
      ends_with("ECANCELED", second)
      ends_with("ECANCELED", reader)
      equal(0, out.send_queue_count)
      equal(0, out.send_queue_size)
      local third = waiting_send("three")
      unblock()
      equal(true, (third:join()))
      equal("three", arriving(1))
    end)
  ]])

  it_blocked("is ended by close", blocked [[
    fiber.run(function()
      local first, second = waiting_send("one"), waiting_send("two")
      out:close()
      equal(0, out.send_queue_count)
      ends_with("ECANCELED", first)
      ends_with("ECANCELED", second)
      unblock()
      equal("", arriving(0))
    end)
  ]])

  it_blocked("is ended by shutdown with EPIPE", blocked [[
    fiber.run(function()
      local first = waiting_send("one")
      out:shutdown("send")
      ends_with("EPIPE", first)
      unblock()
      equal("", arriving(0))
    end)
  ]])

  it_blocked("is ended by an interruption, and leaves its place to the next", blocked [[
    fiber.run(function()
      local first, second, third = waiting_send("one"), waiting_send("two"), waiting_send("three")
      second:interrupt()
      equal("INTERRUPTED", select(2, second:join()).name)
      equal(2, out.send_queue_count)
      equal(8, out.send_queue_size)
      unblock()
      equal(true, (first:join()))
      equal(true, (third:join()))
      equal("one three", arriving(2))
    end)
  ]])

  it_blocked("leaves the receiving side of the socket alone", blocked [[
    fiber.run(function()
      local reader = fiber.spawn(pcall, out.receive_string, out)
      while reader.status ~= "waiting" do fiber.yield() end
      local first = waiting_send("one")
      equal("waiting", reader.status)
      unblock()
      equal(true, (first:join()))
      sink:send_to("reply", "127.0.0.1", out.local_port)
      equal("reply", select(2, reader:join()))
    end)
  ]])

  it_blocked("waits without waking the loop", blocked [[
    local first = waiting_send("one")
    local wakeups = require("spec.support").wakeups(function() fiber.sleep(0.2) end)
    assert(wakeups <= 10, "wake-ups of the loop: " .. wakeups)
    out:cancel()
    ends_with("ECANCELED", first)
  ]])

  it_blocked("lets the main thread wait", blocked [[
    local opener = fiber.spawn(unblock)
    equal(4, out:send("main"))
    equal(6, out:send_to("thread", "127.0.0.1", sink.local_port))
    opener:join()
    equal("main thread", arriving(2))
  ]])

  it_blocked("may be closed with its coroutine, and is not sent", blocked [[
    local waiting = coroutine.create(function() out:send("never") end)
    coroutine.resume(waiting)
    equal(1, out.send_queue_count)
    coroutine.close(waiting)
    equal(0, out.send_queue_count)
    equal(0, out.send_queue_size)
    unblock()
    equal("", arriving(0))
  ]])
end)
