-- What send, send_to, try_send and try_send_to promise, where the system takes datagrams at once.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local platform = require "spec.support.platform"
local support = require "spec.support"

local byte_span, message_flag = ip.byte_span, ip.message_flag
local bound, pair, error_of = support.bound, support.pair, support.error_of
local with_loop = support.with_loop
local call_method, assert_method_raises = assertions.call_method, assertions.assert_method_raises
local assert_bad_method_argument = assertions.assert_bad_method_argument
local assert_empty = assertions.assert_empty
local it_v6 = platform.it_v6
local sending = { "send", "send_to", "try_send", "try_send_to" }

-- Calls a sending method of a connected socket.
local function put(sock, method, data, flags)
  if method:find("_to$") then return sock[method](sock, data, sock.remote_address, sock.remote_port, flags) end
  return sock[method](sock, data, flags)
end

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
      local with_a_hole = { "a", nil, "b" }
      if #with_a_hole == 3 then refused(with_a_hole) end -- any border is its length (Lua manual, 3.4.7)
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

    it("takes a v4-mapped address on a v4 socket for the v4 address in it", with_loop(function()
      local sock, port = bound()
      for _, address in ipairs { "::ffff:127.0.0.1", ip.address.new("::ffff:127.0.0.1"):with_scope_id(7) } do
        sock[method](sock, method, address, port)
        local text, sender = sock:receive_string()
        assert.same({ method, "127.0.0.1" }, { text, tostring(sender) })
      end
      sock:close()
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
      { 2, "receive_message" }, { 2, "send_message" }, { 3, "send_message", span }, { 3, "reply_message", "x" },
    }
    for _, call in ipairs(calls) do
      local position, method = call[1], call[2]
      local message = error_of(call_method, sock, method, table.unpack(call, 3))
      local expected = ("bad argument #%d to '%s' %%(.* expected, got no value%%)"):format(position - 1, method)
      assert.matches(expected, message)
    end
  end))
end)

describe("a socket for v6 only", function()
  local REFUSED = "%s %s: network is unreachable (ENETUNREACH): the socket is for IPv6 addresses only"

  it_v6("says so in every form of a send to a v4 address", with_loop(function()
    local sock <close> = ip.udp.bind("::1", 0, { v6_only = true })
    for host, endpoint in pairs { ["127.0.0.1"] = "127.0.0.1:9", ["::ffff:127.0.0.1"] = "[::ffff:127.0.0.1]:9" } do
      local info, batch = { address = host, port = 9 }, ip.udp.batch.new(1, 9)
      batch:set(1, "x", host, 9)
      for method, arguments in pairs {
        send_to = { "x", host, 9 }, try_send_to = { "x", host, 9 }, send_message = { "x", info },
        try_send_message = { "x", info }, reply_message = { "x", info }, send_many = { batch },
        try_send_many = { batch },
      } do
        local err = error_of(call_method, sock, method, table.unpack(arguments))
        assert.equal(REFUSED:format(method, endpoint), support.text_of(err))
      end
    end
  end))

  it_v6("does not give that as the reason for another error", with_loop(function()
    local sock <close> = ip.udp.connect("::1", 9, { v6_only = true })
    sock:shutdown("send")
    assert.equal("send_to 127.0.0.1:9: broken pipe (EPIPE)",
      support.text_of(error_of(sock.send_to, sock, "x", "127.0.0.1", 9)))
  end))
end)

describe("of several wrong arguments", function()
  it("before the flags a send names the first, also where others are missing", with_loop(function()
    local sock <close> = bound()
    for _, method in ipairs { "send_to", "try_send_to", "send_message", "try_send_message", "reply_message" } do
      for _, arguments in ipairs { { 1 }, { 1, 2 }, { 1, "localhost" }, { 1, true, method:find("_to") and 9 } } do
        local message = error_of(call_method, sock, method, table.unpack(arguments))
        assert.matches("bad argument #1 to '" .. method .. "' %(string, .* got number 1%)", message)
      end
    end
  end))

  it("that is the missing one after data of many parts", with_loop(function()
    local sock <close> = bound()
    local parts = {}
    for i = 1, 17 do parts[i] = "x" end
    assert.matches("#2 to 'send_to' %(.* got no value", error_of(call_method, sock, "send_to", parts))
    assert.matches("#3 to 'send_to' %(.* got no value", error_of(call_method, sock, "send_to", parts, "::1"))
    assert.matches("#2 to 'send_message' %(.* got no value", error_of(call_method, sock, "send_message", parts))
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
