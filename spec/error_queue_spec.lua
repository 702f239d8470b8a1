-- What receive_errors and receive_error promise: what the network says about datagrams sent earlier ends a receive by
-- its name, keeps no send from its peer, and can be read in detail; and an unread error costs no CPU.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local kinds = require "spec.support.kinds"
local namespace = require "spec.support.namespace"
local platform = require "spec.support.platform"
local support = require "spec.support"
local trace = require "spec.support.trace"

local byte_span, fiber = ip.byte_span, ip.fiber
local error_of, with_loop, on_main = support.error_of, support.with_loop, support.on_main
local assert_sleeps = assertions.assert_sleeps
local it_linux = platform.it_linux

local function reporting(kind)
  local sock = kinds.open(kind, { receive_errors = true })
  sock.receive_timeout = nil
  return sock
end

local function assert_quiet(sock)
  sock.receive_timeout = 0.02
  assert.equal(ip.error.ETIMEDOUT, error_of(sock.receive, sock, byte_span.new(1)))
  sock.receive_timeout = nil
end

-- `count` refusals end receives, and can be read in detail.
local function assert_refused(sock, count)
  for _ = 1, count do assert.equal(ip.error.ECONNREFUSED, error_of(sock.receive, sock, byte_span.new(1))) end
  assert_quiet(sock)
  for _ = 1, count do assert.equal(ip.error.ECONNREFUSED, sock:receive_error().error) end
  assert.is_nil(sock:receive_error())
end

for _, kind in ipairs(kinds.all) do
  local it_kind = platform.it_linux_family(kind.family)

  describe("receive_errors, " .. kind.name, function()
    it_kind("ends the next receive once, on a socket that is not connected", with_loop(function()
      local sock <close> = reporting(kind)
      sock:send_to("x", kind.loopback, support.dead_port(kind.peer_family))
      local err = error_of(sock.receive, sock, byte_span.new(1))
      assert.equal(ip.error.ECONNREFUSED, err)
      assert.equal("receive", err.operation)
      assert_quiet(sock)
    end))

    it_kind("ends a receive that is suspended, and only the first of them", with_loop(function()
      local sock <close> = reporting(kind)
      local first = fiber.spawn(pcall, sock.receive_from, sock, byte_span.new(1))
      local second = fiber.spawn(pcall, sock.receive_message, sock, byte_span.new(1))
      fiber.yield()
      sock:send_to("x", kind.loopback, support.dead_port(kind.peer_family))
      local _, err = first:join()
      assert.equal(ip.error.ECONNREFUSED, err)
      fiber.sleep(0.02)
      assert.equal("waiting", second.status)
      sock:send_to("x", kind.loopback, sock.local_port)
      assert.is_true((second:join()))
    end))

    it_kind("keeps the details for receive_error", with_loop(function()
      local sock <close> = reporting(kind)
      local port = support.dead_port(kind.peer_family)
      local buf = byte_span.new(64)
      assert.is_nil(sock:receive_error())
      sock:send_to("payload", kind.loopback, port)
      assert.equal(ip.error.ECONNREFUSED, error_of(sock.receive, sock, buf))
      local info = sock:receive_error(buf)
      assert.equal(ip.error.ECONNREFUSED, info.error)
      assert.equal(kind.icmp, info.origin)
      assert.equal(kind.icmp == "icmp" and 3 or 1, info.type)
      assert.equal(kind.icmp == "icmp" and 3 or 4, info.code)
      assert.is_nil(info.mtu)
      assert.equal(ip.address.new(kind.seen), info.offender)
      assert.equal(ip.address.new(kind.seen), info.address)
      assert.equal(port, info.port)
      assert.equal("payload", buf:sub(1, info.length))
      assert.is_false(info.truncated)
      assert.is_nil(sock:receive_error(buf))
    end))

    it_kind("tells how much of the payload was put into the buffer", with_loop(function()
      local sock <close> = reporting(kind)
      local port = support.dead_port(kind.peer_family)
      for _, size in ipairs { 3, 0, -1 } do
        sock:send_to("payload", kind.loopback, port)
        assert.equal(ip.error.ECONNREFUSED, error_of(sock.receive, sock, byte_span.new(1)))
        local buf = size >= 0 and byte_span.new(size) or nil
        local info = sock:receive_error(buf)
        assert.equal(math.max(size, 0), info.length)
        assert.is_true(info.truncated)
        if size > 0 then assert.equal("pay", buf:sub(1, 3)) end
      end
    end))

    it_kind("sends again what only an older error kept from being sent", with_loop(function()
      local sock <close> = reporting(kind)
      local peer <close>, peer_port = support.bound(kind.peer_family)
      for round = 1, 3 do
        sock:send_to("x", kind.loopback, support.dead_port(kind.peer_family))
        local text = tostring(round)
        assert.equal(1, sock:send_to(text, kind.loopback, peer_port))
        assert.equal(1, sock:send_message(text, { address = kind.loopback, port = peer_port, hops = 3 }))
        for _ = 1, 2 do assert.equal(text, (peer:receive_string())) end
      end
      assert_refused(sock, 3)
    end))

    it_kind("sends again the entries of a batch that only an older error kept from being sent", with_loop(function()
      local sock <close> = reporting(kind)
      local peer <close>, peer_port = support.bound(kind.peer_family)
      local batch = ip.udp.batch.new(6)
      for i, text in ipairs { "aa", "bb", "c", "", "dddd", "dddd" } do batch:set(i, text, kind.loopback, peer_port) end
      for _ = 1, 3 do
        sock:send_to("x", kind.loopback, support.dead_port(kind.peer_family))
        assert.equal(6, sock:send_many(batch))
        for i = 1, 6 do assert.equal(tostring(batch[i]), (peer:receive_string())) end
      end
      assert_refused(sock, 3)
    end))

    it_kind("are one where an entry of a batch is too large, and tell what was sent before", with_loop(function()
      local sock <close> = reporting(kind)
      local peer <close>, peer_port = support.bound(kind.peer_family)
      sock:connect(kind.loopback, peer_port)
      local batch = ip.udp.batch.new(4, 65535)
      for i, size in ipairs { 2, 2, 65528, 2 } do batch:set(i, ("x"):rep(size)) end
      local err = error_of(sock.send_many, sock, batch)
      assert.equal(ip.error.EMSGSIZE, err)
      assert.equal(2, err.sent)
      assert.equal(sock:get_option("mtu"), err.mtu)
      for _ = 1, 2 do assert.equal("xx", (peer:receive_string())) end
      assert.equal("local", sock:receive_error().origin)
      assert.is_nil(sock:receive_error())
    end))

    it_kind("wakes who is suspended when a send has found the error", with_loop(function()
      local sock <close> = reporting(kind)
      local peer <close>, peer_port = support.bound(kind.peer_family)
      local waiting = fiber.spawn(pcall, sock.receive, sock, byte_span.new(1))
      fiber.yield()
      sock:send_to("x", kind.loopback, support.dead_port(kind.peer_family))
      sock:send_to("y", kind.loopback, peer_port)
      assert.equal("y", (peer:receive_string()))
      assert.is_not_nil(sock:receive_error())
      assert.equal(ip.error.ECONNREFUSED, select(2, waiting:join()))
    end))

    it_kind("a datagram that is too large for the path is a local error", on_main(function()
      local sock <close> = reporting(kind)
      sock:connect(kind.loopback, support.dead_port(kind.peer_family))
      local err = error_of(sock.send, sock, ("x"):rep(65528))
      assert.equal(ip.error.EMSGSIZE, err)
      assert.equal(sock:get_option("mtu"), err.mtu)
      -- unread, it neither ends a receive nor keeps the loop busy
      sock.receive_timeout = 0.2
      assert_sleeps(function() assert.equal(ip.error.ETIMEDOUT, error_of(sock.receive, sock, byte_span.new(1))) end)
      local info = sock:receive_error()
      assert.equal(ip.error.EMSGSIZE, info.error)
      assert.equal("local", info.origin)
      assert.equal(err.mtu, info.mtu)
      assert.is_nil(info.offender)
      assert.equal(ip.address.new(kind.seen), info.address)
      assert.is_nil(sock:receive_error())
    end))
  end)
end

describe("receive_errors", function()
  it_linux("is read back, and discards the queue when it is switched off", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0)
    assert.is_false(sock:get_option("receive_errors"))
    assert.is_nil(sock:receive_error())
    sock:set_option("receive_errors", true)
    assert.is_true(sock:get_option("receive_errors"))
    sock:send_to("x", "127.0.0.1", support.dead_port())
    support.error_of(sock.receive, sock, byte_span.new(1))
    sock:set_option("receive_errors", false)
    assert.is_false(sock:get_option("receive_errors"))
    assert.is_nil(sock:receive_error())
    assert.is_false((pcall(sock.set_option, sock, "receive_errors", 1)))
    assert.is_false((pcall(sock.receive_error, sock, "text")))
  end))

  it_linux("keeps the newest errors when nobody reads them", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { receive_errors = true })
    for i = 1, 40 do sock:send_to(tostring(i), "127.0.0.1", support.dead_port()) end
    local buf = byte_span.new(8)
    local seen, last = 0, nil
    local info = sock:receive_error(buf)
    while info do
      seen = seen + 1
      last = buf:sub(1, info.length)
      info = sock:receive_error(buf)
    end
    assert.is_true(seen >= 32 and seen <= 40)
    assert.equal("40", last)
  end))

  it_linux("try_receive raises the error, too, and an error does not eat a datagram", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { receive_errors = true })
    sock:send_to("x", "127.0.0.1", support.dead_port())
    sock:send_to("mine", "127.0.0.1", sock.local_port)
    assert.equal(ip.error.ECONNREFUSED, error_of(sock.try_receive, sock, byte_span.new(8)))
    assert.equal(4, sock:io_control("bytes_readable"))
    assert.equal("mine", (sock:receive_string()))
  end))

  it_linux("bytes_readable does not swallow an error", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { receive_errors = true })
    local port = support.dead_port()
    sock:connect("127.0.0.1", port)
    sock:send("x")
    assert.equal(0, sock:io_control("bytes_readable"))
    assert.equal(ip.error.ECONNREFUSED, error_of(sock.receive, sock, byte_span.new(8)))
  end))

  it_linux("costs no CPU while errors are unread and a receive waits", on_main(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { receive_errors = true })
    local waiting = fiber.spawn(pcall, sock.receive, sock, byte_span.new(8))
    fiber.yield()
    for _ = 1, 3 do sock:send_to("x", "127.0.0.1", support.dead_port()) end
    waiting:join()
    for _ = 1, 2 do pcall(sock.receive, sock, byte_span.new(8)) end
    sock.receive_timeout = 0.3
    assert_sleeps(function() assert.equal(ip.error.ETIMEDOUT, error_of(sock.receive, sock, byte_span.new(8))) end)
    assert.is_not_nil(sock:receive_error())
  end))

  it_linux("without it, a socket that is not connected is told nothing", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0)
    sock:send_to("x", "127.0.0.1", support.dead_port())
    assert_quiet(sock)
    assert.is_nil(sock:receive_error())
  end))
end)

-- What the programs in the client's namespace share.
local prelude = [[
local ip = require "ip"
local kinds = {
  { family = "v4", server = "10.77.2.2", router = "10.77.1.1" },
  { family = "v6", server = "fd77:2::2", router = "fd77:1::1" },
  { family = "v6", server = "10.77.2.2", router = "::ffff:10.77.1.1" },
}
local function open(kind)
  local sock = ip.udp.socket.new()
  sock:open(kind.family)
  sock:set_option("receive_errors", true)
  sock:bind(kind.family == "v4" and "0.0.0.0" or "::", 0)
  sock.receive_timeout = 5
  return sock
end
local function check(condition, ...)
  if condition then return end
  local words = table.pack(...)
  for i = 1, words.n do words[i] = tostring(words[i]) end
  error(table.concat(words, " "), 2)
end
-- What one socket has learned the next one would know.
local function forget_mtu()
  os.execute("ip -4 route flush cache")
  os.execute("ip -6 route flush cache")
end
local buf = ip.byte_span.new(2000)
]]

describe("a batch of equal entries", function()
  local it_traced = platform.it_where(platform.can_trace(), "strace")

  it_traced("leaves in one system call with receive_errors and receive_offload on", with_loop(function()
    local log, output = trace.log([[
      local ip = require "ip"
      local receiver = ip.udp.bind("127.0.0.1", 0)
      local sender = ip.udp.bind("127.0.0.1", 0)
      sender:set_option("receive_errors", true)
      sender:set_option("receive_offload", true)
      local batch = ip.udp.batch.new(64)
      for i = 1, 64 do batch:set(i, ("%04d"):format(i), "127.0.0.1", receiver.local_port) end
      if sender:send_many(batch) ~= 64 then error("count") end
      for i = 1, 64 do
        if receiver:receive_string() ~= ("%04d"):format(i) then error(i) end
      end
      print("done")]], "-e trace=sendmmsg,sendmsg,sendto")
    assert.equal("done\n", output, log)
    assert.equal(1, #trace.results(log), log)
  end, 60))
end)

describe("receive_errors behind a router", function()
  local client, remove

  setup(function()
    client, remove = namespace.routed()
  end)

  teardown(function()
    if remove then remove() end
  end)

  local function check_program(body)
    local output, code = namespace.run_program(client, prelude .. body .. '\nprint("done")\n')
    assert.equal("done\n", output)
    assert.equal(0, code)
  end

  it("hops that run out are EHOSTUNREACH from the router", with_loop(function()
    if not client then return pending("network namespaces are not permitted here") end
    check_program([[
      for _, kind in ipairs(kinds) do
        local sock <close> = open(kind)
        sock:send_message("trace", { address = kind.server, port = 33434, hops = 1 })
        local ok, err = pcall(sock.receive, sock, buf)
        check(not ok and err == ip.error.EHOSTUNREACH, err)
        local info = sock:receive_error(buf)
        check(info.error == ip.error.EHOSTUNREACH, info.error)
        check(tostring(info.offender) == kind.router, info.offender)
        check(info.type == (kind.server:find(":") and 3 or 11) and info.code == 0, info.type, info.code)
        check(info.port == 33434 and buf:sub(1, info.length) == "trace", info.length)
        check(ip.address.new(kind.server) == (info.address.is_v6 and info.address.is_v4_mapped and
          info.address:to_v4() or info.address), info.address)
        check(sock:receive_error() == nil)
      end]])
  end))

  it("a port that is closed behind it is ECONNREFUSED from the server", with_loop(function()
    if not client then return pending("network namespaces are not permitted here") end
    check_program([[
      for _, kind in ipairs(kinds) do
        local sock <close> = open(kind)
        sock:send_to("x", kind.server, 9)
        local ok, err = pcall(sock.receive, sock, buf)
        check(not ok and err == ip.error.ECONNREFUSED, err)
        local offender = sock:receive_error().offender
        check(offender == ip.address.new(kind.server):to_v6() or tostring(offender) == kind.server, offender)
      end]])
  end))

  it("an error behind the datagrams of a batch keeps its mtu until the next call", with_loop(function()
    if not client then return pending("network namespaces are not permitted here") end
    check_program([[
      for _, kind in ipairs(kinds) do
        local sock <close> = open(kind)
        sock:set_option("receive_offload", true)
        local host = sock.family == "v6" and "::1" or "127.0.0.1"
        local batch = ip.udp.batch.new(4, 9)
        for i = 1, 2 do batch:set(i, "x", host, sock.local_port) end
        sock:send_many(batch)
        sock:receive(buf) -- the system has joined both, and the other is in this process
        sock:send_to(("x"):rep(1400), kind.server, 9)
        ip.fiber.wait_fd(sock.native_handle, "r") -- the error has come: no datagram is left in the system
        check(sock:receive_many(batch) == 1)
        local ok, err = pcall(sock.receive_many, sock, batch)
        check(not ok and err == ip.error.EMSGSIZE and err.mtu == 1300, err, err.mtu)
        forget_mtu()
      end]])
  end))

  it("a datagram that the path does not take is EMSGSIZE with the path's mtu", with_loop(function()
    if not client then return pending("network namespaces are not permitted here") end
    check_program([[
      for _, kind in ipairs(kinds) do
        local sock <close> = open(kind)
        sock:connect(kind.server, 9)
        local large = ("x"):rep(1400)
        sock:send(large)
        local ok, err = pcall(sock.receive, sock, buf)
        check(not ok and err == ip.error.EMSGSIZE and err.mtu == 1300, err, err.mtu)
        local info = sock:receive_error()
        check(info.mtu == 1300 and info.error.mtu == 1300 and tostring(info.offender) == kind.router, info.offender)
        check(info.origin == (kind.server:find(":") and "icmp6" or "icmp"), info.origin)
        check(sock:get_option("mtu") == 1300)
        forget_mtu()
      end]])
  end))
end)
