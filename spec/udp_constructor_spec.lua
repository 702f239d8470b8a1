-- What the short cuts ip.udp.bind and ip.udp.connect promise.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local platform = require "spec.support.platform"
local sockets = require "spec.support.sockets"
local support = require "spec.support"

local bound, error_of = support.bound, support.error_of
local with_loop = support.with_loop
local assert_method_raises = assertions.assert_method_raises
local assert_message = assertions.assert_message
local it_v6 = platform.it_v6
local bad_ports, bad_addresses = sockets.bad_ports, sockets.bad_addresses

describe("ip.udp.bind", function()
  it("gives a bound socket", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0)
    assert.equal("127.0.0.1", tostring(sock.local_address))
    assert.is_true(sock.local_port > 0)
    local other <close> = ip.udp.bind(ip.address.any_v4(), 0)
    assert.equal("0.0.0.0", tostring(other.local_address))
  end))

  it_v6("gives a v6 socket for a v6 address", with_loop(function()
    local sock <close> = ip.udp.bind("::1", 0)
    assert.equal("v6", sock.family)
  end))

  it("sets options before it binds", with_loop(function()
    local first <close> = ip.udp.bind("127.0.0.1", 0, { reuse_port = true })
    local second <close> = ip.udp.bind("127.0.0.1", first.local_port, { reuse_port = true, broadcast = true })
    assert.equal(first.local_port, second.local_port)
    assert.is_true(second:get_option("broadcast"))
  end))

  it("takes timeouts", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 0, send_timeout = 2.5 })
    assert.equal(0, sock.receive_timeout)
    assert.equal(2.5, sock.send_timeout)
    assert_method_raises("ETIMEDOUT", sock, "receive_string")
  end))

  it("sets nothing that was not asked for", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, {})
    for _, option in ipairs { "reuse_address", "reuse_port", "broadcast" } do
      assert.is_false(sock:get_option(option), option)
    end
    assert.is_nil(sock.receive_timeout)
  end))

  it("raises and leaks no descriptor", with_loop(function()
    local taken <close>, port = bound()
    local before = support.descriptors()
    local function fails(...) return error_of(ip.udp.bind, ...) end
    assert.equal(ip.error.EADDRINUSE, fails("127.0.0.1", port))
    assert.equal("bind", fails("127.0.0.1", port).operation)
    assert.is_string(fails("127.0.0.1", 0, { no_such_option = true }))
    assert.equal(ip.error.ENOTSUP, fails("127.0.0.1", 0, { v6_only = true }))
    assert.is_string(fails("127.0.0.1", 0, { broadcast = 1 }))
    assert.is_string(fails("127.0.0.1", 0, { receive_timeout = -1 }))
    assert.is_string(fails("127.0.0.1", 0, { [1] = "broadcast" }))
    assert.equal(ip.error.EADDRNOTAVAIL, fails("203.0.113.77", 0))
    assert.is_string(fails("127.0.0.1", -1))
    assert.equal(before, support.descriptors())
    assert.is_true(taken.is_open)
  end))

  it("names itself in complaints about its arguments", with_loop(function()
    local bind = ip.udp.bind
    for _, address in ipairs(bad_addresses) do
      assert_message("bad argument #1 to 'bind'", function() bind(address, 0) end)
    end
    assert_message("bad argument #1 to 'bind'", function() bind() end)
    for _, port in ipairs(bad_ports) do
      assert_message("bad argument #2 to 'bind'", function() bind("127.0.0.1", port) end)
    end
    for _, options in ipairs { 1, "reuse_address", true } do
      assert_message("bad argument #3 to 'bind'", function() bind("127.0.0.1", 0, options) end)
    end
  end))
end)

describe("ip.udp.connect", function()
  it("gives a connected socket", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = ip.udp.connect("127.0.0.1", port)
    assert.equal(port, sock.remote_port)
    sock:send("hello")
    assert.equal("hello", (peer:receive_string()))
    local other <close> = ip.udp.connect(ip.address.loopback_v4(), port)
    assert.equal(port, other.remote_port)
  end))

  it("takes a local endpoint, a local address or a local port", with_loop(function()
    local peer <close>, port = bound()
    local former, free = bound()
    former:close()
    local a <close> = ip.udp.connect("127.0.0.1", port, { local_address = "127.0.0.1", local_port = free })
    assert.equal("127.0.0.1", tostring(a.local_address))
    assert.equal(free, a.local_port)
    a:close()
    local b <close> = ip.udp.connect("127.0.0.1", port, { local_port = free })
    assert.equal(free, b.local_port)
    local c <close> = ip.udp.connect("127.0.0.1", port, { local_address = ip.address.loopback_v4() })
    assert.equal("127.0.0.1", tostring(c.local_address))
    c:send("from there")
    local _, address, from = peer:receive_string()
    assert.equal(c.local_address, address)
    assert.equal(c.local_port, from)
  end))

  it("takes options and timeouts", with_loop(function()
    local peer <close>, port = bound()
    local sock <close> = ip.udp.connect("127.0.0.1", port, { unicast_hops = 9, receive_timeout = 0, send_timeout = 1 })
    assert.equal(9, sock:get_option("unicast_hops"))
    assert.equal(0, sock.receive_timeout)
    assert.equal(1, sock.send_timeout)
    assert.is_true(peer.is_open)
  end))

  it("raises and leaks no descriptor", with_loop(function()
    local peer <close>, port = bound()
    local before = support.descriptors()
    local function fails(...) return error_of(ip.udp.connect, ...) end
    assert.equal(ip.error.EINVAL, fails("127.0.0.1", 0))
    assert.equal("connect", fails("127.0.0.1", 0).operation)
    assert.is_string(fails("127.0.0.1", port, { no_such_option = true }))
    assert.equal(ip.error.EADDRINUSE, fails("127.0.0.1", port, { local_address = "127.0.0.1", local_port = port }))
    assert.equal(ip.error.EAFNOSUPPORT, fails("127.0.0.1", port, { local_address = "::1" }))
    assert.is_string(fails("127.0.0.1", port, { local_port = "80" }))
    assert.is_string(fails("127.0.0.1", 70000))
    assert.equal(before, support.descriptors())
    assert.is_true(peer.is_open)
  end))

  it("names itself in complaints about its arguments", with_loop(function()
    local connect = ip.udp.connect
    for _, address in ipairs(bad_addresses) do
      assert_message("bad argument #1 to 'connect'", function() connect(address, 1) end)
    end
    for _, port in ipairs(bad_ports) do
      assert_message("bad argument #2 to 'connect'", function() connect("127.0.0.1", port) end)
    end
    assert_message("bad argument #3 to 'connect'", function() connect("127.0.0.1", 1, true) end)
  end))
end)
