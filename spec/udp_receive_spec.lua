-- What receive, receive_from, receive_string, try_receive and try_receive_from promise.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local platform = require "spec.support.platform"
local support = require "spec.support"

local byte_span, fiber, message_flag = ip.byte_span, ip.fiber, ip.message_flag
local bound, pair = support.bound, support.pair
local with_loop, on_main = support.with_loop, support.on_main
local assert_method_raises = assertions.assert_method_raises
local assert_bad_method_argument, assert_again = assertions.assert_bad_method_argument, assertions.assert_again
local assert_empty = assertions.assert_empty
local it_v6 = platform.it_v6
local suspended = support.suspended
local receiving = { "receive", "receive_from", "receive_string", "try_receive", "try_receive_from" }

-- Calls a receiving method with a buffer, or a size, of `size`; gives the text and truncated.
local function take(sock, method, size, flags)
  if method == "receive_string" then
    local text, _, _, truncated = sock:receive_string(size, flags)
    return text, truncated
  end
  local buf = byte_span.new(size)
  local n, second, _, fourth = sock[method](sock, buf, flags)
  local truncated = fourth
  if not method:find("from") then truncated = second end
  return buf:sub(1, n), truncated
end

for _, method in ipairs(receiving) do
  describe(method, function()
    it("takes one datagram, whole", with_loop(function()
      local a, b = pair()
      a:send("first")
      a:send("second")
      local text, truncated = take(b, method, 64)
      assert.equal("first", text)
      assert.is_false(truncated)
      assert.equal("second", (take(b, method, 64)))
      assert_empty(b)
    end))

    it("tells truncation, and takes the rest away", with_loop(function()
      local a, b = pair()
      a:send("longer than that")
      a:send("next")
      local text, truncated = take(b, method, 6)
      assert.equal("longer", text)
      assert.is_true(truncated)
      text, truncated = take(b, method, 4)
      assert.equal("next", text)
      assert.is_false(truncated)
      assert_empty(b)
    end))

    it("succeeds with an empty datagram", with_loop(function()
      local a, b = pair()
      a:send("")
      local text, truncated = take(b, method, 64)
      assert.equal("", text)
      assert.is_false(truncated)
      assert_empty(b)
    end))

    it("consumes a datagram with an empty buffer", with_loop(function()
      local a, b = pair()
      a:send("gone")
      a:send("")
      a:send("next")
      local text, truncated = take(b, method, 0)
      assert.equal("", text)
      assert.is_true(truncated)
      text, truncated = take(b, method, 0)
      assert.equal("", text)
      assert.is_false(truncated)
      assert.equal("next", (take(b, method, 64)))
    end))

    it("leaves the datagram when it peeks", with_loop(function()
      local a, b = pair()
      a:send("look")
      local text, truncated = take(b, method, 2, message_flag.peek)
      assert.equal("lo", text)
      assert.is_true(truncated)
      text, truncated = take(b, method, 64, message_flag.peek)
      assert.equal("look", text)
      assert.is_false(truncated)
      assert.equal("look", (take(b, method, 64)))
      assert_empty(b)
    end))

    it("leaves the datagram when it peeks with an empty buffer", with_loop(function()
      local a, b = pair()
      a:send("stays")
      local text, truncated = take(b, method, 0, message_flag.peek)
      assert.equal("", text)
      assert.is_true(truncated)
      assert.equal("stays", (take(b, method, 64)))
    end))

    it("knows the flags, and refuses what means nothing when receiving", with_loop(function()
      local a, b = pair()
      a:send("kept")
      local first = method == "receive_string" and 64 or byte_span.new(64)
      for _, name in ipairs { "do_not_route", "out_of_band", "end_of_record", "more", "confirm" } do
        if message_flag[name] ~= nil then assert_method_raises("ENOTSUP", b, method, first, message_flag[name]) end
      end
      assert_method_raises("ENOTSUP", b, method, first, message_flag.peek | message_flag.out_of_band)
      for _, flags in ipairs { -1, 0x40, 0x20, 0x100, 1 << 30, 1 << 40, 1.5, "peek", true, {} } do
        assert_bad_method_argument(2, b, method, first, flags)
      end
      assert.equal("kept", (take(b, method, 64, 0)))
    end))

    it("reports once what the network said, and then works", with_loop(function()
      local sock <close> = ip.udp.connect("127.0.0.1", support.dead_port())
      sock.receive_timeout = 0
      local first = method == "receive_string" and 64 or byte_span.new(64)
      for _ = 1, 2 do
        assert.equal(1, sock:send("x"))
        assert_method_raises("ECONNREFUSED", sock, method, first)
        assert_empty(sock)
      end
    end))
  end)
end

for _, method in ipairs { "receive", "receive_from", "try_receive", "try_receive_from" } do
  describe(method, function()
    it("writes into the span's own bytes only", with_loop(function()
      local a, b = pair()
      local whole = byte_span.append("..........")
      a:send("abcdefgh")
      b[method](b, whole:slice(3, 6))
      assert.equal("..abcd....", whole:sub(1, 10))
      a:send("xy")
      b[method](b, whole)
      assert.equal("xyabcd....", whole:sub(1, 10))
    end))

    it("refuses what is no span", with_loop(function()
      local _, b = pair()
      for _, value in ipairs { "text", 64, true, {}, ip.address.any_v4() } do
        assert_bad_method_argument(1, b, method, value)
      end
      assert_bad_method_argument(1, b, method)
    end))
  end)
end

for _, method in ipairs { "receive", "receive_from", "receive_string" } do
  local first = method == "receive_string" and 64 or byte_span.new(64)

  describe(method, function()
    it("waits until a datagram comes, while other fibers run", with_loop(function()
      local a, b = pair()
      local waiting = suspended(b, method, first)
      a:send("late")
      local ok, result = waiting:join()
      assert.is_true(ok)
      assert.equal(method == "receive_string" and "late" or 4, result)
    end))

    it("waits on the main thread", on_main(function()
      local a, b = pair()
      local sender = fiber.spawn(function()
        fiber.yield()
        a:send("late")
      end)
      assert.equal("late", (take(b, method, 64)))
      sender:join()
    end))

    it("waits with an empty buffer, and consumes", with_loop(function()
      local a, b = pair()
      local waiting = suspended(b, method, method == "receive_string" and 0 or byte_span.new(0))
      a:send("gone")
      assert.is_true((waiting:join()))
      assert_empty(b)
    end))

    it("waits when it peeks, and leaves the datagram", with_loop(function()
      local a, b = pair()
      local waiting = suspended(b, method, first, message_flag.peek)
      a:send("stays")
      assert.is_true((waiting:join()))
      assert.equal("stays", (b:receive_string()))
    end))

    it("tries once with a timeout of 0", with_loop(function()
      local a, b = pair()
      b.receive_timeout = 0
      assert_method_raises("ETIMEDOUT", b, method, first)
      a:send("there")
      assert.equal("there", (take(b, method, 64)))
      assert_method_raises("ETIMEDOUT", b, method, first)
    end))

    it("raises ETIMEDOUT when the time is over, and swallows nothing", with_loop(function()
      local a, b = pair()
      b.receive_timeout = 0.02
      local before = fiber.now()
      assert_method_raises("ETIMEDOUT", b, method, first)
      assert.is_true(fiber.now() - before >= 0.02)
      a:send("after")
      assert.equal("after", (take(b, method, 64)))
    end))

    it("has all of its time for itself in each call", with_loop(function()
      local a, b = pair()
      b.receive_timeout = 5
      for i = 1, 3 do
        local waiting = suspended(b, method, first)
        a:send("x" .. i)
        assert.is_true((waiting:join()))
      end
    end))

    it("with a timeout returns a datagram that was there before the call", with_loop(function()
      local a, b = pair()
      b.receive_timeout = 0.001
      for _ = 1, 6 do pcall(b[method], b, first) end -- nothing came for a while
      a:send("there")
      local waiting = fiber.spawn(pcall, b[method], b, first)
      local busy = fiber.spawn(function()
        local before = fiber.now()
        while fiber.now() - before < 0.01 do math.abs(0) end
      end)
      assert.is_true((waiting:join()))
      busy:join()
    end))

    it("reports a refusal to a suspended call, and then works", with_loop(function()
      local port = support.dead_port()
      local sock <close> = ip.udp.connect("127.0.0.1", port)
      local waiting = suspended(sock, method, first)
      sock:send("x")
      local _, err = waiting:join()
      assert.equal(ip.error.ECONNREFUSED, err)
      assert.equal(method, err.operation)
      local peer <close> = ip.udp.bind("127.0.0.1", port)
      local again = suspended(sock, method, first)
      peer:send_to("alive", "127.0.0.1", sock.local_port)
      assert.is_true((again:join()))
    end))
  end)
end

describe("receive_from", function()
  it("tells who sent it", with_loop(function()
    local server <close>, port = bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    client:send("hello")
    local n, address, from, truncated = server:receive_from(byte_span.new(16))
    assert.equal(5, n)
    assert.equal(client.local_address, address)
    assert.equal(client.local_port, from)
    assert.is_false(truncated)
    client:send("again")
    n, address, from, truncated = server:try_receive_from(byte_span.new(2))
    assert.equal(2, n)
    assert.equal(client.local_address, address)
    assert.equal(client.local_port, from)
    assert.is_true(truncated)
  end))

  it_v6("tells who sent it over v6", with_loop(function()
    local server <close>, port = bound("v6")
    local client <close> = ip.udp.connect("::1", port)
    client:send("hello")
    local _, address, from = server:receive_from(byte_span.new(16))
    assert.equal("::1", tostring(address))
    assert.equal(client.local_port, from)
  end))

  it("returns the same address object for the same peer", with_loop(function()
    local server <close>, port = bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    local sibling <close> = ip.udp.connect("127.0.0.1", port) -- the same address, another port
    local buf = byte_span.new(4)
    client:send("1")
    sibling:send("2")
    client:send("3")
    local _, first, first_port = server:receive_from(buf)
    local _, second, second_port = server:try_receive_from(buf)
    local _, third, third_port = server:receive_string()
    assert.is_true(rawequal(first, second))
    assert.is_true(rawequal(first, third))
    assert.equal(client.local_port, first_port)
    assert.equal(sibling.local_port, second_port)
    assert.equal(client.local_port, third_port)
  end))

  it("keeps the addresses of several peers apart", with_loop(function()
    local server <close> = ip.udp.bind("0.0.0.0", 0)
    local port = server.local_port
    local clients = {}
    for i = 1, 3 do
      clients[i] = ip.udp.connect("127.0.0.1", port, { local_address = "127.0.0." .. i })
    end
    local buf = byte_span.new(4)
    local seen = {}
    for round = 1, 3 do
      for i, client in ipairs(clients) do
        client:send("x")
        local _, address = server:receive_from(buf)
        assert.equal("127.0.0." .. i, tostring(address))
        seen[i] = seen[i] or address
        assert.equal(seen[i], address, "round " .. round)
      end
    end
  end))
end)

describe("receive_string", function()
  it("takes the largest datagram by default", with_loop(function()
    local a, b = pair()
    local large = ("0123456"):rep(9358) .. "x"
    assert.equal(65507, #large)
    a:send(large)
    local text, address, port, truncated = b:receive_string()
    assert.is_true(text == large)
    assert.equal(a.local_address, address)
    assert.equal(a.local_port, port)
    assert.is_false(truncated)
  end))

  it("takes any size from 0 up, and nil for the default", with_loop(function()
    local a, b = pair()
    for _, size in ipairs { 5, 6, 65535, 65536, math.maxinteger } do
      a:send("hello")
      assert.equal("hello", (b:receive_string(size)))
    end
    a:send("hello")
    assert.equal("hello", (b:receive_string(nil, message_flag.peek)))
    assert.equal("hello", (b:receive_string(nil, nil)))
  end))

  it("refuses what is no size", with_loop(function()
    local _, b = pair()
    for _, size in ipairs { -1, 1.5, "8", true, {}, math.mininteger } do
      assert_bad_method_argument(1, b, "receive_string", size)
    end
  end))

  it("does not mix up the texts of several waiting fibers", with_loop(function()
    local a, b = pair()
    local waiting = {}
    for i = 1, 5 do waiting[i] = suspended(b, "receive_string") end
    for i = 1, 5 do a:send(("%d"):format(i):rep(i * 1000)) end
    for i = 1, 5 do
      local _, text = waiting[i]:join()
      assert.equal(("%d"):format(i):rep(i * 1000), text)
    end
  end))
end)

for _, method in ipairs { "try_receive", "try_receive_from" } do
  describe(method, function()
    it("gives nil and EAGAIN when nothing is there", with_loop(function()
      local _, b = pair()
      assert_again(method, b[method](b, byte_span.new(4)))
      assert_again(method, b[method](b, byte_span.new(0), message_flag.peek))
    end))

    it("leaves the datagram to those who wait already", with_loop(function()
      local a, b = pair()
      local waiting = suspended(b, "receive_string")
      a:send("for the one who waits")
      assert_again(method, b[method](b, byte_span.new(64)))
      local _, text = waiting:join()
      assert.equal("for the one who waits", text)
    end))

    it("works in a place where nothing can suspend", on_main(function()
      local a, b = pair()
      a:send("in a comparator")
      local n
      table.sort({ 1, 2 }, function(x, y)
        n = n or b[method](b, byte_span.new(64))
        return x < y
      end)
      assert.equal(15, n)
    end))
  end)
end
