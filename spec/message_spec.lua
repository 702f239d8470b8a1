-- What receive_message, send_message and reply_message promise: what travels beside the bytes arrives, for
-- v4, v6 and v4-mapped peers alike.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local blocked = require "spec.support.blocked_programs"
local memory = require "spec.support.memory"
local namespace = require "spec.support.namespace"
local platform = require "spec.support.platform"

local byte_span, fiber, message_flag = ip.byte_span, ip.fiber, ip.message_flag
local bound, pair, error_of = support.bound, support.pair, support.error_of
local with_loop, on_main = support.with_loop, support.on_main

local assert_method_raises = assertions.assert_method_raises
local it_linux, it_blocked = platform.it_linux, blocked.it_blocked

-- `any`: what a server binds to; `loopback`: where a client of family `client` sends; `seen`: how the server
-- sees it.
local kinds = {
  { name = "v4", any = "0.0.0.0", loopback = "127.0.0.1", seen = "127.0.0.1", client = "v4" },
  { name = "v6", any = "::", loopback = "::1", seen = "::1", client = "v6" },
  { name = "dual-stack with a v4 peer", any = "::", loopback = "127.0.0.1", seen = "::ffff:127.0.0.1", client = "v4" },
  { name = "dual-stack with a v6 peer", any = "::", loopback = "::1", seen = "::1", client = "v6" },
}

local everything = {
  "receive_packet_info", "receive_hops", "receive_traffic_class", "receive_timestamp", "receive_dropped",
}

local function server_of(kind, names)
  local sock = ip.udp.socket.new()
  sock:open(kind.any == "::" and "v6" or "v4")
  if kind.any == "::" then sock:set_option("v6_only", false) end
  for _, name in ipairs(names or everything) do sock:set_option(name, true) end
  sock:bind(kind.any, 0)
  return sock, sock.local_port
end

local function client_of(kind)
  return (bound(kind.client))
end

-- Fails unless sock:method(...) refuses the argument at `position`, with `what` in the message.
local function assert_refused(position, what, sock, method, ...)
  assertions.assert_contains(assertions.assert_bad_method_argument(position, sock, method, ...), what)
end

for _, kind in ipairs(kinds) do
  local it_kind = platform.it_linux_family(kind.any == "::" and "v6" or "v4")

  describe("receive_message, " .. kind.name, function()
    it_kind("tells everything that an option asks for", with_loop(function()
      local server <close>, port = server_of(kind)
      local client <close> = client_of(kind)
      client:set_option("unicast_hops", 33)
      client:set_option("traffic_class", 0x2a)
      local before = fiber.time()
      client:send_to("hello", kind.loopback, port)
      local buf = byte_span.new(64)
      local n, info = server:receive_message(buf)
      assert.equal("hello", buf:sub(1, n))
      assert.equal(ip.address.new(kind.seen), info.address)
      assert.equal(client.local_port, info.port)
      assert.is_false(info.truncated)
      assert.equal(ip.address.new(kind.seen), info.destination)
      assert.is_true(math.type(info.interface_index) == "integer" and info.interface_index > 0)
      assert.equal(33, info.hops)
      assert.equal(0x2a, info.traffic_class)
      assert.equal(2, info.ecn)
      assert.equal("integer", math.type(info.timestamp))
      assert.is_true(info.timestamp >= before - 50000000 and info.timestamp <= fiber.time() + 50000000)
      assert.equal(0, info.dropped)
      assert.is_nil(info.segment_size)
    end))

    it_kind("tells address, port and truncated without any option, and nothing else", with_loop(function()
      local server <close>, port = server_of(kind, {})
      local client <close> = client_of(kind)
      client:send_to("longer", kind.loopback, port)
      local n, info = server:receive_message(byte_span.new(4))
      assert.equal(4, n)
      assert.is_true(info.truncated)
      local names = {}
      for name in pairs(info) do names[#names + 1] = name end
      table.sort(names)
      assert.same({ "address", "port", "truncated" }, names)
    end))

    it_kind("suspends until there is a datagram, in a fiber as well", with_loop(function()
      local server <close>, port = server_of(kind)
      local client <close> = client_of(kind)
      local buf = byte_span.new(8)
      local waiting = fiber.spawn(server.receive_message, server, buf)
      support.wait_until(function() return waiting.status == "waiting" end)
      client:send_to("late", kind.loopback, port)
      local n, info = waiting:join()
      assert.equal("late", buf:sub(1, n))
      assert.equal(ip.address.new(kind.seen), info.destination)
    end))

    it_kind("fills the table that it is given and clears what an earlier datagram left", with_loop(function()
      local server <close>, port = server_of(kind)
      local client <close> = client_of(kind)
      client:send_to("one", kind.loopback, port)
      local own = { mine = "kept", segment_size = 7 }
      local _, info = server:receive_message(byte_span.new(8), own)
      assert.equal(own, info)
      assert.is_nil(info.segment_size)
      for _, name in ipairs(everything) do server:set_option(name, false) end
      client:send_to("two", kind.loopback, port)
      server:receive_message(byte_span.new(8), own)
      for _, name in ipairs { "destination", "interface_index", "hops", "traffic_class", "ecn", "timestamp",
        "dropped" } do
        assert.is_nil(own[name], name)
      end
      assert.equal("kept", own.mine)
      assert.equal(client.local_port, own.port)
    end))

    it_kind("makes no garbage with a table that is reused", on_main(function()
      local server <close>, port = server_of(kind)
      local client <close> = client_of(kind)
      client:connect(kind.loopback, port)
      local buf, info = byte_span.new(64), {}
      assert.equal(0, memory.garbage_of(function()
        client:send("x")
        server:receive_message(buf, info)
        server:reply_message("y", info)
        client:receive(buf)
      end, 100, 200))
    end))
  end)

  describe("send_message, " .. kind.name, function()
    it_kind("sends hops, traffic class and ECN beside the bytes", with_loop(function()
      local receiver <close> = server_of(kind)
      local sender <close> = server_of(kind)
      local buf = byte_span.new(16)
      local target = { address = kind.loopback, port = receiver.local_port }
      local function round(fields)
        for name, value in pairs(target) do fields[name] = value end
        assert.equal(3, sender:send_message({ "a", "bc" }, fields))
        local n, info = receiver:receive_message(buf)
        assert.equal("abc", buf:sub(1, n))
        return info
      end
      assert.equal(1, round({ hops = 1 }).hops)
      assert.equal(255, round({ hops = 255 }).hops)
      local info = round({ traffic_class = 0x48, hops = 9 })
      assert.equal(0x48, info.traffic_class)
      assert.equal(9, info.hops)
      for ecn = 0, 3 do
        info = round({ traffic_class = 0xb8, ecn = ecn })
        assert.equal(0xb8 + ecn, info.traffic_class)
        assert.equal(ecn, info.ecn)
      end
      sender:set_option("traffic_class", 0x20)
      assert.equal(0x22, round({ ecn = 2 }).traffic_class)
      assert.equal(0x20, round({ unknown = {} }).traffic_class)
    end))

    it_kind("sends to the connected peer where there is no address", with_loop(function()
      local receiver <close> = server_of(kind)
      local sender <close> = server_of(kind)
      assert_method_raises("EDESTADDRREQ", sender, "send_message", "x", {})
      sender:connect(kind.loopback, receiver.local_port)
      assert.equal(0, sender:send_message("", { hops = 5 }))
      local n, info = receiver:receive_message(byte_span.new(1))
      assert.equal(0, n)
      assert.equal(5, info.hops)
    end))

    it_kind("sends from the source and over the interface that it is told", with_loop(function()
      local receiver <close> = server_of(kind)
      local sender <close> = server_of(kind)
      local buf = byte_span.new(16)
      local source = kind.client == "v4" and "127.0.0.9" or "::1"
      local fields = { address = kind.loopback, port = receiver.local_port, source = source }
      sender:send_message("x", fields)
      local _, info = receiver:receive_message(buf)
      assert.equal(kind.seen == "127.0.0.1" and source or kind.client == "v4" and "::ffff:127.0.0.9" or "::1",
        tostring(info.address))
      sender:send_message("x", { address = kind.loopback, port = receiver.local_port, source = ip.address.new(source),
        interface_index = info.interface_index })
      assert.equal(info.address, select(2, receiver:receive_message(buf)).address)
      assert.is_false((pcall(sender.send_message, sender, "x",
        { address = kind.loopback, port = receiver.local_port, interface_index = 2147483647 })))
      local foreign = kind.client == "v4" and "192.0.2.1" or "2001:db8::1"
      assert.is_false((pcall(sender.send_message, sender, "x",
        { address = kind.loopback, port = receiver.local_port, source = foreign })))
      local other = kind.client == "v4" and "::1" or "127.0.0.1"
      assert_method_raises("EINVAL", sender, "send_message", "x",
        { address = kind.loopback, port = receiver.local_port, source = other })
    end))
  end)

  describe("reply_message, " .. kind.name, function()
    it_kind("answers from the address that was asked", with_loop(function()
      local server <close>, port = server_of(kind)
      local client <close> = ip.udp.bind(kind.client == "v4" and "0.0.0.0" or "::", 0)
      local buf = byte_span.new(64)
      local asked = kind.client == "v4" and { "127.0.0.2", "127.0.0.3", "127.0.0.2" } or { "::1" }
      for _, address in ipairs(asked) do
        client:send_to("who?", address, port)
        local _, info = server:receive_message(buf)
        assert.equal(2, server:reply_message("me", info))
        local text, from, from_port = client:receive_string()
        assert.equal("me", text)
        assert.equal(address, tostring(from))
        assert.equal(port, from_port)
      end
    end))

    it_kind("answers without a destination, too, and does not mirror hops, class or size", with_loop(function()
      local server <close>, port = server_of(kind)
      local client <close> = server_of(kind)
      client:send_message("who?", { address = kind.loopback, port = port, hops = 3, traffic_class = 0x10 })
      local _, info = server:receive_message(byte_span.new(8))
      info.destination = nil
      info.segment_size = 1
      info.hops, info.traffic_class = 3, 0x10
      server:reply_message("me", info)
      local n, answer = client:receive_message(byte_span.new(8))
      assert.equal(2, n)
      assert.not_equal(3, answer.hops)
      assert.equal(0, answer.traffic_class)
    end))
  end)
end

describe("reply_message", function()
  it_linux("does not use a group or everybody's address as its source", with_loop(function()
    local server <close>, port = server_of(kinds[1])
    local client <close> = bound()
    for _, destination in ipairs { "239.1.2.3", "255.255.255.255", "0.0.0.0" } do
      client:send_to("who?", "127.0.0.1", port)
      local _, info = server:receive_message(byte_span.new(8))
      info.destination = ip.address.new(destination)
      server:reply_message("me", info)
      assert.equal("127.0.0.1", tostring(select(2, client:receive_string())))
    end
  end))

  it_linux("needs who asked", with_loop(function()
    local sock <close> = bound()
    assert_refused(2, "field 'address'", sock, "reply_message", "x", {})
    assert_refused(2, "field 'address'", sock, "reply_message", "x", { address = 7, port = 1 })
    assert_refused(2, "field 'port'", sock, "reply_message", "x", { address = "127.0.0.1" })
    assert_refused(2, "table", sock, "reply_message", "x")
    assert_refused(2, "field 'destination'", sock, "reply_message", "x",
      { address = "127.0.0.1", port = 1, destination = {} })
    -- an address that is not this system's own: EINVAL or ENETUNREACH, as routing finds out
    assert.is_false((pcall(sock.reply_message, sock, "x",
      { address = "127.0.0.1", port = 1, destination = "192.0.2.1" })))
  end))
end)

describe("receive_message", function()
  it("peeks, and consumes with an empty buffer", with_loop(function()
    local a, b = pair()
    a:send("first")
    a:send("second")
    local buf = byte_span.new(16)
    local n = b:receive_message(buf, nil, message_flag.peek)
    assert.equal("first", buf:sub(1, n))
    local none, info = b:receive_message(byte_span.new(0))
    assert.equal(0, none)
    assert.is_true(info.truncated)
    assert.equal("second", (b:receive_string()))
  end))

  it("drops non-peer datagrams that came before connect", with_loop(function()
    local server <close>, port = bound()
    local other <close> = bound()
    local peer <close> = bound()
    other:send_to("no", "127.0.0.1", port)
    peer:send_to("yes", "127.0.0.1", port)
    server:connect("127.0.0.1", peer.local_port)
    local buf = byte_span.new(8)
    local n, info = server:receive_message(buf)
    assert.equal("yes", buf:sub(1, n))
    assert.equal(peer.local_port, info.port)
  end))

  it("serves waiters of all receives in the order in which they came", with_loop(function()
    local server <close>, port = bound()
    local client <close> = bound()
    local buf = byte_span.new(8)
    local first = fiber.spawn(server.receive_message, server, buf)
    local second = fiber.spawn(server.receive_string, server)
    support.wait_until(function() return second.status == "waiting" end)
    client:send_to("1", "127.0.0.1", port)
    client:send_to("2", "127.0.0.1", port)
    assert.equal(1, (first:join()))
    assert.equal("1", buf:sub(1, 1))
    assert.equal("2", (second:join()))
  end))

  it("ends by timeout, cancel, close, shutdown and deadline, and swallows nothing", with_loop(function()
    local server <close>, port = bound()
    local client <close> = bound()
    local buf = byte_span.new(8)
    server.receive_timeout = 0.01
    assert_method_raises("ETIMEDOUT", server, "receive_message", buf)
    server.receive_timeout = 0
    assert_method_raises("ETIMEDOUT", server, "receive_message", buf)
    server.receive_timeout = nil
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.01, server.receive_message, server, buf))
    local waiting = fiber.spawn(pcall, server.receive_message, server, buf)
    fiber.yield()
    server:cancel()
    assert.equal(ip.error.ECANCELED, select(2, waiting:join()))
    client:send_to("still", "127.0.0.1", port)
    assert.equal(5, (server:receive_message(buf)))
    waiting = fiber.spawn(pcall, server.receive_message, server, buf)
    fiber.yield()
    server:close()
    assert.equal(ip.error.ECANCELED, select(2, waiting:join()))
    for _, method in ipairs { "receive_message", "send_message", "reply_message", "receive_error" } do
      assert_method_raises("EBADF", server, method, false, false, false)
    end
  end))

  it("refuses wrong arguments", with_loop(function()
    local sock <close> = bound()
    assert_refused(1, "byte_span", sock, "receive_message", "text")
    assert_refused(2, "table", sock, "receive_message", byte_span.new(1), 5)
    assert_refused(3, "ip.message_flag value", sock, "receive_message", byte_span.new(1), {}, "peek")
    assert_method_raises("ENOTSUP", sock, "receive_message", byte_span.new(1), {}, message_flag.confirm)
  end))

  it("goes around the metamethods of the table", with_loop(function()
    local a, b = pair()
    a:send("x")
    local touched = false
    local function touch() touched = true end
    local info = setmetatable({}, { __index = touch, __newindex = touch })
    b:receive_message(byte_span.new(8), info)
    b:reply_message("y", info)
    assert.is_false(touched)
    assert.equal(a.local_port, info.port)
  end))

  it_linux("counts the datagrams that were dropped", with_loop(function()
    local server <close>, port = server_of(kinds[1])
    local client <close> = bound()
    server:set_option("receive_buffer_size", 2304)
    for _ = 1, 100 do client:send_to(("x"):rep(500), "127.0.0.1", port) end
    local dropped = server:get_option("dropped")
    assert.is_true(dropped > 0)
    local buf = byte_span.new(500)
    while server:io_control("bytes_readable") > 0 do server:receive_message(buf) end
    client:send_to("last", "127.0.0.1", port)
    local _, info = server:receive_message(buf)
    assert.equal(dropped, info.dropped)
  end))
end)

describe("send_message", function()
  it("and reply_message take v4-mapped addresses on a v4 socket for the v4 addresses in them", with_loop(function()
    local sock, port = bound()
    local address = ip.address.new("::ffff:127.0.0.1")
    sock:send_message("1", { address = address, port = port, source = address })
    sock:try_send_message("2", { address = tostring(address), port = port })
    sock:reply_message("3", { address = address, port = port, destination = address })
    for i = 1, 3 do
      local text, sender = sock:receive_string()
      assert.same({ tostring(i), "127.0.0.1" }, { text, tostring(sender) })
    end
    sock:close()
  end))

  it("refuses wrong arguments and fields", with_loop(function()
    local sock <close>, port = bound()
    local function refuse(field, value)
      assert_refused(2, ("field '%s'"):format(field), sock, "send_message", "x",
        setmetatable({ [field] = value, address = field == "address" and value or "127.0.0.1",
          port = field ~= "port" and port or value }, nil))
    end
    for _, field in ipairs { "hops", "traffic_class", "ecn", "segment_size", "interface_index", "port" } do
      refuse(field, "1")
      refuse(field, 1.5)
      refuse(field, -1)
      refuse(field, math.maxinteger)
      refuse(field, false)
    end
    refuse("hops", 0)
    refuse("hops", 256)
    refuse("traffic_class", 256)
    refuse("ecn", 4)
    refuse("segment_size", 65508)
    refuse("address", 5)
    refuse("address", "1.2.3")
    refuse("source", true)
    refuse("source", "nowhere")
    assert_refused(2, "field 'port'", sock, "send_message", "x", { address = "127.0.0.1" })
    assert_refused(2, "field 'address'", sock, "send_message", "x", { port = 1 })
    assert_refused(2, "table", sock, "send_message", "x", "127.0.0.1")
    assert_refused(1, "byte_span", sock, "send_message", 5, {})
    assert_refused(3, "ip.message_flag value", sock, "send_message", "x", {}, "more")
    assert_method_raises("ENOTSUP", sock, "send_message", "x", {}, message_flag.peek)
    assert_method_raises("EINVAL", sock, "send_message", "x", { address = "127.0.0.1", port = 0 })
    assert_method_raises("EMSGSIZE", sock, "send_message", ("x"):rep(65508), { address = "127.0.0.1", port = port })
  end))

  it("raises EPIPE after shutdown", with_loop(function()
    local a, b = pair()
    a:shutdown("send")
    assert_method_raises("EPIPE", a, "send_message", "x", {})
    assert_method_raises("EPIPE", a, "reply_message", "x", { address = "127.0.0.1", port = b.local_port })
  end))

  it("sends a sequence of many parts", with_loop(function()
    local sock <close>, port = bound()
    local parts = {}
    for i = 1, 40 do parts[i] = i % 2 == 0 and "ab" or byte_span.append("c") end
    assert.equal(60, sock:send_message(parts, { address = "127.0.0.1", port = port, hops = 2 }))
    assert.equal(("cab"):rep(20), (sock:receive_string()))
  end))
end)

describe("a message that the system cannot take yet", function()
  -- What the programs begin with; see spec/support/blocked_link.lua.
  local prelude = [[
    local ip = require "ip"
    local fiber = ip.fiber
    local link = require "spec.support.blocked_link"
    local sink, out = link.sink, link.out
    sink:set_option("receive_hops", true)
    local target = { address = "127.0.0.1", port = sink.local_port, hops = 7 }
    local function waiting(method, ...) return link.waiting(out[method], out, ...) end
  ]]

  local function passes(body)
    return blocked.passes(prelude .. "fiber.run(function()\n" .. body .. "\nend)")
  end

  it_blocked("waits, completes in order, and leaves with what it was to carry", passes [[
    local first = waiting("send_message", "one", target)
    local second = waiting("reply_message", { "t", "wo" }, { address = "127.0.0.1", port = sink.local_port })
    assert(out.send_queue_count == 2 and out.send_queue_size == 6)
    link.unblock()
    assert(select(2, first:join()) == 3 and select(2, second:join()) == 3)
    link.skip()
    local buf = ip.byte_span.new(10)
    local n, info = sink:receive_message(buf)
    assert(buf:sub(1, n) == "one" and info.hops == 7)
    n, info = sink:receive_message(buf, info)
    assert(buf:sub(1, n) == "two" and info.hops ~= 7)
  ]])

  it_blocked("ends by send_timeout, cancel and close, and is not sent", passes [[
    out.send_timeout = 0.02
    local ok, err = pcall(out.send_message, out, "x", target)
    assert(not ok and err == ip.error.ETIMEDOUT and err.operation == "send_message")
    out.send_timeout = nil
    local cancelled = waiting("send_message", "x", target)
    out:cancel()
    link.ends_with("ECANCELED", cancelled)
    local closed = waiting("reply_message", "x", target)
    out:close()
    link.ends_with("ECANCELED", closed)
    link.unblock()
    local last = ip.udp.connect("127.0.0.1", sink.local_port)
    last:send("the last")
    link.skip()
    assert(sink:receive_string() == "the last")
  ]])

  it_blocked("goes on where it had to stop when it is segmented into many", passes [[
    local parts = {}
    for i = 1, 1000 do parts[i] = ("%08d"):format(i) end
    target.segment_size = 8
    local sending = waiting("send_message", table.concat(parts), target)
    link.unblock()
    link.skip()
    for i = 1, 1000 do assert(sink:receive_string() == parts[i]) end
    assert(select(2, sending:join()) == 8000)
    assert(sink:io_control("bytes_readable") == 0)
  ]])
end)

describe("reply_message on a link", function()
  local client, remove

  setup(function()
    client, remove = namespace.routed()
  end)

  teardown(function()
    if remove then remove() end
  end)

  it("answers link-local peers over their interface, and a group's datagram from an address of its own", with_loop(
    function()
      if not client then return pending("network namespaces are not permitted here") end
      local output, code = namespace.run_program(client, [[
        local ip = require "ip"
        local server = ip.udp.bind("::", 0, { receive_packet_info = true })
        local peer = ip.udp.bind("fe80::77%eth0", 0)
        local buf = ip.byte_span.new(16)
        for _, asked in ipairs { "fe80::77%eth0", "ff02::1%eth0" } do
          peer:send_to("who?", asked, server.local_port)
          local n, info = server:receive_message(buf)
          assert(n == 4 and tostring(info.address) == "fe80::77%eth0", tostring(info.address))
          assert(tostring(info.destination) == asked, tostring(info.destination))
          assert(info.interface_index == info.destination.scope_id)
          -- without its scope the address alone would not do
          info.address = info.address:with_scope_id(0)
          server:reply_message("me", info)
          local text, address = peer:receive_string()
          assert(text == "me" and tostring(address) == "fe80::77%eth0", tostring(address))
        end
        print("done")]])
      assert.equal("done\n", output)
      assert.equal(0, code)
    end))
end)
