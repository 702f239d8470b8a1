-- What the transfers of ip.udp.socket promise: receive, receive_from, receive_string, send, send_to and the try_ forms.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local namespace = require "spec.support.namespace"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"
local trace = require "spec.support.trace"

local byte_span, fiber, message_flag = ip.byte_span, ip.fiber, ip.message_flag
local bound, pair, error_of = support.bound, support.pair, support.error_of
local with_loop, on_main = support.with_loop, support.on_main
local call_method, assert_method_raises = assertions.call_method, assertions.assert_method_raises
local assert_bad_method_argument, assert_again = assertions.assert_bad_method_argument, assertions.assert_again
local assert_empty = assertions.assert_empty
local it_v6 = platform.it_v6
local suspended = support.suspended

local receiving = { "receive", "receive_from", "receive_string", "try_receive", "try_receive_from" }
local sending = { "send", "send_to", "try_send", "try_send_to" }

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

-- Calls a sending method of a connected socket.
local function put(sock, method, data, flags)
  if method:find("_to$") then return sock[method](sock, data, sock.remote_address, sock.remote_port, flags) end
  return sock[method](sock, data, flags)
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

for _, method in ipairs(sending) do
  local data_only = not method:find("_to$")

  describe(method, function()
    it("sends a string, a span or a sequence of those as one datagram", with_loop(function()
      local a, b = pair()
      local span = byte_span.append("span")
      assert.equal(6, put(a, method, "string"))
      assert.equal("string", (b:receive_string()))
      assert.equal(4, put(a, method, span))
      assert.equal("span", (b:receive_string()))
      assert.equal(2, put(a, method, span:slice(2, 3)))
      assert.equal("pa", (b:receive_string()))
      assert.equal(11, put(a, method, { "one ", span, "", " ", span:slice(1, 2) }))
      assert.equal("one span sp", (b:receive_string()))
      assert.equal(4, put(a, method, "\0\1\0\255"))
      assert.equal("\0\1\0\255", (b:receive_string()))
      assert_empty(b)
    end))

    it("sends an empty datagram from an empty string, span or sequence", with_loop(function()
      local a, b = pair()
      for _, data in ipairs { "", byte_span.new(0), {}, { "" }, { "", byte_span.new(0), "" } } do
        assert.equal(0, put(a, method, data))
        local text, _, _, truncated = b:receive_string()
        assert.equal("", text)
        assert.is_false(truncated)
      end
      assert_empty(b)
    end))

    it("gathers up to 1024 parts, and raises EMSGSIZE for more", with_loop(function()
      local a, b = pair()
      for _, count in ipairs { 2, 7, 8, 9, 16, 17, 63, 64, 65, 1023, 1024 } do
        local parts, expected = {}, {}
        for i = 1, count do
          expected[i] = ("%03d"):format(i % 1000)
          parts[i] = i % 2 == 0 and expected[i] or byte_span.append(expected[i])
        end
        assert.equal(count * 3, put(a, method, parts))
        assert.equal(table.concat(expected), (b:receive_string()))
      end
      local parts = {}
      for i = 1, 1025 do parts[i] = "x" end
      local err = error_of(put, a, method, parts)
      assert.equal(ip.error.EMSGSIZE, err)
      assert.equal(method, err.operation)
      assert_empty(b)
    end))

    it("refuses what is no data", with_loop(function()
      local a, b = pair()
      local function refused(data)
        if data_only then
          assert_bad_method_argument(1, a, method, data)
        else
          assert_bad_method_argument(1, a, method, data, "127.0.0.1", a.remote_port)
        end
      end
      for _, data in ipairs { 5, 1.5, true, print, ip.address.any_v4(), a } do refused(data) end
      refused(nil)
      refused({ 5 })
      refused({ "a", 5 })
      refused({ {} })
      refused({ "a", { "b" } })
      refused({ "a", nil, "b" })
      refused({ "a", false })
      assert_empty(b)
    end))

    it("does not ask a sequence's metatable", with_loop(function()
      local a, b = pair()
      local forbidden = function() error("a metamethod was called") end
      local data = setmetatable({ "raw" }, { __index = forbidden, __len = forbidden })
      assert.equal(3, put(a, method, data))
      assert.equal("raw", (b:receive_string()))
    end))

    it("sends up to 65507 bytes over v4, and raises EMSGSIZE for more", with_loop(function()
      local a, b = pair()
      assert.equal(65507, put(a, method, ("x"):rep(65507)))
      assert.equal(65507, #b:receive_string())
      assert.equal(65507, put(a, method, { ("x"):rep(65000), byte_span.new(507) }))
      assert.equal(65507, #b:receive_string())
      assert.equal(ip.error.EMSGSIZE, error_of(put, a, method, ("x"):rep(65508)))
      assert.equal(ip.error.EMSGSIZE, error_of(put, a, method, { ("x"):rep(65000), byte_span.new(508) }))
      assert.equal(ip.error.EMSGSIZE, error_of(put, a, method, byte_span.new(1 << 20)))
      assert_empty(b)
    end))

    it_v6("sends up to 65527 bytes over v6, and raises EMSGSIZE for more", with_loop(function()
      local a, b = pair("v6")
      assert.equal(65527, put(a, method, ("x"):rep(65527)))
      assert.equal(65527, #b:receive_string())
      assert.equal(ip.error.EMSGSIZE, error_of(put, a, method, ("x"):rep(65528)))
      assert_empty(b)
    end))

    it("knows the flags, refuses what the system refuses and what means nothing when sending", with_loop(function()
      local a, b = pair()
      local function refused(name, flags)
        local err = error_of(put, a, method, "x", flags)
        assert.equal(ip.error[name], err)
        assert.equal(method, err.operation)
      end
      refused("ENOTSUP", message_flag.peek)
      refused("ENOTSUP", message_flag.peek | message_flag.do_not_route)
      refused("ENOTSUP", message_flag.out_of_band)
      for _, name in ipairs { "do_not_route", "end_of_record", "confirm" } do
        if message_flag[name] ~= nil then
          assert.equal(#name, put(a, method, name, message_flag[name]))
          assert.equal(name, (b:receive_string()))
        end
      end
      local position = data_only and 2 or 4
      for _, flags in ipairs { -1, 0x40, 0x20, 0x4000, 1 << 30, 1 << 40, 1.5, "more", true, {} } do
        if data_only then
          assert_bad_method_argument(position, a, method, "x", flags)
        else
          assert_bad_method_argument(position, a, method, "x", "127.0.0.1", a.remote_port, flags)
        end
      end
      assert_empty(b)
      assert.equal(1, put(a, method, "x", 0))
      assert.equal("x", (b:receive_string()))
    end))

    local it_more = message_flag.more ~= nil and it or pending

    it_more("joins datagrams with more", with_loop(function()
      local a, b = pair()
      local more = message_flag.more
      assert.equal(2, put(a, method, "a ", more))
      assert.equal(6, put(a, method, { "joi", "ned" }, more))
      assert_empty(b)
      assert.equal(9, put(a, method, " datagram"))
      assert.equal("a joined datagram", (b:receive_string()))
      assert_empty(b)
      put(a, method, "single")
      assert.equal("single", (b:receive_string()))
    end))

    it("reports a refusal of an earlier datagram once, without sending", with_loop(function()
      local port = support.dead_port()
      local sock <close> = ip.udp.connect("127.0.0.1", port)
      put(sock, method, "into the void")
      local peer <close> = ip.udp.bind("127.0.0.1", port)
      local err = error_of(put, sock, method, "not sent")
      assert.equal(ip.error.ECONNREFUSED, err)
      assert.equal(method, err.operation)
      assert_empty(peer)
      assert.equal(10, put(sock, method, "sent again"))
      assert.equal("sent again", (peer:receive_string()))
    end))
  end)
end

for _, method in ipairs { "send", "try_send" } do
  describe(method, function()
    it("raises EDESTADDRREQ on a socket that is not connected", with_loop(function()
      local sock <close> = bound()
      assert_method_raises("EDESTADDRREQ", sock, method, "x")
      local open <close> = ip.udp.socket.new()
      open:open("v4")
      assert_method_raises("EDESTADDRREQ", open, method, "x")
    end))
  end)
end

for _, method in ipairs { "send_to", "try_send_to" } do
  describe(method, function()
    it("takes the address as text or as ip.address", with_loop(function()
      local a <close>, b = bound()
      local receiver <close>, port = bound()
      assert.equal(3, a[method](a, "one", "127.0.0.1", port))
      assert.equal(3, a[method](a, "two", receiver.local_address, port))
      assert.equal("one", (receiver:receive_string()))
      local text, _, from = receiver:receive_string()
      assert.equal("two", text)
      assert.equal(b, from)
    end))

    it("sends also elsewhere than to the connected peer", with_loop(function()
      local a, b = pair()
      local other <close>, port = bound()
      a[method](a, "elsewhere", "127.0.0.1", port)
      assert.equal("elsewhere", (other:receive_string()))
      assert_empty(b)
    end))

    it("refuses what is no port", with_loop(function()
      local sock <close> = bound()
      for _, port in ipairs { -1, 65536, 1.5, "80", math.huge, 2 ^ 53, true, {} } do
        assert_bad_method_argument(3, sock, method, "x", "127.0.0.1", port)
      end
      assert_bad_method_argument(3, sock, method, "x", "127.0.0.1")
    end))

    it("refuses what is no address", with_loop(function()
      local sock <close> = bound()
      for _, address in ipairs { "", "localhost", "127.1", "127.0.0.1:80", "::1%nowhere-at-all", 5, true, {} } do
        assert_bad_method_argument(2, sock, method, "x", address, 9)
      end
      assert_bad_method_argument(2, sock, method, "x")
    end))

    it("raises EINVAL for port 0", with_loop(function()
      local sock <close> = bound()
      assert_method_raises("EINVAL", sock, method, "x", "127.0.0.1", 0)
    end))

    it_v6("raises EINVAL for port 0 over v6", with_loop(function()
      local sock <close> = bound("v6")
      assert_method_raises("EINVAL", sock, method, "x", "::1", 0)
    end))

    it("raises EAFNOSUPPORT for a v6 address on a v4 socket", with_loop(function()
      local sock <close> = bound()
      assert_method_raises("EAFNOSUPPORT", sock, method, "x", "::1", 9)
    end))

    it("raises EACCES for a broadcast address without the option", with_loop(function()
      local sock <close> = ip.udp.bind("0.0.0.0", 0)
      assert_method_raises("EACCES", sock, method, "x", ip.address.broadcast_v4(), 9)
      assert_method_raises("EACCES", sock, method, "x", "127.255.255.255", 9)
    end))
  end)
end

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

describe("several fibers that wait on one socket", function()
  it("are served first come, first served", with_loop(function()
    local a, b = pair()
    local served, fibers = {}, {}
    for i = 1, 6 do
      fibers[i] = fiber.spawn(function()
        local text
        if i % 3 == 0 then
          text = b:receive_string()
        else
          local buf = byte_span.new(16)
          text = buf:sub(1, (b[i % 3 == 1 and "receive" or "receive_from"](b, buf)))
        end
        served[#served + 1] = i .. "=" .. text
      end)
    end
    support.wait_until(function() return fibers[6].status == "waiting" end)
    for i = 1, 6 do a:send(tostring(i)) end
    for _, each in ipairs(fibers) do each:join() end
    assert.same({ "1=1", "2=2", "3=3", "4=4", "5=5", "6=6" }, served)
  end))

  it("keep their places when one of them gives up", with_loop(function()
    local a, b = pair()
    local waiting = {}
    for i = 1, 3 do waiting[i] = suspended(b, "receive_string") end
    waiting[2]:interrupt()
    a:send("one")
    a:send("two")
    local _, first = waiting[1]:join()
    local _, third = waiting[3]:join()
    assert.equal("one", first)
    assert.equal("two", third)
    waiting[2]:join()
  end))

  it("are not overtaken by one that comes while datagrams are there", with_loop(function()
    local a, b = pair()
    local waiting = suspended(b, "receive_string")
    a:send("first")
    a:send("second")
    local late = b:receive_string()
    local _, early = waiting:join()
    assert.equal("first", early)
    assert.equal("second", late)
  end))

  it("share one refusal: one of them gets it", with_loop(function()
    local sock <close> = ip.udp.connect("127.0.0.1", support.dead_port())
    local first, second = suspended(sock, "receive_string"), suspended(sock, "receive_string")
    sock:send("x")
    local _, err = first:join()
    assert.equal(ip.error.ECONNREFUSED, err)
    assert.equal("waiting", second.status)
    sock:cancel()
    second:join()
  end))
end)

describe("both directions of one socket", function()
  it("are independent: sends go on while a receive is suspended", with_loop(function()
    local a, b = pair()
    local waiting = suspended(a, "receive_string")
    for i = 1, 20 do
      a:send("out " .. i)
      assert.equal("out " .. i, (b:receive_string()))
    end
    assert.equal("waiting", waiting.status)
    b:send("in")
    local _, text = waiting:join()
    assert.equal("in", text)
  end))

  it("carry a conversation in which each side reads and writes with two fibers", with_loop(function()
    local a, b = pair()
    local count = 200
    local function writer(sock)
      for i = 1, count do
        sock:send(("%d"):format(i))
        if i % 10 == 0 then fiber.yield() end
      end
    end
    local function reader(sock)
      local buf = byte_span.new(8)
      for i = 1, count do
        local n = sock:receive(buf)
        assert.equal(i, tonumber(buf:sub(1, n)))
      end
    end
    local fibers = {
      fiber.spawn(reader, a), fiber.spawn(reader, b), fiber.spawn(writer, a), fiber.spawn(writer, b),
    }
    for _, each in ipairs(fibers) do each:join() end
  end))
end)

describe("a flood", function()
  -- Counts the turns that another fiber gets while fn runs.
  local function turns_during(fn)
    local turns, over = 0, false
    local other = fiber.spawn(function()
      while not over do
        turns = turns + 1
        fiber.yield()
      end
    end)
    fn()
    over = true
    other:join()
    return turns
  end

  it("of sends does not starve the other fibers", with_loop(function()
    local a = pair()
    local turns = turns_during(function()
      for _ = 1, 2000 do a:send("x") end
    end)
    assert.is_true(turns >= 5, "turns of the other fiber: " .. turns)
  end))

  it("of receives does not starve the other fibers, and nothing is lost by giving way", with_loop(function()
    local a, b = pair()
    local received = 0
    local turns = turns_during(function()
      for _ = 1, 20 do
        for _ = 1, 100 do assert(a:try_send("x")) end
        for _ = 1, 100 do
          b:receive_string()
          received = received + 1
        end
      end
    end)
    assert.equal(2000, received)
    assert.is_true(turns >= 5, "turns of the other fiber: " .. turns)
    assert_empty(b)
  end))

  it("does not starve deadlines", with_loop(function()
    local a, b = pair()
    local err = error_of(fiber.with_timeout, 0.02, function()
      while true do
        a:send("x")
        b:receive_string()
      end
    end)
    assert.equal(ip.error.ETIMEDOUT, err)
    while b:try_receive(byte_span.new(1)) do fiber.yield() end
  end))
end)

describe("a broadcast", function()
  it("is sent and received once the option is set", with_loop(function()
    local receiver <close> = ip.udp.bind("0.0.0.0", 0)
    local sender <close> = ip.udp.bind("0.0.0.0", 0, { broadcast = true })
    sender:send_to("to all", "127.255.255.255", receiver.local_port)
    local text, address = receiver:receive_string()
    assert.equal("to all", text)
    assert.equal("127.0.0.1", tostring(address))
  end))
end)

describe("the steady state makes no garbage", function()
  -- Bytes that 1000 runs of fn leave, with the collector stopped.
  local function bytes_of(fn)
    for _ = 1, 300 do fn() end
    collectgarbage()
    collectgarbage("stop")
    local before = collectgarbage("count")
    for _ = 1, 1000 do fn() end
    local after = collectgarbage("count")
    collectgarbage("restart")
    return (after - before) * 1024
  end

  it("in receive_from and send_to, an echo", with_loop(function()
    local server <close>, port = bound()
    local client <close>, client_port = bound()
    local address = ip.address.loopback_v4()
    local buf, reply = byte_span.new(64), byte_span.new(64)
    assert.equal(0, bytes_of(function()
      client:send_to("ping", address, port)
      local n, peer, from = server:receive_from(buf)
      server:send_to(buf:resize(n), peer, from)
      buf:resize(64)
      client:receive_from(reply)
    end))
    assert.is_true(client_port > 0)
  end))

  it("but one address per receive_from, where senders take turns", with_loop(function()
    local server <close>, port = bound()
    local address, bytes = ip.address.loopback_v4(), "\127\0\0\1"
    local one <close> = ip.udp.bind("127.0.0.1", 0)
    local two <close> = ip.udp.bind("127.0.0.2", 0)
    local buf = byte_span.new(64)
    local size_of_two = bytes_of(function()
      ip.address.from_bytes(bytes)
      ip.address.from_bytes(bytes)
    end)
    assert.is_true(size_of_two > 0)
    local made = bytes_of(function()
      one:send_to("x", address, port)
      two:send_to("x", address, port)
      local _, first = server:receive_from(buf)
      local _, second = server:receive_from(buf)
      assert(first ~= second)
    end)
    assert.is_true(made <= size_of_two, ("%d bytes, two addresses are %d"):format(made, size_of_two))
  end))

  it_v6("in receive_from and send_to over v6", with_loop(function()
    local server <close>, port = bound("v6")
    local client <close> = bound("v6")
    local address = ip.address.loopback_v6()
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      client:send_to("ping", address, port)
      local _, peer, from = server:receive_from(buf)
      server:send_to("pong", peer, from)
      client:receive_from(buf)
    end))
  end))

  it("in receive and send", with_loop(function()
    local a, b = pair()
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      a:send("x")
      b:receive(buf)
      b:send(buf)
      a:receive(buf)
    end))
  end))

  it("in the try_ forms", with_loop(function()
    local a, b = pair()
    local address, port = b.local_address, b.local_port
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      a:try_send("x")
      b:try_receive(buf)
      a:try_send_to("x", address, port)
      b:try_receive_from(buf)
    end))
  end))

  it("in a gathering send", with_loop(function()
    local a, b = pair()
    local buf = byte_span.new(64)
    local parts = { "head ", byte_span.append("body"), " tail" }
    assert.equal(0, bytes_of(function()
      a:send(parts)
      b:receive(buf)
    end))
  end))

  it("in calls that suspend", with_loop(function()
    local a, b = pair()
    local echo = fiber.spawn(function()
      local buf = byte_span.new(64)
      while b:receive(buf) do b:send(buf) end
    end)
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      a:send("x")
      a:receive(buf)
    end))
    echo:interrupt()
    echo:join()
  end))

  it("in calls that suspend with a deadline", with_loop(function()
    local a, b = pair()
    a.receive_timeout, b.receive_timeout, a.send_timeout = 5, 5, 5
    local echo = fiber.spawn(function()
      local buf = byte_span.new(64)
      while b:receive_from(buf) do b:send(buf) end
    end)
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      a:send("x")
      a:receive_from(buf)
    end))
    echo:interrupt()
    echo:join()
  end))

  it("on the main thread", on_main(function()
    local a, b = pair()
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      a:send("x")
      b:receive(buf)
    end))
  end))
end)

-- Programs in processes of their own ----------------------------------------------------------------------------

describe("system calls", function()
  local it_counted = platform.it_where(platform.can_trace(), "strace")

  -- A server of arg[1] echoes. With "queued" as arg[2] it begins when a datagram comes on another socket: by then all
  -- others are in its queue, and it never has to wait.
  local server = [[
    local ip = require "ip"
    local sock, starter = ip.udp.bind("127.0.0.1", 0), ip.udp.bind("127.0.0.1", 0)
    ip.fiber.spawn(function() -- nobody waits for ever for a server that lost its client
      ip.fiber.sleep(60)
      os.exit(1)
    end):detach()
    print(sock.local_port, starter.local_port, io.open("/proc/self/stat"):read("n"))
    io.stdout:flush()
    local echoes = tonumber(arg[1])
    ip.fiber.run(function()
      if arg[2] == "queued" then starter:receive_string() end
      local buf = ip.byte_span.new(64)
      for _ = 1, echoes do
        local n, address, port = sock:receive_from(buf)
        sock:send_to(buf:resize(n), address, port)
        buf:resize(64)
      end
    end)
  ]]

  local clients = {
    -- Sends all, and then lets the server begin, which waits for that.
    queued = function(client, echoes, starter, pid)
      for _ = 1, echoes do client:send("x") end
      support.wait_until(function() return process.is_asleep(pid) end)
      local other <close> = ip.udp.connect("127.0.0.1", starter)
      other:send("begin")
      for _ = 1, echoes do client:receive_string() end
    end,
    -- Sends each datagram when the server waits for it.
    waiting = function(client, echoes, _, pid)
      for _ = 1, echoes do
        support.wait_until(function() return process.is_asleep(pid) end)
        client:send("x")
        client:receive_string()
      end
    end,
  }

  -- Runs the server for a number of echoes; gives its system calls by name, and their total.
  local function count_calls(echoes, way)
    local path, counts = support.write_file(server), os.tmpname()
    local pipe = assert(io.popen(trace.command("strace -f -c -o " .. counts, path, ("%d %s"):format(echoes, way))))
    local port, starter, pid = pipe:read("n", "n", "n")
    local client <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 20 })
    clients[way](client, echoes, starter, pid)
    pipe:close()
    os.remove(path)
    return trace.read_counts(counts)
  end

  -- What an echo costs, without the start and the end of the process; and how often a descriptor was armed. The
  -- datagrams of the longer run fit the queue of a socket.
  local function cost(way)
    local few, many = 50, 250
    local less, more = count_calls(few, way), count_calls(many, way)
    return (more.total - less.total) / (many - few), more.epoll_ctl - less.epoll_ctl
  end

  it_counted("are at most 3.1 per echo with one datagram in flight, and none arms per datagram", on_main(function()
    local per_echo, arming = cost("waiting")
    assert.is_true(per_echo <= 3.1, "system calls per echo: " .. per_echo)
    assert.is_true(per_echo > 2.5, "the server did not wait for each datagram: " .. per_echo)
    assert.is_true(arming < 20, "calls of epoll_ctl for 200 echoes: " .. arming)
  end, 60))

  it_counted("are at most 2.05 per echo when saturated, and none arms per datagram", on_main(function()
    local per_echo, arming = cost("queued")
    assert.is_true(per_echo <= 2.05, "system calls per echo: " .. per_echo)
    assert.is_true(per_echo >= 2, "not all system calls were counted: " .. per_echo)
    assert.is_true(arming < 20, "calls of epoll_ctl for 200 echoes: " .. arming)
  end, 60))
end)

describe("a send that the system cannot take yet", function()
  local it_blocked = platform.it_where(namespace.can_be_slow(), "tc, and namespaces")

  -- What the programs begin with; see spec/support/blocked_link.lua.
  local prelude = [[
    local ip = require "ip"
    local byte_span, fiber = ip.byte_span, ip.fiber
    local link = require "spec.support.blocked_link"
    local sink, out = link.sink, link.out
    local unblock, arriving, equal, ends_with = link.unblock, link.arriving, link.equal, link.ends_with
    local function waiting_send(...) return link.waiting(out.send, out, ...) end
  ]]

  local function blocked(body)
    return function()
      local network <close> = assert(namespace.blocked())
      assert.equal("passed\n", trace.run_under(network:inside(), prelude .. body .. "\nprint('passed')"))
    end
  end

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
      equal("try_send EAGAIN", err.operation .. " " .. err.name)
      value, err = out:try_send_to("x", "127.0.0.1", sink.local_port)
      equal(nil, value)
      equal("try_send_to EAGAIN", err.operation .. " " .. err.name)
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

  it_blocked("raises ETIMEDOUT after send_timeout, and is not sent", blocked [[
    fiber.run(function()
      out.send_timeout = 0.02
      local before = fiber.now()
      local ok, err = pcall(out.send, out, "late")
      equal(false, ok)
      equal("send: connection timed out (ETIMEDOUT)", tostring(err))
      assert(fiber.now() - before >= 0.02)
      ok, err = pcall(out.send_to, out, "late", "127.0.0.1", sink.local_port)
      equal("send_to: connection timed out (ETIMEDOUT)", tostring(err))
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

describe("a call with too few arguments", function()
  it("says which one has no value, whatever those before it are", with_loop(function()
    local sock <close> = bound()
    local span, address = ip.byte_span.new(4), ip.address.loopback_v4()
    sock:send_to("x", address, sock.local_port)
    sock:receive_from(span) -- its sender's address is known to the socket now, another object is not
    local calls = {
      { 3, "send_to", "x" }, { 4, "send_to", "x", address }, { 4, "send_to", span, "127.0.0.1" },
      { 4, "try_send_to", span, address }, { 2, "send" }, { 2, "try_send" },
      { 2, "receive" }, { 2, "receive_from" }, { 2, "try_receive" }, { 2, "try_receive_from" },
      { 2, "receive_message" }, { 3, "send_message" }, { 3, "send_message", span }, { 3, "reply_message", "x" },
    }
    for _, call in ipairs(calls) do
      local position, method = call[1], call[2]
      local message = error_of(call_method, sock, method, table.unpack(call, 3))
      local expected = ("bad argument #%d to '%s' %%(.* expected, got no value%%)"):format(position - 1, method)
      assert.matches(expected, message)
    end
  end))
end)

describe("a table as data", function()
  it("with keys but no sequence is a bad argument and sends nothing", with_loop(function()
    local a, b = pair()
    for _, data in ipairs { { data = "x" }, { [2] = "x" }, { [0] = "x" } } do
      assert.matches("bad argument #1 to 'send' %(sequence expected", error_of(function() a:send(data) end))
    end
    assert.equal(0, a:send({}))
    assert.equal("", (b:receive_string()))
    a:close()
    b:close()
  end))
end)

describe("the synopsis", function()
  local synopsis = [[
local sock = ip.udp.socket.new()
sock:open('v4')
sock:bind(ip.address.any_v4(), PORT)

local buf = byte_span.new(1024)
local nread, remote_addr, remote_port = sock:receive_from(buf)
sock:send_to(buf:slice(1, nread), remote_addr, remote_port)
]]

  -- A port that is free now is asked for by number, as the synopsis does.
  local function program()
    local names = "local ip = require 'ip'\nlocal byte_span = ip.byte_span\n"
    return names .. (synopsis:gsub("PORT", ("%d"):format(support.dead_port())))
  end

  -- Pings until the server is there and answers; nil after some seconds.
  local function talk_to(port)
    local client <close> = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 0.01 })
    for _ = 1, 1000 do
      client:send_to("ping", "127.0.0.1", port)
      local ok, text = pcall(client.receive_string, client)
      if ok then return text end
    end
  end

  local watchdog = "require('ip.fiber').spawn(function() require('ip.fiber').sleep(30) os.exit(1) end):detach()\n"

  it("works as a script of its own", on_main(function()
    local source = program()
    local path = support.write_file(watchdog .. source)
    local pipe = assert(io.popen(("%s %s 2>&1"):format(support.interpreter, path)))
    local text = talk_to(tonumber(source:match("any_v4%(%), (%d+)")))
    assert.equal("", pipe:read("a"))
    assert.is_true(pipe:close())
    os.remove(path)
    assert.equal("ping", text)
  end, 30))

  it("works on the main thread next to fibers", on_main(function()
    local source = program()
    local client = fiber.spawn(talk_to, tonumber(source:match("any_v4%(%), (%d+)")))
    assert(load(source))()
    assert.equal("ping", client:join())
  end))

  it("works in a fiber", with_loop(function()
    local source = program()
    local server = fiber.spawn(assert(load(source)))
    assert.equal("ping", talk_to(tonumber(source:match("any_v4%(%), (%d+)"))))
    server:join()
  end))

  it("works in a coroutine that somebody else made", with_loop(function()
    local source = program()
    local server = coroutine.create(assert(load(source)))
    assert.is_true(coroutine.resume(server))
    assert.equal("ping", talk_to(tonumber(source:match("any_v4%(%), (%d+)"))))
    assert.equal("dead", coroutine.status(server))
  end))
end)
