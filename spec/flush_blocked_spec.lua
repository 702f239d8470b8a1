-- What sends with the option coalesce promise while the system cannot take a datagram yet.
local blocked_programs = require "spec.support.blocked_programs"
local namespace = require "spec.support.namespace"
local platform = require "spec.support.platform"
local support = require "spec.support"
local trace = require "spec.support.trace"

local it_blocked = blocked_programs.it_blocked

describe("a send with coalesce that the system cannot take yet", function()
  -- What the programs begin with; see spec/support/blocked_link.lua.
  local prelude = [[
    local ip = require "ip"
    local fiber = ip.fiber
    local link = require "spec.support.blocked_link"
    local sink, out = link.sink, link.out
    local unblock, arriving, equal = link.unblock, link.arriving, link.equal
    local waiting, ends_with = link.waiting, link.ends_with
    out:set_option("coalesce", true)

    -- Keeps as much as there is room for; how many that were.
    local function fill()
      local count = 0
      while out:try_send("kept " .. count + 1) do count = count + 1 end
      return count
    end
  ]]

  local function blocked(body) return blocked_programs.passes(prelude .. body) end

  it_blocked("is kept, and leaves in order as soon as the system takes it", blocked [[
    fiber.run(function()
      for i = 1, 10 do out:send("text " .. i) end
      for _ = 1, 20 do fiber.yield() end
      equal(10, out.send_queue_count)
      equal(61, out.send_queue_size)
      out:send("behind")
      unblock()
      equal("text 1 text 2 text 3 text 4 text 5 text 6 text 7 text 8 text 9 text 10 behind", arriving(11))
      equal(0, out.send_queue_count)
    end)
  ]])

  it_blocked("waits when there is no more room, and completes in order", blocked [[
    fiber.run(function()
      local kept = fill()
      equal(true, kept >= 64)
      equal("EAGAIN", select(2, out:try_send("x")).name)
      local first, second = waiting(out.send, out, "first"), waiting(out.send, out, "second")
      equal(kept + 2, out.send_queue_count)
      equal(nil, (out:try_send("x")))
      unblock()
      equal(true, (first:join()))
      equal(true, (second:join()))
      link.skip()
      for i = 1, kept do equal("kept " .. i, (sink:receive_string())) end
      equal("first", (sink:receive_string()))
      equal("second", (sink:receive_string()))
    end)
  ]])

  it_blocked("flush waits for it, and ends by send_timeout, cancel, close and an interruption", blocked [[
    fiber.run(function()
      out:send("kept")
      out.send_timeout = 0.01
      equal("ETIMEDOUT", select(2, pcall(out.flush, out)).name)
      out.send_timeout = 0
      equal("ETIMEDOUT", select(2, pcall(out.flush, out)).name)
      out.send_timeout = nil
      equal("ETIMEDOUT", select(2, pcall(fiber.with_timeout, 0.01, out.flush, out)).name)
      local flushing = waiting(out.flush, out)
      equal(1, out.send_queue_count) -- the datagram, not the call
      out:cancel()
      ends_with("ECANCELED", flushing)
      flushing = waiting(out.flush, out)
      flushing:interrupt()
      ends_with("INTERRUPTED", flushing)
      equal("EBUSY", select(2, pcall(out.release, out)).name)
      local flushed = waiting(out.flush, out)
      unblock()
      equal(true, (flushed:join()))
      equal(0, out.send_queue_count)
      equal("kept", arriving(1))
    end)
  ]])

  it_blocked("ends by send_timeout, cancel and close where it waits, and what was accepted stays", blocked [[
    fiber.run(function()
      local kept = fill()
      out.send_timeout = 0.01
      equal("ETIMEDOUT", select(2, pcall(out.send, out, "late")).name)
      out.send_timeout = nil
      local fib = waiting(out.send, out, "cancelled")
      out:cancel()
      ends_with("ECANCELED", fib)
      equal(kept, out.send_queue_count)
      unblock()
      link.skip()
      for i = 1, kept do equal("kept " .. i, (sink:receive_string())) end
      sink.receive_timeout = 0.05
      equal("ETIMEDOUT", select(2, pcall(sink.receive_string, sink)).name)
    end)
  ]])

  it_blocked("is tried once more by close, and then dropped", blocked [[
    fiber.run(function()
      local kept = fill()
      local sending, flushing = waiting(out.send, out, "waiting"), waiting(out.flush, out)
      out:close()
      ends_with("ECANCELED", sending)
      ends_with("ECANCELED", flushing)
      unblock()
      equal("", arriving(0))
    end)
  ]])

  it_blocked("goes to the peer that it was meant for", blocked [[
    fiber.run(function()
      local elsewhere = ip.udp.bind("127.0.0.1", 0)
      out:send("to the first")
      out:connect("127.0.0.1", elsewhere.local_port)
      out:send("to the second")
      out:disconnect()
      equal(2, out.send_queue_count)
      unblock()
      equal("to the first", arriving(1))
      equal("to the second", (elsewhere:receive_string()))
    end)
  ]])

  it_blocked("keeps its place before what cannot be kept, which waits", blocked [[
    fiber.run(function()
      out:send("first")
      local message = waiting(out.send_message, out, "second", { hops = 3 })
      equal(nil, (out:try_send("x")))
      out:set_option("unicast_hops", 5)
      local third = waiting(out.send, out, "third")
      out:set_option("coalesce", false)
      equal(1 + 2, out.send_queue_count)
      unblock()
      equal(true, (message:join()))
      equal(true, (third:join()))
      equal("first second third", arriving(3))
      out:send("plain")
      equal(0, out.send_queue_count)
    end)
  ]])

  it_blocked("is nothing that a program waits for which ends", blocked [[
    out:send("last")
    fiber.run(fiber.yield)
    equal(1, out.send_queue_count)
    unblock()
    link.skip()
    equal("last", (sink:receive_string()))
    out:send("left behind")
  ]])

  it_blocked("or that the path is too small for is dropped, and told with the mtu", function()
    local network <close> = assert(namespace.blocked())
    assert.is_true(network:try("tc qdisc del dev lo root") and network:try("ip link set lo mtu 1500"))
    local program = support.program "too_large_for_path"
    assert.equal("passed\n", (support.read_command(trace.command(network:inside(), program) .. " 2>&1")))
  end)

  it_blocked("does not spin while it waits", function()
    if not platform.can_trace() then return pending("strace may not trace here") end
    local network <close> = assert(namespace.blocked())
    local counts, output = trace.count(prelude .. [[
      out:send("kept")
      fiber.sleep(0.3)
      print(out.send_queue_count)
    ]], network:inside())
    assert.equal("1\n", output)
    local polls = counts.epoll_wait + counts.epoll_pwait
    assert.is_true(polls > 0 and polls < 20, "polls: " .. polls)
  end)
end)
