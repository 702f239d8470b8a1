-- What ends operations and sockets: shutdown, cancel, close and the collector.
local ip = require "ip"
local core = require "ip.core"
local assertions = require "spec.support.assertions"
local sockets = require "spec.support.sockets"
local support = require "spec.support"

local byte_span, fiber = ip.byte_span, ip.fiber
local new_socket = ip.udp.socket.new
local bound, error_of = support.bound, support.error_of
local with_loop, on_main = support.with_loop, support.on_main
local assert_raises, assert_method_raises = assertions.assert_raises, assertions.assert_method_raises
local assert_bad_method_argument = assertions.assert_bad_method_argument
local suspended = support.suspended
local get = sockets.get

local function assert_ends_with(name, waiting)
  local ok, err = waiting:join()
  assert.is_false(ok)
  assert.equal(ip.error[name], err)
end

describe("shutdown", function()
  local function connected()
    local sock, peer = support.pair()
    return sock, peer, byte_span.new(16)
  end

  it("of the receiving side makes every receive raise ESHUTDOWN", with_loop(function()
    local sock, peer, buf = connected()
    assert.is_nil(sock:shutdown("receive"))
    peer:send("late")
    assert_method_raises("ESHUTDOWN", sock, "receive", buf)
    assert_method_raises("ESHUTDOWN", sock, "receive_from", buf)
    assert_method_raises("ESHUTDOWN", sock, "receive_string")
    assert_method_raises("ESHUTDOWN", sock, "try_receive", buf)
    assert_method_raises("ESHUTDOWN", sock, "try_receive_from", buf)
    sock:send("the other side works")
    assert.equal("the other side works", (peer:receive_string()))
  end))

  it("of the sending side makes every send raise EPIPE, and no signal comes", with_loop(function()
    local sock, peer = connected()
    sock:shutdown("send")
    assert_method_raises("EPIPE", sock, "send", "x")
    assert_method_raises("EPIPE", sock, "send_to", "x", "127.0.0.1", peer.local_port)
    assert_method_raises("EPIPE", sock, "try_send", "x")
    assert_method_raises("EPIPE", sock, "try_send_to", "x", "127.0.0.1", peer.local_port)
    peer:send("the other side works")
    assert.equal("the other side works", (sock:receive_string()))
  end))

  it("of both sides does both", with_loop(function()
    local sock, _, buf = connected()
    sock:shutdown("both")
    assert_method_raises("ESHUTDOWN", sock, "receive", buf)
    assert_method_raises("EPIPE", sock, "send", "x")
  end))

  it("adds up", with_loop(function()
    local sock, _, buf = connected()
    sock:shutdown("receive")
    sock:shutdown("send")
    sock:shutdown("receive")
    assert_method_raises("ESHUTDOWN", sock, "receive", buf)
    assert_method_raises("EPIPE", sock, "send", "x")
  end))

  it("ends all suspended receives with ESHUTDOWN", with_loop(function()
    local sock, _, buf = connected()
    local first, second = suspended(sock, "receive", buf), suspended(sock, "receive_string")
    sock:shutdown("receive")
    assert_ends_with("ESHUTDOWN", first)
    assert_ends_with("ESHUTDOWN", second)
  end))

  it("of the sending side leaves a suspended receive alone", with_loop(function()
    local sock, peer = connected()
    local waiting = suspended(sock, "receive_string")
    sock:shutdown("send")
    peer:send("still")
    local _, text = waiting:join()
    assert.equal("still", text)
  end))

  it("is over after close and open", with_loop(function()
    local sock, peer = connected()
    sock:shutdown("both")
    sock:close()
    sock:connect("127.0.0.1", peer.local_port)
    peer:connect("127.0.0.1", sock.local_port)
    sock:send("again")
    assert.equal("again", (peer:receive_string()))
    peer:send("back")
    assert.equal("back", (sock:receive_string()))
  end))

  for _, side in ipairs { "receive", "send", "both" } do
    it("of " .. side .. " leaves the event loop idle", on_main(function()
      local sock, peer, buf = connected()
      local waiting = suspended(sock, "receive", buf) -- so that the descriptor is in the loop
      sock:shutdown(side)
      peer:send("late")
      pcall(peer.send, peer, "later")
      assertions.assert_sleeps(function() fiber.sleep(0.2) end)
      sock:close()
      waiting:join()
    end))

    it("of " .. side .. " raises ENOTCONN on a socket that is not connected, and changes nothing", on_main(function()
      local sock <close>, port = bound()
      local other <close>, other_port = bound()
      assert_method_raises("ENOTCONN", sock, "shutdown", side)
      sock:send_to("out", "127.0.0.1", other_port)
      assert.equal("out", (other:receive_string()))
      local waiting = suspended(sock, "receive_string")
      assertions.assert_sleeps(function() fiber.sleep(0.2) end)
      other:send_to("in", "127.0.0.1", port)
      local _, text = waiting:join()
      assert.equal("in", text)
    end))
  end

  it("refuses what is no side", with_loop(function()
    local sock = connected()
    for _, value in ipairs { "read", "", 0, true, {} } do assert_bad_method_argument(1, sock, "shutdown", value) end
    assert_bad_method_argument(1, sock, "shutdown")
  end))
end)

describe("cancel", function()
  it("ends every pending operation with ECANCELED, each exactly once", with_loop(function()
    local sock <close> = bound()
    local ended = {}
    local fibers = {}
    for i = 1, 5 do
      fibers[i] = fiber.spawn(function()
        local err = error_of(sock.receive_string, sock)
        ended[#ended + 1] = i
        assert.equal(ip.error.ECANCELED, err)
        assert.equal("receive_string", err.operation)
      end)
    end
    support.wait_until(function() return fibers[5].status == "waiting" end)
    assert.is_nil(sock:cancel())
    sock:cancel()
    for _, waiting in ipairs(fibers) do waiting:join() end
    assert.same({ 1, 2, 3, 4, 5 }, ended)
  end))

  it("leaves the socket usable, and what has arrived in it", with_loop(function()
    local sock <close>, port = bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    local waiting = suspended(sock, "receive_string")
    client:send("kept")
    sock:cancel()
    assert_ends_with("ECANCELED", waiting)
    assert.equal("kept", (sock:receive_string()))
    client:send("next")
    assert.equal("next", (sock:receive_string()))
  end))

  it("does not concern what begins afterwards", with_loop(function()
    local sock <close>, port = bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    sock:cancel()
    local waiting = suspended(sock, "receive_string")
    client:send("later")
    local _, text = waiting:join()
    assert.equal("later", text)
  end))

  it("lets a fiber that it ended wait again at once", with_loop(function()
    local sock <close>, port = bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    local waiting = fiber.spawn(function()
      local err = error_of(sock.receive_string, sock)
      return err, (sock:receive_string())
    end)
    support.wait_until(function() return waiting.status == "waiting" end)
    sock:cancel()
    fiber.yield()
    client:send("second try")
    local err, text = waiting:join()
    assert.equal(ip.error.ECANCELED, err)
    assert.equal("second try", text)
  end))

  it("does not concern other sockets", with_loop(function()
    local sock <close> = bound()
    local other <close>, port = bound()
    local waiting = suspended(other, "receive_string")
    sock:cancel()
    sock:send_to("x", "127.0.0.1", port)
    local _, text = waiting:join()
    assert.equal("x", text)
  end))
end)

describe("close", function()
  it("is idempotent and gives the descriptor back at once", with_loop(function()
    local before = support.descriptors()
    local sock = bound()
    sock:close()
    assert.equal(before, support.descriptors())
    sock:close()
    assert.is_false(sock.is_open)
  end))

  it("gives the descriptor back at once also where the loop has watched it", with_loop(function()
    local before = support.descriptors()
    local sock = bound()
    local waiting = suspended(sock, "receive_string")
    sock:close()
    assert.equal(before, support.descriptors())
    waiting:join()
  end))

  it("ends every pending operation with ECANCELED", with_loop(function()
    local sock = bound()
    local buf = byte_span.new(8)
    local waiting = {
      suspended(sock, "receive", buf), suspended(sock, "receive_from", buf), suspended(sock, "receive_string"),
    }
    sock:close()
    for _, each in ipairs(waiting) do assert_ends_with("ECANCELED", each) end
  end))

  it("happens at the end of a block that declares the socket <close>", with_loop(function()
    local kept
    do
      local sock <close> = bound()
      kept = sock
      assert.is_true(kept.is_open)
    end
    assert.is_false(kept.is_open)
  end))

  it("happens when an error leaves such a block", with_loop(function()
    local kept
    pcall(function()
      local sock <close> = bound()
      kept = sock
      error("out")
    end)
    assert.is_false(kept.is_open)
  end))

  it("lets the port be taken again at once", with_loop(function()
    local sock, port = bound()
    for _ = 1, 10 do
      sock:close()
      sock:bind("127.0.0.1", port)
    end
    assert.equal(port, sock.local_port)
    sock:close()
  end))

  it("and open again in the same turn mix up no descriptors", with_loop(function()
    local client <close> = bound()
    local sock = new_socket()
    for i = 1, 200 do
      sock:bind("127.0.0.1", 0)
      local canceled = suspended(sock, "receive_string")
      sock:close()
      sock:bind("127.0.0.1", 0) -- as a rule with the descriptor's number of before
      local waiting = suspended(sock, "receive_string")
      client:send_to("round " .. i, "127.0.0.1", sock.local_port)
      local _, text = waiting:join()
      assert.equal("round " .. i, text)
      assert_ends_with("ECANCELED", canceled)
      sock:close()
    end
  end))

  it("forgets peer, addresses and connection", with_loop(function()
    local sock, peer = support.pair()
    sock:close()
    sock:open("v4")
    assert.equal(0, sock.local_port)
    assert.equal("0.0.0.0", tostring(sock.local_address))
    assert_raises("ENOTCONN", "remote_address", get, sock, "remote_address")
    assert_method_raises("EDESTADDRREQ", sock, "send", "x")
    assert.is_true(peer.is_open)
  end))

  it("keeps the timeouts, which are the object's", with_loop(function()
    local sock <close> = bound()
    sock.receive_timeout = 0
    sock:close()
    sock:bind("127.0.0.1", 0)
    assert.equal(0, sock.receive_timeout)
    assert_method_raises("ETIMEDOUT", sock, "receive_string")
  end))
end)

describe("a socket that nobody refers to", function()
  it("is closed by the collector", with_loop(function()
    local before = support.descriptors()
    local open = core.fiber.statistics().sockets
    for _ = 1, 10 do bound() end
    collectgarbage()
    collectgarbage()
    assert.equal(open, core.fiber.statistics().sockets)
    assert.equal(before, support.descriptors())
  end))

  it("is closed by the collector also after the loop has watched it", with_loop(function()
    local before = support.descriptors()
    for _ = 1, 10 do
      local sock = bound()
      sock.receive_timeout = 0.001
      pcall(sock.receive_string, sock)
    end
    collectgarbage()
    collectgarbage()
    assert.equal(before, support.descriptors())
  end))

  it("is alive while an operation on it is suspended", with_loop(function()
    local client <close> = bound()
    local sock, port = bound()
    local waiting = suspended(sock, "receive_string")
    local watch = setmetatable({ sock }, { __mode = "v" })
    sock = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    client:send_to("alive", "127.0.0.1", port)
    local _, text = waiting:join()
    assert.equal("alive", text)
    collectgarbage()
    collectgarbage()
    assert.is_nil(watch[1])
  end))
end)
