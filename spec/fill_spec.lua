-- What send_with and send_to_with promise.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local blocked = require "spec.support.blocked_programs"
local memory = require "spec.support.memory"

local byte_span, fiber = ip.byte_span, ip.fiber
local bound, pair, error_of = support.bound, support.pair, support.error_of
local with_loop, on_main = support.with_loop, support.on_main
local assert_bad_argument, assert_message = assertions.assert_bad_argument, assertions.assert_message
local assert_raises, it_blocked = assertions.assert_raises, blocked.it_blocked

local function write(text)
  return function(span) span:copy(text) end
end

-- Both, as functions from (sock, length, fill); `to` says where a send_to_with goes.
local to
local senders = {
  send_with = function(sock, length, fill) return sock:send_with(length, fill) end,
  send_to_with = function(sock, length, fill) return sock:send_to_with(length, fill, "127.0.0.1", to) end,
}

local function connected()
  local sock, other = pair()
  to = other.local_port
  return sock, other
end

-- What the programs begin with; see spec/support/blocked_link.lua. send() is the call `name`.
local prelude = [[
  local ip = require "ip"
  local fiber = ip.fiber
  local link = require "spec.support.blocked_link"
  local sink, out = link.sink, link.out
  local calls = 0
  local function fill(span)
    calls = calls + 1
    span:copy("last")
  end
  local senders = {
    send_with = function() return out:send_with(4, fill) end,
    send_to_with = function() return out:send_to_with(4, fill, "127.0.0.1", sink.local_port) end,
  }
]]

local function passes(name, body)
  local choice = ("local name = %q\nlocal send = senders[name]\n"):format(name)
  return blocked.passes(prelude .. choice .. "fiber.run(function()\n" .. body .. "\nend)")
end

for name, send in pairs(senders) do
  describe(name, function()
    it("sends exactly the bytes that the function wrote, in a span of exactly that length", with_loop(function()
      local sock, other = connected()
      for _, length in ipairs { 0, 1, 1472, 2048, 2049, 65507 } do
        local text = ("ab"):rep(length // 2 + 1):sub(1, length)
        local n = send(sock, length, function(span)
          assert.equal(length, #span)
          span:copy(text)
        end)
        assert.equal(length, n)
        assert.equal(text, (other:receive_string()))
      end
      sock:close()
      other:close()
    end))

    it("sends zeros where the function wrote nothing, and never an earlier datagram's bytes", with_loop(function()
      local sock, other = connected()
      send(sock, 6, write("secret"))
      send(sock, 6, write("ab"))
      other:receive_string()
      assert.equal("ab\0\0\0\0", (other:receive_string()))
      sock:close()
      other:close()
    end))

    it("allocates nothing per datagram", with_loop(function()
      local sock, other = connected()
      local sink = byte_span.new(8)
      local fill = write("payload")
      fiber.yield() -- grows the stacks that a suspension needs
      assert.equal(0, memory.garbage_of(function()
        send(sock, 7, fill)
        other:receive(sink)
      end, 40, 20))
      sock:close()
      other:close()
    end))

    it("passes on an error of the function, and nothing is sent", with_loop(function()
      local sock, other = connected()
      assert.equal("mine", error_of(send, sock, 4, function() error("mine", 0) end))
      send(sock, 4, write("next"))
      assert.equal("next", (other:receive_string()))
      assertions.assert_empty(other)
      sock:close()
      other:close()
    end))

    it("lets the function wait, and send on the same socket", with_loop(function()
      local sock, other = connected()
      send(sock, 5, function(outer)
        outer:copy("outer")
        send(sock, 5, function(inner)
          inner:copy("inner")
          fiber.sleep(0.001)
          send(sock, 7, write("deepest"))
        end)
        assert.equal("outer", tostring(outer))
      end)
      for _, text in ipairs { "deepest", "inner", "outer" } do
        assert.equal(text, (other:receive_string()))
      end
      sock:close()
      other:close()
    end))

    it("keeps apart what several fibers write at the same time", with_loop(function()
      local sock, other = connected()
      local fibers = {}
      for i = 1, 40 do -- more than are kept
        fibers[i] = fiber.spawn(send, sock, 2, function(span)
          span:copy(("%02d"):format(i))
          fiber.yield()
        end)
      end
      for i = 1, 40 do fibers[i]:join() end
      for i = 1, 40 do assert.equal(("%02d"):format(i), (other:receive_string())) end
      sock:close()
      other:close()
    end))

    it("sends a datagram's own length whatever becomes of a span that was kept", with_loop(function()
      local sock, other = connected()
      local kept
      send(sock, 4, function(span)
        span:copy("abcd")
        span:resize(2) -- its own affair
        kept = span
      end)
      assert.equal("abcd", (other:receive_string()))
      send(sock, 3, function(span)
        span:copy("xyz")
        kept:resize(1000)
      end)
      assert.equal("xyz", (other:receive_string()))
      kept:resize(0)
      send(sock, 3, write("end"))
      assert.equal("end", (other:receive_string()))
      sock:close()
      other:close()
    end))

    it_blocked("waits while the system's buffer is full, and calls the function once", passes(name, [[
      local sending = link.waiting(send)
      assert(out.send_queue_count == 1 and out.send_queue_size == 4)
      link.unblock()
      link.skip()
      assert(sink:receive_string() == "last")
      local ok, n = sending:join()
      assert(ok and n == 4 and calls == 1)
    ]]))

    it_blocked("is cancelled while it waits, under its own name", passes(name, [[
      local sending = link.waiting(send)
      out:cancel()
      local ok, err = sending:join()
      assert(not ok and err == ip.error.ECANCELED and err.operation == name, err)
      out.send_timeout = 0.01
      ok, err = pcall(send)
      assert(not ok and err == ip.error.ETIMEDOUT and err.operation == name, err)
    ]]))

    it("raises EBADF on a socket that is not open, before it looks at its arguments", with_loop(function()
      local sock = bound()
      sock:close()
      assert_raises("EBADF", name, sock[name], sock, "x")
    end))

    it("raises EBADF when the function closes the socket; EPIPE after shutdown, not calling it", with_loop(function()
      local sock, other = connected()
      assert_raises("EBADF", name, send, sock, 1, function() sock:close() end)
      sock = ip.udp.connect("127.0.0.1", to)
      sock:shutdown("send")
      assert_raises("EPIPE", name, send, sock, 1, function() error("called") end)
      sock:close()
      other:close()
    end))

    it("raises what the system says: a datagram that is too large", with_loop(function()
      local sock, other = connected()
      assert_raises("EMSGSIZE", name, send, sock, 65535, function() end)
      sock:close()
      other:close()
    end))

    it("raises an interruption before it calls the function", with_loop(function()
      local sock, other = connected()
      local called = false
      local sending
      sending = fiber.spawn(function()
        sending:interrupt()
        send(sock, 1, function() called = true end)
      end)
      sending:join()
      assert.is_true(sending.interruption_caught)
      assert.is_false(called)
      sock:close()
      other:close()
    end))

    it("refuses a length or a function that is none", with_loop(function()
      local sock, other = connected()
      local function refuse(position, text, ...)
        assert_bad_argument(position, ("to '%s' (%s"):format(name, text), sock[name], sock, ...)
      end
      local no = function() error("called") end
      refuse(1, "-1 is outside 0..65535", -1, no, "127.0.0.1", 1)
      refuse(1, "65536 is outside 0..65535", 65536, no, "127.0.0.1", 1)
      refuse(1, "integer expected, got number", 1.5, no, "127.0.0.1", 1)
      refuse(1, "integer expected, got string", "1", no, "127.0.0.1", 1)
      refuse(1, "integer expected, got no value")
      refuse(2, "function expected, got string", 1, "text", "127.0.0.1", 1)
      if name == "send_to_with" then
        refuse(3, "", 1, no, "127.0.0.256", 1)
        refuse(3, "ip.address or string expected, got number", 1, no, 17, 1)
        refuse(3, "ip.address or string expected, got no value", 1, no)
        refuse(4, "integer expected, got string", 1, no, "127.0.0.1", "53")
        refuse(4, "65536 is outside 0..65535", 1, no, "127.0.0.1", 65536)
      end
      sock:close()
      other:close()
    end))

    it("names a bad self", function()
      assert_message("calling '" .. name .. "' on bad self", ip.udp.socket.new()[name], {})
    end)

    it("refuses to wait where Lua cannot suspend, before it calls the function", with_loop(function()
      local sock, other = connected()
      table.sort({ 1, 2 }, function()
        assert_message("cannot wait in " .. name, send, sock, 1, function() error("called") end)
        return false
      end)
      sock:close()
      other:close()
    end))

    it("works on the main thread", on_main(function()
      local sock, other = connected()
      send(sock, 4, function(span)
        fiber.sleep(0.001)
        span:copy("main")
      end)
      assert.equal("main", (other:receive_string()))
      sock:close()
      other:close()
    end))
  end)
end

describe("send_with", function()
  it("raises EDESTADDRREQ on a socket without a peer, without calling the function", with_loop(function()
    local sock = bound()
    assert_raises("EDESTADDRREQ", "send_with", sock.send_with, sock, 1, function() error("called") end)
    sock:close()
  end))
end)

describe("send_to_with", function()
  it("takes an address as a value, and sends anywhere", with_loop(function()
    local sock = bound()
    local other, port = bound()
    sock:send_to_with(2, write("hi"), ip.address.loopback_v4(), port)
    local text, _, from = other:receive_string()
    assert.equal("hi", text)
    assert.equal(sock.local_port, from)
    assert_raises("EINVAL", nil, sock.send_to_with, sock, 0, write(""), "127.0.0.1", 0)
    sock:close()
    other:close()
  end))
end)
