-- ip.udp.listen: one socket, and a session for each of its peers.

local ip = require "ip"
local assertions = require "spec.support.assertions"
local memory = require "spec.support.memory"
local platform = require "spec.support.platform"
local support = require "spec.support"

local fiber = ip.fiber
local assert_again, assert_raises = assertions.assert_again, assertions.assert_raises
local assert_method_raises, assert_contains = assertions.assert_method_raises, assertions.assert_contains
local error_of, wait_until, with_loop, on_main =
  support.error_of, support.wait_until, support.with_loop, support.on_main

-- A listener on loopback, and a function that makes connected peers of it.
local function listen(options, address)
  local listener = ip.udp.listen(address or "127.0.0.1", 0, options)
  return listener, function() return ip.udp.connect(address or "127.0.0.1", listener.local_port) end
end

describe("ip.udp.listen", function()
  it("gives a listener that knows its end of the conversation", with_loop(function()
    local listener <close> = listen()
    assert.is_true(listener.is_open)
    assert.equal(ip.address.loopback_v4(), listener.local_address)
    assert.is_true(listener.local_port > 0)
    assert.equal(0, listener.dropped)
    assert_contains(listener, "ip.udp.listener (v4)")
  end))

  it("takes the options of ip.udp.bind, and closes the socket when one is refused", with_loop(function()
    local listener <close> = listen { reuse_address = true, receive_buffer_size = 65536 }
    assert_contains(error_of(ip.udp.listen, "127.0.0.1", 0, { no_such_option = true }), "bad argument #3 to 'listen'")
    assert_contains(error_of(ip.udp.listen, "127.0.0.1", 0, { coalesce = 1 }), "option 'coalesce'")
    assert_raises("EADDRINUSE", "bind", ip.udp.listen, "127.0.0.1", listener.local_port)
  end))

  it("refuses limits that are no numbers of at least one, and says which", with_loop(function()
    for name, wrong in pairs {
      max_sessions = { 0, -1, 1.5, "1", true },
      session_capacity = { 0, -1, 1.5, "1", true },
      idle_timeout = { 0, -1, 0 / 0, "1", true },
      accept = { 1, true, {} },
    } do
      for _, value in ipairs(wrong) do
        local message = error_of(ip.udp.listen, "127.0.0.1", 0, { [name] = value })
        assert_contains(message, "bad argument #3 to 'listen'")
        assert_contains(message, "option '" .. name .. "'")
      end
    end
    assert_contains(error_of(ip.udp.listen, "localhost", 0), "bad argument #1 to 'listen'")
    assert_contains(error_of(ip.udp.listen, "127.0.0.1", 0, true), "bad argument #3 to 'listen'")
  end))

  it("joins a multicast group, as ip.udp.bind does", with_loop(function()
    local ok, listener = pcall(ip.udp.listen, "239.1.2.3", 0, { interface = "127.0.0.1", multicast_loop = true })
    if not ok then return pending("no multicast on loopback") end
    local sender <close> = ip.udp.bind("127.0.0.1", 0, { multicast_interface = "127.0.0.1" })
    sender:send_to("to all", "239.1.2.3", listener.local_port)
    local session = fiber.with_timeout(5, listener.accept, listener)
    assert.equal("to all", (session:receive_string()))
    listener:close()
  end))
end)

describe("listener:accept", function()
  it("gives a session for each new peer, in the order in which they were heard", with_loop(function()
    local listener <close>, connect = listen()
    local peers = {}
    for i = 1, 5 do
      peers[i] = connect()
      peers[i]:send("first of " .. i)
    end
    peers[1]:send("second of 1")
    for i = 1, 5 do
      local session = listener:accept()
      assert.equal(peers[i].local_port, session.remote_port)
      assert.equal(peers[i].local_address, session.remote_address)
      assert.equal("first of " .. i, (session:receive_string()))
      if i == 1 then assert.equal("second of 1", (session:receive_string())) end
    end
    assert_again("try_accept", listener:try_accept())
  end))

  it("waits for the next peer", with_loop(function()
    local listener <close>, connect = listen()
    local accepting = support.suspended(listener, "accept")
    local peer <close> = connect()
    peer:send("hello")
    local ok, session = accepting:join()
    assert.is_true(ok)
    assert.equal("hello", (session:receive_string()))
  end))

  it("serves those who wait in the order in which they came", with_loop(function()
    local listener <close>, connect = listen()
    local order = {}
    local fibers = {}
    for i = 1, 4 do
      fibers[i] = support.waiting(function()
        local text = listener:accept():receive_string()
        order[#order + 1] = { i, text }
      end)
    end
    for i = 1, 4 do
      local peer = connect()
      peer:send(tostring(i))
      wait_until(function() return #order == i end)
    end
    for i = 1, 4 do
      fibers[i]:join()
      assert.same({ i, tostring(i) }, order[i])
    end
  end))

  it("works on the main thread, and in coroutines that others have made", on_main(function()
    local listener <close>, connect = listen()
    local one, two = connect(), connect()
    one:send("1")
    assert.equal("1", (listener:accept():receive_string()))
    local got
    coroutine.wrap(function()
      local session = listener:accept()
      got = session:receive_string()
    end)()
    two:send("2")
    wait_until(function() return got end)
    assert.equal("2", got)
  end))

  it("loses no peer when its wait ends by a deadline, an interruption or the end of its coroutine", with_loop(function()
    local listener <close>, connect = listen()
    assert_raises("ETIMEDOUT", "with_timeout", fiber.with_timeout, 0.001, listener.accept, listener)
    local interrupted = support.waiting(pcall, listener.accept, listener)
    local closed = coroutine.create(function() listener:accept() end)
    coroutine.resume(closed)
    local peer <close> = connect()
    peer:send("still here")
    interrupted:interrupt()
    coroutine.close(closed)
    local _, err = interrupted:join()
    assert.equal(ip.error.INTERRUPTED, err)
    assert.equal("still here", (listener:accept():receive_string()))
  end))

  it("raises at once where it may not wait at all, but accepts a peer that is there", with_loop(function()
    local listener <close>, connect = listen()
    assert_raises("ETIMEDOUT", "with_timeout", fiber.with_timeout, 0, listener.accept, listener)
    local peer <close> = connect()
    peer:send("x")
    local session = fiber.with_timeout(0, listener.accept, listener)
    assert.equal("x", (session:receive_string()))
  end))

  it("gives way to other fibers in a flood of peers", with_loop(function()
    local listener <close>, connect = listen()
    local turns = support.turns_during(function()
      for _ = 1, 300 do
        local peer <close> = connect()
        peer:send("x")
        listener:accept():close()
      end
    end)
    assert.is_true(turns > 0)
  end))

  it("never suspends as try_accept", with_loop(function()
    local listener <close>, connect = listen()
    assert_again("try_accept", listener:try_accept())
    local peer <close> = connect()
    peer:send("x")
    assert.equal("x", (listener:try_accept():receive_string()))
    local waiting = support.suspended(listener, "accept")
    local other <close> = connect()
    other:send("y")
    assert_again("try_accept", listener:try_accept()) -- it belongs to who waits
    local _, session = waiting:join()
    assert.equal("y", (session:receive_string()))
  end))
end)

describe("for session in listener:sessions()", function()
  it("runs until the listener is closed", with_loop(function()
    local listener, connect = listen()
    local seen = {}
    local loop = fiber.spawn(function()
      for session in listener:sessions() do seen[#seen + 1] = session:receive_string() end
      return "over"
    end)
    local one, two = connect(), connect()
    one:send("one")
    two:send("two")
    wait_until(function() return #seen == 2 end)
    listener:close()
    assert.equal("over", loop:join())
    assert.same({ "one", "two" }, seen)
  end))

  it("raises what ends a wait otherwise, and EBADF where the listener is closed before", with_loop(function()
    local listener = listen()
    local next_session = listener:sessions()
    assert_raises("ETIMEDOUT", "with_timeout", fiber.with_timeout, 0.001, next_session)
    listener:close()
    assert.is_nil(next_session())
    assert_method_raises("EBADF", listener, "sessions")
  end))
end)

describe("listener:close", function()
  it("ends what waits with ECANCELED, and later calls with EBADF", with_loop(function()
    local listener, connect = listen()
    local peer <close> = connect()
    peer:send("x")
    local session = listener:accept()
    session:receive_string()
    local accepting = support.suspended(listener, "accept")
    local receiving = support.suspended(session, "receive_string")
    listener:close()
    for _, waiting in ipairs { accepting, receiving } do
      local ok, err = waiting:join()
      assert.is_false(ok)
      assert.equal(ip.error.ECANCELED, err)
    end
    assert.is_false(listener.is_open)
    assert.is_false(session.is_open)
    assert_method_raises("EBADF", listener, "accept")
    assert_method_raises("EBADF", listener, "try_accept")
    assert_method_raises("EBADF", session, "receive", ip.byte_span.new(1))
    assert_method_raises("EBADF", session, "try_receive_string")
    assert_method_raises("EBADF", session, "send", "x")
    assert_raises("EBADF", "local_port", function() return listener.local_port end)
    assert_raises("EBADF", "local_address", function() return listener.local_address end)
    assert.equal(0, listener.dropped)
    assert_contains(listener, "closed")
    listener:close()
  end))

  it("is also what a to-be-closed variable and the collector do", with_loop(function()
    local port
    do
      local listener <close> = listen()
      port = listener.local_port
    end
    do
      local listener = ip.udp.listen("127.0.0.1", port) -- the port is free again
      assert.is_true(listener.is_open)
    end
    collectgarbage()
    collectgarbage()
    ip.udp.bind("127.0.0.1", port):close()
  end))

  it("comes not before the last session is gone, where only sessions refer to the listener", with_loop(function()
    local listener, connect = listen { accept = function() return true end }
    local peer <close> = connect()
    peer:send("one")
    local session = listener:accept()
    listener = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal("one", (session:receive_string()))
    session:send("answer")
    assert.equal("answer", (peer:receive_string()))
    session = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage() -- the guard of this spec counts descriptors and sockets
  end))
end)

describe("the limits of a listener", function()
  it("max_sessions: datagrams of further peers are dropped and counted", with_loop(function()
    local listener <close>, connect = listen { max_sessions = 2 }
    local peers = {}
    for i = 1, 4 do
      peers[i] = connect()
      peers[i]:send("a" .. i)
    end
    peers[4]:send("b4")
    local one, two = listener:accept(), listener:accept()
    assert_again("try_accept", listener:try_accept())
    assert.equal(3, listener.dropped)
    assert.equal("a1", (one:receive_string()))
    assert.equal("a2", (two:receive_string()))
    one:close() -- there is capacity for another
    peers[3]:send("c3")
    assert.equal("c3", (listener:accept():receive_string()))
    assert.equal(3, listener.dropped)
  end))

  it("max_sessions counts sessions that nobody has accepted", with_loop(function()
    local listener <close>, connect = listen { max_sessions = 1 }
    local one, two = connect(), connect()
    one:send("1")
    two:send("2")
    local first = listener:accept()
    one:send("more")
    two:send("again")
    assert.equal("1", (first:receive_string()))
    assert.equal("more", (first:receive_string()))
    assert_again("try_receive_string", first:try_receive_string())
    assert.equal(2, listener.dropped)
  end))

  it("session_capacity: the newest datagrams are dropped and counted in the session", with_loop(function()
    local listener <close>, connect = listen { session_capacity = 3 }
    local one, two = connect(), connect()
    one:send("1")
    local session = listener:accept()
    for i = 2, 6 do one:send(tostring(i)) end
    two:send("x")
    listener:accept() -- reads on to the other peer
    assert.equal(3, session.dropped)
    for i = 1, 3 do assert.equal(tostring(i), (session:receive_string())) end
    one:send("7")
    assert.equal("7", (session:receive_string()))
    assert.equal(0, listener.dropped)
    session:close()
    assert.equal(3, session.dropped)
  end))
end)

describe("the accept function of a listener", function()
  it("gets the peer and its datagram, and decides whether there is a session", with_loop(function()
    local asked = {}
    local listener <close>, connect = listen { accept = function(address, port, data)
      asked[#asked + 1] = { address, port, data }
      return data == "let me in"
    end }
    local one, two = connect(), connect()
    one:send("nobody")
    two:send("let me in")
    local session = listener:accept()
    assert.equal(two.local_port, session.remote_port)
    assert.equal("let me in", (session:receive_string()))
    assert.same({ { one.local_address, one.local_port, "nobody" }, { two.local_address, two.local_port, "let me in" } },
      asked)
    assert.equal(0, listener.dropped) -- a refusal is no drop
    two:send("more")
    session:receive_string()
    assert.equal(2, #asked) -- who has a session is not asked about
    one:send("let me in")
    assert.equal(one.local_port, listener:accept().remote_port)
  end))

  it("raises its error in one accept; the others wait on, and are served", with_loop(function()
    local listener <close>, connect = listen { accept = function(_, _, data)
      return data == "let me in" or error("refused", 0)
    end }
    local first = fiber.spawn(pcall, listener.accept, listener)
    local second = fiber.spawn(listener.accept, listener)
    local third = fiber.spawn(pcall, fiber.with_timeout, 0.05, listener.accept, listener)
    fiber.yield()
    connect():send("nobody")
    local ok, err = first:join()
    assert.is_false(ok)
    assert.equal("refused", err)
    local peer = connect()
    peer:send("let me in")
    assert.equal(peer.local_port, second:join().remote_port)
    ok, err = third:join()
    assert.is_false(ok)
    assert.equal(ip.error.ETIMEDOUT, err)
  end))

  it("is called where the datagram is read: in a session's receive, too", with_loop(function()
    local asked = 0
    local listener <close>, connect = listen { accept = function()
      asked = asked + 1
      return true
    end }
    local one, two = connect(), connect()
    one:send("1")
    local session = listener:accept()
    session:receive_string()
    two:send("2")
    assert_again("try_receive_string", session:try_receive_string())
    assert.equal(2, asked)
    assert.equal("2", (listener:accept():receive_string()))
  end))

  it("is not asked when there is no session to be had", with_loop(function()
    local asked = 0
    local listener <close>, connect = listen { max_sessions = 1, accept = function()
      asked = asked + 1
      return true
    end }
    local one, two = connect(), connect()
    one:send("1")
    two:send("2")
    listener:accept()
    assert_again("try_accept", listener:try_accept())
    assert.equal(1, asked)
    assert.equal(1, listener.dropped)
  end))

  it("leaves accept with its error, once, whoever has read the datagram", with_loop(function()
    local listener <close>, connect = listen { accept = function(_, _, data)
      if data == "bad" then error({ "my own" }) end
      return true
    end }
    local one, two = connect(), connect()
    one:send("good")
    local session = listener:accept()
    session:receive_string()
    two:send("bad")
    two:send("bad")
    assert_again("try_receive_string", session:try_receive_string())
    assert.same({ "my own" }, error_of(listener.accept, listener))
    two:send("good")
    assert.equal("good", (listener:accept():receive_string()))
    local waiting = support.suspended(listener, "accept")
    local three <close> = connect()
    three:send("bad")
    local ok, err = waiting:join()
    assert.is_false(ok)
    assert.same({ "my own" }, err)
  end))

  it("may not suspend, wherever it is called", on_main(function()
    local errors = {}
    local sock <close> = ip.udp.bind("127.0.0.1", 0)
    local listener <close>, connect = listen { accept = function()
      local _, err = pcall(sock.receive_string, sock)
      errors[#errors + 1] = tostring(err)
      return true
    end }
    for _, accept in ipairs {
      listener.try_accept, listener.accept,
      function() return fiber.run(listener.try_accept, listener) end,
      function() return fiber.run(listener.accept, listener) end,
    } do
      local peer <close> = connect()
      peer:send("x")
      assert.is_truthy(accept(listener))
    end
    local waiting = fiber.spawn(listener.accept, listener)
    fiber.yield()
    local peer <close> = connect()
    peer:send("x")
    waiting:join()
    assert.equal(5, #errors)
    for _, message in ipairs(errors) do assert_contains(message, "cannot wait in receive_string") end
  end))

  it("may close the listener or a session, and talk to them", with_loop(function()
    local listener, session
    local function connect() return ip.udp.connect("127.0.0.1", listener.local_port) end
    listener = ip.udp.listen("127.0.0.1", 0, { accept = function(_, _, data)
      if data == "inner" then session = listener:try_accept() end
      if data == "end" then session:close() end
      if data == "all" then listener:close() end
      return true
    end })
    local one, two, three, four = connect(), connect(), connect(), connect()
    one:send("inner")
    one:send("more")
    assert_again("try_accept", listener:try_accept()) -- the function has taken it
    assert.equal("more", (session:receive_string()))
    assert.equal("inner", (session:receive_string()))
    two:send("end")
    assert_method_raises("EBADF", session, "try_receive_string")
    assert.equal("end", (listener:accept():receive_string()))
    three:send("all")
    assert_method_raises("EBADF", listener, "try_accept")
    assert.is_false(listener.is_open)
    four:close()
  end))

  it("ends the calls that look, like those that wait, when it closes the listener or the session", with_loop(function()
    local listener, session
    local function open()
      listener = ip.udp.listen("127.0.0.1", 0, { accept = function(_, _, data)
        if data == "session" then session:close() end
        if data == "listener" then listener:close() end
        return true
      end })
      ip.udp.connect("127.0.0.1", listener.local_port):send("first")
      session = listener:accept()
      session:receive_string()
      return ip.udp.connect("127.0.0.1", listener.local_port)
    end
    for what, calls in pairs {
      session = { "receive_string", "receive" }, listener = { "receive_string", "receive", "accept" },
    } do
      for _, method in ipairs(calls) do
        open():send(what)
        assert_method_raises("ECANCELED", method == "accept" and listener or session, method,
          method == "receive" and ip.byte_span.new(9) or nil)
        listener:close()
      end
    end
    local peer = open()
    local next_session = listener:sessions()
    peer:send("listener")
    assert.is_nil(next_session())
  end))
end)

describe("a listener that a finalizer closes while a session is made", function()
  -- Calls accept(listener) so that its first allocation runs a finalizer that closes the listener.
  local function close_during(accept)
    local listener, connect = listen()
    local peer <close> = connect()
    peer:send("x")
    wait_until(function() return fiber.wait_any(listener) == listener end)
    local call = accept(listener)
    collectgarbage("generational")
    collectgarbage("stop")
    setmetatable({}, { __gc = function() listener:close() end })
    collectgarbage("restart")
    local ok, result = pcall(call, listener)
    collectgarbage("incremental")
    assert.is_false(listener.is_open)
    return ok, result
  end

  it("ends the loop over its sessions, and cancels accept", with_loop(function()
    assert.same({ true }, { close_during(function(listener) return listener:sessions() end) })
    for _, method in ipairs { "accept", "try_accept" } do
      local ok, err = close_during(function(listener) return listener[method] end)
      assert.is_false(ok)
      assert.equal(ip.error.ECANCELED, err)
    end
  end))
end)

describe("a listener on all addresses", function()
  local function check(any, addresses, family_of)
    return with_loop(function()
      local listener <close> = ip.udp.listen(any, 0)
      for _, address in ipairs(addresses) do
        local peer <close> = ip.udp.bind(family_of(address), 0)
        peer:send_to("to " .. address, address, listener.local_port)
        local session <close> = listener:accept()
        assert.equal("to " .. address, (session:receive_string()))
        session:send("answer")
        session:send_with(3, function(span) span:copy("two") end)
        assert.equal("try", session:try_send("try") == 3 and "try")
        for _ = 1, 3 do
          local _, from, port = peer:receive_string()
          assert.equal(address, tostring(from))
          assert.equal(listener.local_port, port)
        end
      end
    end)
  end

  platform.it_linux("answers each peer from the address that the peer used",
    check("0.0.0.0", { "127.0.0.1", "127.0.0.2", "127.9.9.9" }, function() return "127.0.0.1" end))

  platform.it_v6("does so on v6, and for v4 peers there", check("::", { "::1" }, function() return "::1" end))

  platform.it_linux("answers a broadcast from an address of its own", with_loop(function()
    local listener <close> = ip.udp.listen("0.0.0.0", 0)
    local peer <close> = ip.udp.bind("127.0.0.1", 0, { broadcast = true })
    peer:send_to("to all", "127.255.255.255", listener.local_port)
    local session = listener:accept()
    session:receive_string()
    session:send("answer")
    local _, from = peer:receive_string()
    assert.equal("127.0.0.1", tostring(from))
  end))

  platform.it_linux("follows the peer that uses another address", with_loop(function()
    local listener <close> = ip.udp.listen("0.0.0.0", 0)
    local peer <close> = ip.udp.bind("127.0.0.1", 0)
    peer:send_to("one", "127.0.0.2", listener.local_port)
    local session = listener:accept()
    session:receive_string()
    peer:send_to("two", "127.0.0.3", listener.local_port)
    session:receive_string()
    session:send("answer")
    local _, from = peer:receive_string()
    assert.equal("127.0.0.3", tostring(from))
  end))
end)

describe("a listener's memory", function()
  it("does not grow in the steady state, in accepted sessions and with others between", with_loop(function()
    local listener <close>, connect = listen()
    local one, two = connect(), connect()
    one:send("x")
    two:send("x")
    local a, b = listener:accept(), listener:accept()
    local buf = ip.byte_span.new(64)
    a:receive(buf)
    b:receive(buf)
    assert.equal(0, memory.garbage_of(function()
      two:send("for b")
      one:send("for a")
      a:receive(buf)
      a:send(buf)
      b:receive(buf)
      b:send(buf)
      a:try_receive(buf)
      listener:try_accept()
      one:receive(buf)
      two:receive(buf)
    end, 1000, 300))
  end))
end)
