-- The sessions of a listener: transfers, properties, and the ways in which their waits end.

local ip = require "ip"
local assertions = require "spec.support.assertions"
local blocked_programs = require "spec.support.blocked_programs"
local platform = require "spec.support.platform"
local sockets = require "spec.support.sockets"
local support = require "spec.support"

local byte_span, fiber, message_flag = ip.byte_span, ip.fiber, ip.message_flag
local assert_again, assert_raises = assertions.assert_again, assertions.assert_raises
local assert_method_raises, assert_contains = assertions.assert_method_raises, assertions.assert_contains
local assert_bad_method_argument = assertions.assert_bad_method_argument
local wait_until, with_loop, on_main = support.wait_until, support.with_loop, support.on_main

local open = sockets.session

describe("a session", function()
  it("receives like a connected socket", with_loop(function()
    local session <close>, peer = open()
    local buf = byte_span.new(4)
    peer:send("datagram")
    assert.same({ 4, true }, { session:receive(buf) })
    assert.equal("data", tostring(buf))
    peer:send("ab")
    assert.same({ 2, false }, { session:receive(buf) })
    assert.equal("abta", tostring(buf))
    peer:send("")
    assert.same({ 0, false }, { session:receive(buf) })
    peer:send("text")
    assert.same({ "text", peer.local_address, peer.local_port, false }, { session:receive_string() })
    peer:send("longer")
    assert.same({ "lon", peer.local_address, peer.local_port, true }, { session:receive_string(3) })
    peer:send("x")
    assert.same({ 0, true }, { session:receive(byte_span.new(0)) })
  end))

  it("receives datagrams of any size", with_loop(function()
    local session <close>, peer, listener = open()
    local other = ip.udp.connect("127.0.0.1", listener.local_port)
    for _, size in ipairs { 0, 1, 63, 64, 65, 1472, 9000, 65507 } do
      local text = ("x"):rep(size)
      peer:send(text)
      assert.equal(text, (session:receive_string()))
      peer:send(text)
      other:send("y")
      listener:accept():close() -- brings the datagram into the session before it is received
      assert.equal(text, (session:receive_string()))
    end
  end))

  it("peeks, in the socket and in what was read for it", with_loop(function()
    local session <close>, peer, listener = open()
    peer:send("one")
    assert.equal("one", (session:receive_string(nil, message_flag.peek)))
    assert.equal("o", (session:receive_string(1, message_flag.peek)))
    peer:send("two")
    local other = ip.udp.connect("127.0.0.1", listener.local_port)
    other:send("x")
    listener:accept()
    assert.equal("one", (session:receive_string()))
    assert.equal(3, (session:try_receive(byte_span.new(8), message_flag.peek)))
    assert.equal("two", (session:try_receive_string()))
    assert_again("try_receive_string", session:try_receive_string())
  end))

  it("never waits in its try_ forms, but looks at the socket", with_loop(function()
    local session <close>, peer = open()
    local buf = byte_span.new(8)
    assert_again("try_receive", session:try_receive(buf))
    assert_again("try_receive_string", session:try_receive_string())
    peer:send("a")
    assert.same({ 1, false }, { session:try_receive(buf) })
    peer:send("b")
    assert.same({ "b", peer.local_address, peer.local_port, false }, { session:try_receive_string() })
    local waiting = support.suspended(session, "receive_string")
    peer:send("c")
    assert_again("try_receive", session:try_receive(buf)) -- it belongs to who waits
    assert.equal("c", select(2, waiting:join()))
  end))

  it("sends to its peer", with_loop(function()
    local session <close>, peer = open()
    assert.equal(3, session:send("one"))
    assert.equal(4, session:send({ "fo", byte_span.append("ur") }))
    assert.equal(0, session:send(""))
    assert.equal(3, session:try_send("try"))
    assert.equal(2, session:send_with(2, function(span) span:copy("ok") end))
    assert.equal(3, session:send("dry", message_flag.confirm))
    for _, expected in ipairs { "one", "four", "", "try", "ok", "dry" } do
      assert.equal(expected, (peer:receive_string()))
    end
    assert_raises("EMSGSIZE", "send", session.send, session, ("x"):rep(65508))
  end))

  it("keeps the datagrams of many peers apart", with_loop(function()
    for _, coalesce in ipairs { false, true } do
      local listener <close> = ip.udp.listen("127.0.0.1", 0, { coalesce = coalesce })
      local server = fiber.spawn(function()
        for session in listener:sessions() do
          fiber.spawn(function()
            local count = 0
            while true do
              local ok, text = pcall(session.receive_string, session)
              if not ok then return end
              count = count + 1
              session:send(text .. " " .. count)
            end
          end)
        end
      end)
      local clients = {}
      for c = 1, 20 do
        clients[c] = fiber.spawn(function()
          local peer <close> = ip.udp.connect("127.0.0.1", listener.local_port, { receive_timeout = 5 })
          for i = 1, 30 do
            peer:send(("%d.%d"):format(c, i))
            assert.equal(("%d.%d %d"):format(c, i, i), (peer:receive_string()))
          end
        end)
      end
      for c = 1, 20 do clients[c]:join() end
      listener:close()
      server:join()
    end
  end))

  it("knows its peer", with_loop(function()
    local session, peer = open()
    assert.is_true(session.is_open)
    assert.equal(peer.local_address, session.remote_address)
    assert.equal(peer.local_port, session.remote_port)
    assert.equal(0, session.dropped)
    assert_contains(session, "127.0.0.1:" .. peer.local_port)
    session:close()
    assert.is_false(session.is_open)
    assert_contains(session, "closed")
    assert_raises("EBADF", "remote_address", function() return session.remote_address end)
    assert_raises("EBADF", "remote_port", function() return session.remote_port end)
  end))

  it("gets its timeouts from the options of the listener", with_loop(function()
    local session <close> = open { receive_timeout = 0.5, send_timeout = 2 }
    assert.equal(0.5, session.receive_timeout)
    assert.equal(2, session.send_timeout)
    session.receive_timeout = nil
    assert.is_nil(session.receive_timeout)
    session.send_timeout = 0
    assert.equal(0, session.send_timeout)
    assert.is_false(pcall(function() session.receive_timeout = -1 end))
    assert.is_false(pcall(function() session.send_timeout = "1" end))
  end))

  it("checks its arguments", with_loop(function()
    local session <close> = open()
    assert_bad_method_argument(1, session, "receive")
    assert_bad_method_argument(1, session, "receive", "buf")
    assert_bad_method_argument(2, session, "receive", byte_span.new(1), "peek")
    assert_bad_method_argument(1, session, "receive_string", -1)
    assert_bad_method_argument(1, session, "try_receive")
    assert_bad_method_argument(1, session, "send")
    assert_bad_method_argument(1, session, "send", 1)
    assert_bad_method_argument(2, session, "send", "x", "flag")
    assert_bad_method_argument(1, session, "try_send")
    assert_bad_method_argument(1, session, "send_with", "x")
    assert_bad_method_argument(2, session, "send_with", 1)
    assertions.assert_message("has no property 'no_such_name'", function() return session.no_such_name end)
  end))
end)

describe("a session that is closed", function()
  it("ends pending calls with ECANCELED and later ones with EBADF", with_loop(function()
    local session = open()
    local receiving = support.suspended(session, "receive_string")
    session:close()
    local ok, err = receiving:join()
    assert.is_false(ok)
    assert.equal(ip.error.ECANCELED, err)
    for _, method in ipairs { "receive", "receive_string", "try_receive", "try_receive_string", "send", "try_send",
      "send_with" } do
      assert_method_raises("EBADF", session, method)
    end
    session:close()
  end))

  it("loses what nobody has received; the next datagram begins a new one", with_loop(function()
    local session, peer, listener = open()
    peer:send("lost")
    local other = ip.udp.connect("127.0.0.1", listener.local_port)
    other:send("x")
    listener:accept():close()
    session:close()
    peer:send("found")
    local again <close> = listener:accept()
    assert.equal(peer.local_port, again.remote_port)
    assert.equal("found", (again:receive_string()))
    assert_again("try_receive_string", again:try_receive_string())
  end))

  it("is also what a to-be-closed variable and the collector close", with_loop(function()
    local peer, listener = select(2, open())
    collectgarbage()
    collectgarbage()
    peer:send("again")
    do
      local session <close> = listener:accept()
      assert.equal("again", (session:receive_string()))
    end
    peer:send("and again")
    assert.equal("and again", (listener:accept():receive_string()))
  end))
end)

describe("a receive of a session", function()
  it("waits for its own datagram while others come", with_loop(function()
    local session <close>, peer, listener = open()
    local waiting = support.suspended(session, "receive_string")
    local other = ip.udp.connect("127.0.0.1", listener.local_port)
    for i = 1, 200 do
      other:send(tostring(i))
      if i % 50 == 0 then fiber.yield() end
    end
    assert.equal("waiting", waiting.status)
    peer:send("mine")
    assert.equal("mine", select(2, waiting:join()))
    assert.equal("1", (listener:accept():receive_string()))
  end))

  it("is served in the order in which it came", with_loop(function()
    local session <close>, peer = open()
    local order, waiting = {}, {}
    for i = 1, 4 do
      waiting[i] = support.waiting(function()
        local text = session:receive_string()
        order[#order + 1] = i .. text
      end)
    end
    for _, text in ipairs { "a", "b", "c", "d" } do peer:send(text) end
    for i = 1, 4 do waiting[i]:join() end
    assert.same({ "1a", "2b", "3c", "4d" }, order)
  end))

  it("works on the main thread, in a coroutine of others, and in a generator inside a fiber", on_main(function()
    local session, peer, listener = open()
    peer:send("main")
    assert.equal("main", (session:receive_string()))
    local got
    coroutine.wrap(function() got = session:receive_string() end)()
    peer:send("coroutine")
    wait_until(function() return got end)
    assert.equal("coroutine", got)
    local generated = fiber.spawn(function()
      local receive = fiber.coroutine.wrap(function()
        while true do coroutine.yield((session:receive_string())) end
      end)
      return receive()
    end)
    fiber.yield()
    peer:send("generator")
    assert.equal("generator", generated:join())
    local sender = fiber.spawn(function()
      fiber.yield()
      peer:send("late")
    end)
    assert.equal("late", (session:receive_string()))
    sender:join()
    session:close()
    listener:close()
  end))

  it("that ends otherwise leaves the datagram to the next", with_loop(function()
    local session <close>, peer = open()
    assert_raises("ETIMEDOUT", "with_timeout", fiber.with_timeout, 0.001, session.receive_string, session)
    session.receive_timeout = 0.001
    assert_raises("ETIMEDOUT", "receive_string", session.receive_string, session)
    session.receive_timeout = nil
    local interrupted = support.suspended(session, "receive_string")
    local closed = coroutine.create(function() session:receive_string() end)
    coroutine.resume(closed)
    local resumed = coroutine.create(function() return pcall(session.receive_string, session) end)
    coroutine.resume(resumed)
    local last = support.suspended(session, "receive_string")
    interrupted:interrupt()
    coroutine.close(closed)
    local _, _, message = coroutine.resume(resumed)
    assert_contains(message, "resumed while waiting in receive_string")
    peer:send("one")
    assert.equal("one", select(2, last:join()))
    local _, err = interrupted:join()
    assert.equal(ip.error.INTERRUPTED, err)
  end))

  it("of a woken coroutine that is closed leaves the datagram to the next", with_loop(function()
    local session <close>, peer, listener = open()
    local closed = coroutine.create(function() session:receive_string() end)
    coroutine.resume(closed)
    local other = ip.udp.connect("127.0.0.1", listener.local_port)
    peer:send("kept")
    other:send("x")
    assert.is_truthy(listener:try_accept()) -- has read both datagrams, so the receive is due
    coroutine.close(closed)
    assert.equal("kept", (session:receive_string()))
  end))

  it("is the last attempt at its deadline: a datagram that came in time is received", with_loop(function()
    local session <close>, peer = open { receive_timeout = 0.3 }
    local waiting = support.suspended(session, "receive_string")
    peer:send("in time")
    local finish = fiber.now() + 0.35
    while fiber.now() < finish do end -- the deadline passes while nobody reads
    assert.equal("in time", select(2, waiting:join()))
  end))

  it("with a timeout of zero takes what is there, and nothing else", with_loop(function()
    local session <close>, peer = open { receive_timeout = 0 }
    for _ = 1, 10 do assert_raises("ETIMEDOUT", "receive_string", session.receive_string, session) end
    for i = 1, 300 do -- also where the call has to give way to others
      peer:send(tostring(i))
      assert.equal(tostring(i), (session:receive_string()))
    end
    assert_raises("ETIMEDOUT", "receive_string", session.receive_string, session)
    assert_raises("ETIMEDOUT", "with_timeout", fiber.with_timeout, 0, session.receive_string, session)
    peer:send("x")
    assert.equal("x", (fiber.with_timeout(0, session.receive_string, session)))
  end))

  it("raises the deadline of the scope where all receives of a session wait in one", with_loop(function()
    local session <close>, peer = open()
    local waiting = {}
    for i = 1, 3 do
      waiting[i] = support.waiting(pcall, fiber.with_timeout, i == 2 and 5 or 0.001, session.receive_string, session)
    end
    for _, i in ipairs { 1, 3 } do
      local _, err = waiting[i]:join()
      assert.equal(ip.error.ETIMEDOUT, err)
      assert.equal("with_timeout", err.operation)
    end
    peer:send("second")
    assert.equal("second", select(2, waiting[2]:join()))
  end))

  it("is not starved by other sessions, and starves no other fiber", with_loop(function()
    local session <close>, peer = open()
    local turns = support.turns_during(function()
      for _ = 1, 500 do
        peer:send("x")
        session:receive_string()
      end
    end)
    assert.is_true(turns > 0)
  end))

  it("raises what the network reports for its own peer, with receive_errors", with_loop(function()
    if not pcall(ip.udp.listen, "127.0.0.1", 0, { receive_errors = true }) then return pending("no error queue") end
    local session <close>, peer, listener = open { receive_errors = true }
    local other_peer = ip.udp.connect("127.0.0.1", listener.local_port)
    other_peer:send("x")
    local other = listener:accept()
    other:receive_string()
    local waiting, unharmed = support.suspended(session, "receive_string"), support.suspended(other, "receive_string")
    peer:close()
    session:send("to nobody")
    local ok, err = waiting:join()
    assert.is_false(ok)
    assert.equal(ip.error.ECONNREFUSED, err)
    other:send("fine")
    assert.equal("fine", (other_peer:receive_string()))
    other_peer:send("fine, too")
    assert.equal("fine, too", select(2, unharmed:join()))
    assert_again("try_receive_string", session:try_receive_string())
  end))
end)

describe("a send of a session that the system cannot take yet", function()
  local it_blocked, passes = blocked_programs.it_blocked, blocked_programs.passes
  -- A session whose socket is full; see spec/support/blocked_link.lua.
  local prelude = [[
    local ip = require "ip"
    local fiber = ip.fiber
    local link = require "spec.support.blocked_link"
    local listener = ip.udp.listen("127.0.0.1", 0, { send_buffer_size = 1 })
    local peer = ip.udp.connect("127.0.0.1", listener.local_port)
    local session
    local accepting = fiber.spawn(function() session = listener:accept() end)
    link.unblock()
    peer:send("hello")
    accepting:join()
    local other = ip.udp.connect("127.0.0.1", listener.local_port)
    other:send("hello")
    local other_session = listener:accept()
    link.block()
    while session:try_send(("."):rep(1000)) do end
  ]]

  it_blocked("raises ETIMEDOUT after send_timeout", passes(prelude .. [[
    session.send_timeout = 0.01
    local waiting = link.waiting(session.send, session, "x")
    link.ends_with("ETIMEDOUT", waiting)
  ]]))

  it_blocked("ends with ECANCELED when its session is closed, and no other", passes(prelude .. [[
    local waiting = link.waiting(session.send, session, "x")
    local unharmed = link.waiting(other_session.send, other_session, "y")
    session:close()
    link.ends_with("ECANCELED", waiting)
    link.equal("waiting", unharmed.status)
    listener:close()
    link.ends_with("ECANCELED", unharmed)
  ]]))
end)

describe("the socket of a listener", function()
  -- What the system still has for the socket, in datagrams of one size.
  platform.it_linux("is read only while somebody waits, or by a call that looks", with_loop(function()
    local session <close>, peer, listener = open { session_capacity = 2 }
    for i = 1, 20 do peer:send(tostring(i)) end
    for _ = 1, 5 do fiber.yield() end
    fiber.sleep(0.005)
    assert.equal(0, session.dropped) -- the 20 are in the system
    for i = 1, 20 do assert.equal(tostring(i), (session:receive_string())) end
    assert.equal(0, session.dropped)
    assert.is_true(listener.is_open)
  end))

  it("lets the loop sleep while nothing comes", on_main(function()
    local session, _, listener
    fiber.run(function() session, _, listener = open() end)
    assertions.assert_sleeps(function()
      local waiting = fiber.spawn(pcall, session.receive_string, session)
      local accepting = fiber.spawn(pcall, listener.accept, listener)
      fiber.sleep(0.05)
      waiting:interrupt()
      accepting:interrupt()
      waiting:join()
      accepting:join()
    end)
    listener:close()
  end))

  it("lets no deadlock hide: who waits for a peer waits for something outside", on_main(function()
    local listener <close> = ip.udp.listen("127.0.0.1", 0)
    assert_raises("ETIMEDOUT", "with_timeout", fiber.with_timeout, 0.001, listener.accept, listener)
  end))
end)
