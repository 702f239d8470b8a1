-- What send_with and send_to_with promise.
local ip = require "ip"
local support = require "spec.support"
local namespace = require "spec.support.namespace"

local byte_span, fiber = ip.byte_span, ip.fiber
local bound, pair, error_of = support.bound, support.pair, support.error_of
local with_loop, on_main = support.with_loop, support.on_main

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

-- Runs in a network of its own, whose road takes a second for a datagram; `out` is connected to `sink`, and its buffer
-- is full of `ahead` datagrams.
local prelude = [[
  local ip = require "ip"
  local fiber = ip.fiber
  local name = arg[1]
  local sink = ip.udp.bind("127.0.0.1", 0)
  local out = ip.udp.connect("127.0.0.1", sink.local_port, { send_buffer_size = 1 })
  local ahead = 0
  while out:try_send(("."):rep(1000)) do ahead = ahead + 1 end
  local calls = 0
  local function fill(span)
    calls = calls + 1
    span:copy("last")
  end
  local function send()
    if name == "send_with" then return out:send_with(4, fill) end
    return out:send_to_with(4, fill, "127.0.0.1", sink.local_port)
  end
  local sending = fiber.spawn(pcall, send)
]]

local function slow(name, body)
  return function()
    if not namespace.can_be_slow() then
      pending("needs the right to make network namespaces")
      return
    end
    local network <close> = assert(namespace.slow())
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(prelude, body, "\nprint('passed')")
    file:close()
    local interpreter = os.getenv("LUA_IP_LUA") or "lua5.4"
    local pipe = assert(io.popen(network:program(("%s %s %s"):format(interpreter, path, name)) .. " 2>&1"))
    local output = pipe:read("a")
    pipe:close()
    os.remove(path)
    assert.equal("passed\n", output)
  end
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
      collectgarbage()
      collectgarbage("stop")
      local before
      for i = 1, 60 do
        send(sock, 7, fill)
        other:receive(sink)
        if i == 20 then
          fiber.yield() -- which has grown the stacks that giving way needs
          before = collectgarbage("count")
        end
      end
      local after = collectgarbage("count")
      collectgarbage("restart")
      assert.equal(0, after - before)
      sock:close()
      other:close()
    end))

    it("passes on an error of the function, and nothing is sent", with_loop(function()
      local sock, other = connected()
      assert.equal("mine", error_of(send, sock, 4, function() error("mine", 0) end))
      send(sock, 4, write("next"))
      assert.equal("next", (other:receive_string()))
      assert.is_nil(other:try_receive(byte_span.new(1)))
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

    it("waits while the system's buffer is full, and calls the function once", slow(name, [[
      fiber.run(function()
        while sending.status ~= "waiting" do fiber.yield() end
        assert(out.send_queue_count == 1 and out.send_queue_size == 4)
        assert(os.execute("env -u LD_PRELOAD tc qdisc change dev lo root tbf rate 100mbit burst 20000 limit 1000000"))
        for _ = 1, ahead do sink:receive_string() end
        assert(sink:receive_string() == "last")
        local ok, n = sending:join()
        assert(ok and n == 4 and calls == 1)
      end)
    ]]))

    it("is cancelled while it waits, under its own name", slow(name, [[
      fiber.run(function()
        while sending.status ~= "waiting" do fiber.yield() end
        out:cancel()
        local ok, err = sending:join()
        assert(not ok and err == ip.error.ECANCELED and err.operation == name, err)
        out.send_timeout = 0.01
        ok, err = pcall(send)
        assert(not ok and err == ip.error.ETIMEDOUT and err.operation == name, err)
      end)
    ]]))

    it("raises EBADF on a socket that is not open, before it looks at its arguments", with_loop(function()
      local sock = bound()
      sock:close()
      local err = error_of(sock[name], sock, "x")
      assert.equal(ip.error.EBADF, err)
      assert.equal(name, err.operation)
    end))

    it("raises EBADF when the function closes the socket; EPIPE after shutdown, not calling it", with_loop(function()
      local sock, other = connected()
      local err = error_of(send, sock, 1, function() sock:close() end)
      assert.equal(ip.error.EBADF, err)
      assert.equal(name, err.operation)
      sock = ip.udp.connect("127.0.0.1", to)
      sock:shutdown("send")
      err = error_of(send, sock, 1, function() error("called") end)
      assert.equal(ip.error.EPIPE, err)
      assert.equal(name, err.operation)
      sock:close()
      other:close()
    end))

    it("raises what the system says: a datagram that is too large", with_loop(function()
      local sock, other = connected()
      local err = error_of(send, sock, 65535, function() end)
      assert.equal(ip.error.EMSGSIZE, err)
      assert.equal(name, err.operation)
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
        local message = error_of(sock[name], sock, ...)
        assert.is_string(message)
        local start = ("bad argument #%d to '%s' ("):format(position, name)
        assert.is_truthy(message:find(start .. text, 1, true), message)
      end
      local no = function() error("called") end
      refuse(1, "-1 is outside 0..65535", -1, no, "127.0.0.1", 1)
      refuse(1, "65536 is outside 0..65535", 65536, no, "127.0.0.1", 1)
      refuse(1, "number has no integer representation", 1.5, no, "127.0.0.1", 1)
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
      local message = error_of(ip.udp.socket.new()[name], {})
      assert.is_truthy(message:find("calling '" .. name .. "' on bad self", 1, true), message)
    end)

    it("refuses to wait where Lua cannot suspend, before it calls the function", with_loop(function()
      local sock, other = connected()
      local message
      table.sort({ 1, 2 }, function()
        message = error_of(send, sock, 1, function() error("called") end)
        return false
      end)
      assert.is_truthy(message:find("cannot wait in " .. name, 1, true), message)
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
    local err = error_of(sock.send_with, sock, 1, function() error("called") end)
    assert.equal(ip.error.EDESTADDRREQ, err)
    assert.equal("send_with", err.operation)
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
    assert.equal(ip.error.EINVAL, error_of(sock.send_to_with, sock, 0, write(""), "127.0.0.1", 0))
    sock:close()
    other:close()
  end))
end)
