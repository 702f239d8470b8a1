-- Listeners and their sessions as sources of wait_any.

local ip = require "ip"
local assertions = require "spec.support.assertions"
local sockets = require "spec.support.sockets"
local support = require "spec.support"

local fiber = ip.fiber
local assert_raises = assertions.assert_raises
local with_loop = support.with_loop

local function open(options)
  local session, peer, listener = sockets.session(options)
  local function connect() return ip.udp.connect("127.0.0.1", listener.local_port) end
  return listener, session, peer, connect
end

describe("wait_any", function()
  it("waits for a session and a listener, and takes nothing of them", with_loop(function()
    for _, options in ipairs { {}, { accept = function() return true end }, { coalesce = true } } do
      local listener <close>, session, peer, connect = open(options)
      local idle = ip.udp.bind("127.0.0.1", 0)
      local waiting = support.waiting(fiber.wait_any, idle, listener, session)
      peer:send("for the session")
      assert.equal(session, waiting:join())
      assert.equal(session, fiber.wait_any(idle, listener, session)) -- at once
      assert.equal("for the session", (session:try_receive_string()))
      waiting = support.waiting(fiber.wait_any, { idle, session, listener })
      local other = connect()
      other:send("new")
      local source, index = waiting:join()
      assert.equal(listener, source)
      assert.equal(3, index)
      assert.equal("new", (listener:try_accept():receive_string()))
      idle:close()
    end
  end))

  it("finds what is in the socket without waiting, the first in order", with_loop(function()
    local listener <close>, session, peer, connect = open()
    local other = connect()
    peer:send("x")
    other:send("y")
    assert.equal(listener, fiber.with_timeout(0, fiber.wait_any, listener, session))
    assert.equal(session, fiber.with_timeout(0, fiber.wait_any, session, listener))
  end))

  it("takes a session or a listener that is over for ready", with_loop(function()
    local listener, session, peer = open { idle_timeout = 0.02 }
    assert.equal(session, fiber.wait_any(listener, session)) -- silent for too long
    assert_raises("ETIMEDOUT", "receive_string", session.receive_string, session)
    peer:send("again")
    local again = listener:accept()
    again:receive_string()
    local waiting = support.waiting(fiber.wait_any, again)
    again:close()
    assert.equal(again, waiting:join())
    waiting = support.waiting(fiber.wait_any, listener)
    listener:close()
    assert.equal(listener, waiting:join())
    assert.equal(session, fiber.wait_any(session))
  end))

  it("makes a last look at its deadline, and leaves nothing behind when it ends otherwise", with_loop(function()
    local listener <close>, session, peer = open()
    local waiting = support.waiting(fiber.with_timeout, 0.3, fiber.wait_any, listener, session)
    peer:send("in time")
    local finish = fiber.now() + 0.35
    while fiber.now() < finish do end -- the deadline passes while nobody reads
    assert.equal(session, waiting:join())
    session:receive_string()
    assert_raises("ETIMEDOUT", "with_timeout", fiber.with_timeout, 0.001, fiber.wait_any, listener, session)
    local interrupted = support.waiting(pcall, fiber.wait_any, listener, session)
    local closed = coroutine.create(fiber.wait_any)
    coroutine.resume(closed, session, listener)
    interrupted:interrupt()
    coroutine.close(closed)
    interrupted:join()
    peer:send("kept")
    assert.equal("kept", (session:receive_string()))
  end))

  it("wakes all who watch one session", with_loop(function()
    local listener <close>, session, peer = open()
    local waiting = {}
    for i = 1, 3 do waiting[i] = support.waiting(fiber.wait_any, session, listener) end
    peer:send("x")
    for i = 1, 3 do assert.equal(session, waiting[i]:join()) end
  end))
end)
