-- idle_timeout: the sessions of a listener whose peers are silent.

local ip = require "ip"
local assertions = require "spec.support.assertions"
local sockets = require "spec.support.sockets"
local support = require "spec.support"

local fiber = ip.fiber
local assert_raises, assert_method_raises = assertions.assert_raises, assertions.assert_method_raises
local wait_until, with_loop = support.wait_until, support.with_loop

local IDLE = 0.2 -- seconds: long beside what a busy machine takes from a process

local function open(options)
  options = options or {}
  options.idle_timeout = options.idle_timeout or IDLE
  return sockets.session(options)
end

-- Lets the time pass in which nothing comes.
local function be_silent() fiber.sleep(IDLE * 1.5) end

describe("a session whose peer is silent", function()
  it("ends a waiting receive with ETIMEDOUT, not earlier than the timeout", with_loop(function()
    local begin = fiber.now()
    local session = open()
    assert_raises("ETIMEDOUT", "receive_string", session.receive_string, session)
    assert.is_true(fiber.now() - begin >= IDLE)
    assert.is_false(session.is_open)
  end))

  it("is over: receives and sends raise ETIMEDOUT again and again", with_loop(function()
    local session = open()
    be_silent()
    assert.is_false(session.is_open)
    for _ = 1, 2 do
      for method, argument in pairs {
        receive_string = 1, send = "x", try_send = "x", try_receive_string = 1, receive = ip.byte_span.new(1),
        try_receive = ip.byte_span.new(1),
      } do
        assert_method_raises("ETIMEDOUT", session, method, argument)
      end
      assert_raises("ETIMEDOUT", "send_with", session.send_with, session, 1, print)
    end
    assertions.assert_contains(session, "idle")
    assert.is_true(session.remote_port > 0)
    session:close()
    assert_method_raises("EBADF", session, "send", "x")
  end))

  it("delivers unread datagrams first", with_loop(function()
    local session, peer, listener = open { session_capacity = 2 }
    for _, text in ipairs { "one", "two", "three" } do peer:send(text) end
    local other = ip.udp.connect("127.0.0.1", listener.local_port)
    other:send("x")
    listener:accept() -- reads them into the session
    be_silent()
    assert.is_false(session.is_open)
    assert_method_raises("ETIMEDOUT", session, "send", "x")
    assert.equal(1, session.dropped)
    assert.equal("one", (session:receive_string()))
    assert.equal("two", (session:try_receive_string()))
    assert_method_raises("ETIMEDOUT", session, "receive_string")
    assert.equal(1, session.dropped)
  end))

  it("gives way to a new session when its peer sends again", with_loop(function()
    local session, peer, listener = open()
    be_silent()
    peer:send("again")
    local new = listener:accept()
    assert.equal("again", (new:receive_string()))
    assert.equal(session.remote_port, new.remote_port)
    assert_method_raises("ETIMEDOUT", session, "receive_string")
    new:send("answer")
    assert.equal("answer", (peer:receive_string()))
  end))

  it("gets a last look at the socket: what came in time is received", with_loop(function()
    local session, peer = open()
    local waiting = support.suspended(session, "receive_string")
    peer:send("in time")
    local finish = fiber.now() + 2 * IDLE
    while fiber.now() < finish do end -- the timeout passes while nobody reads
    assert.equal("in time", select(2, waiting:join()))
    local other_session, other_peer = open()
    other_peer:send("in the socket")
    be_silent()
    assert.equal("in the socket", (other_session:receive_string()))
  end))

  it("gets that last look from every receive, with peek, and from wait_any", with_loop(function()
    local buf, peek = ip.byte_span.new(9), ip.message_flag.peek
    for method, argument in pairs {
      receive = buf, try_receive = buf, receive_string = buf.capacity, try_receive_string = buf.capacity,
    } do
      local session, peer = open()
      peer:send("in time")
      be_silent()
      assert.is_truthy((assertions.call_method(session, method, argument, peek)))
      assert.equal("in time", (session:receive_string()))
    end
    local session, peer = open()
    peer:send("in time")
    be_silent()
    assert.equal(session, fiber.wait_any(session))
    assert.equal("in time", (session:receive_string()))
  end))

  it("gets no look from is_open and sends: what is in the socket begins a new session", with_loop(function()
    for _, find in ipairs {
      function(session) assert.is_false(session.is_open) end,
      function(session) assert_method_raises("ETIMEDOUT", session, "send", "x") end,
    } do
      local session, peer, listener = open()
      peer:send("in time")
      be_silent()
      find(session)
      assert_method_raises("ETIMEDOUT", session, "receive_string")
      local following <close> = listener:accept()
      assert.equal(session.remote_port, following.remote_port)
      assert.equal("in time", (following:receive_string()))
    end
  end))

  it("gets that last look also where the look meets a peer that could have its place", with_loop(function()
    for _, text in ipairs { "in time", false } do
      local session, peer, listener = open { max_sessions = 1 }
      local other = ip.udp.connect("127.0.0.1", listener.local_port)
      other:send("other")
      if text then peer:send(text) end
      be_silent()
      if text then
        assert.equal(text, (session:receive_string()))
      else
        assert_method_raises("ETIMEDOUT", session, "receive_string")
      end
      assert.equal(1, listener.dropped)
    end
  end))

  it("is not silent while it is sent to", with_loop(function()
    local session, peer = open()
    local waiting = support.suspended(session, "receive_string")
    local finish = fiber.now() + 4 * IDLE
    while fiber.now() < finish do
      session:send("still here")
      fiber.sleep(IDLE / 10)
    end
    assert.equal("waiting", waiting.status)
    assert.is_true(session.is_open)
    peer:send("answer")
    assert.equal("answer", select(2, waiting:join()))
  end))

  it("gives its place to another peer", with_loop(function()
    local session, _, listener = open { max_sessions = 1 }
    be_silent()
    local other = ip.udp.connect("127.0.0.1", listener.local_port)
    other:send("other")
    assert.equal("other", (listener:accept():receive_string()))
    assert.equal(0, listener.dropped)
    assert.is_false(session.is_open)
  end))

  it("does not begin to be idle before it is accepted", with_loop(function()
    local first, _, listener = open()
    local peer = ip.udp.connect("127.0.0.1", listener.local_port)
    peer:send("patient")
    first:close()
    assert.is_truthy(pcall(fiber.with_timeout, 0.001, fiber.yield))
    be_silent()
    local session = listener:accept()
    assert.is_true(session.is_open)
    assert.equal("patient", (session:receive_string()))
    session:send("x")
  end))

  it("ends by itself, where many wait, each in its time", with_loop(function()
    local listener <close> = ip.udp.listen("127.0.0.1", 0, { idle_timeout = IDLE })
    local ended, lasting = 0, nil
    local server = fiber.spawn(function()
      for session in listener:sessions() do
        fiber.spawn(function()
          while true do
            local ok, text = pcall(session.receive_string, session)
            if not ok then
              assert(text == ip.error.ETIMEDOUT)
              ended = ended + 1
              return
            end
            if text == "last" then lasting = session end
          end
        end)
      end
    end)
    for _ = 1, 20 do
      local peer = ip.udp.connect("127.0.0.1", listener.local_port)
      peer:send("x")
    end
    local last = ip.udp.connect("127.0.0.1", listener.local_port)
    wait_until(function()
      last:send("last")
      return ended == 20
    end)
    assert.is_true(lasting.is_open)
    wait_until(function() return ended == 21 end)
    assert.is_false(lasting.is_open)
    listener:close()
    server:join()
  end))
end)
