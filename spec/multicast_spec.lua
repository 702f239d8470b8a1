-- What multicast promises of its options: what they take, what they refuse, and what they read back.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local platform = require "spec.support.platform"

local with_loop = support.with_loop
local assert_bad_argument, assert_raises = assertions.assert_bad_argument, assertions.assert_raises
local assert_bad_method_argument = assertions.assert_bad_method_argument
local it_v6 = platform.it_v6

local memberships = { "join_multicast_group", "leave_multicast_group" }
local source_memberships = { "join_source_group", "leave_source_group" }
local set_only = { memberships[1], memberships[2], source_memberships[1], source_memberships[2] }

local families = {
  { name = "v4", any = "0.0.0.0", group = "239.255.7.1", unicast = "127.0.0.1" },
  { name = "v6", any = "::", group = "ff15::7:1", unicast = "::1" },
}

local function opened(family)
  local sock = ip.udp.socket.new()
  sock:open(family)
  return sock
end

-- Arguments and refusals ----------------------------------------------------------------------------------------------

for _, family in ipairs(families) do
  describe("membership on a " .. family.name .. " socket", function()
    local group, unicast = family.group, family.unicast
    local it_family, it_linux_family = platform.it_family(family.name), platform.it_linux_family(family.name)

    it_family("refuses what is no address, group or source", with_loop(function()
      local sock <close> = opened(family.name)
      for _, name in ipairs(set_only) do
        for _, value in ipairs { 5, true, {}, "", "nowhere", group .. " ", group .. "\0" } do
          assert_bad_method_argument(2, sock, "set_option", name, value, "127.0.0.1")
        end
        assert_bad_method_argument(2, sock, "set_option", name)
        assert_bad_method_argument(2, sock, "set_option", name, nil)
      end
      for _, name in ipairs(source_memberships) do
        assert_bad_method_argument(3, sock, "set_option", name, group)
        assert_bad_method_argument(3, sock, "set_option", name, group, 5)
        assert_bad_method_argument(3, sock, "set_option", name, group, "lo")
      end
    end))

    it_family("refuses what is no interface", with_loop(function()
      local sock <close> = opened(family.name)
      local v6 = ip.address.loopback_v6()
      for _, value in ipairs { true, {}, print, 1.5, -1, 1 << 31, 1 << 32, math.mininteger, v6 } do
        for _, name in ipairs(memberships) do
          assert_bad_method_argument(3, sock, "set_option", name, group, value)
        end
        for _, name in ipairs(source_memberships) do
          assert_bad_method_argument(4, sock, "set_option", name, group, unicast, value)
        end
        assert_bad_method_argument(2, sock, "set_option", "multicast_interface", value)
      end
      assert_bad_method_argument(2, sock, "set_option", "multicast_interface")
      assert_bad_method_argument(2, sock, "set_option", "multicast_interface", nil)
    end))

    it_family("raises ENODEV for an interface that does not exist", with_loop(function()
      local sock <close> = opened(family.name)
      for _, value in ipairs { "nosuch0", "", "lo\0", "1", "::1", ("l"):rep(15), ("l"):rep(16), "192.0.2.77",
        ip.address.new("192.0.2.77"), 0x7fffffff } do
        assert_raises("ENODEV", nil, sock.set_option, sock, "join_multicast_group", group, value)
        assert_raises("ENODEV", nil, sock.set_option, sock, "join_source_group", group, unicast, value)
        assert_raises("ENODEV", nil, sock.set_option, sock, "multicast_interface", value)
      end
    end))

    it_linux_family("raises EINVAL for what is no group", with_loop(function()
      local sock <close> = opened(family.name)
      assert_raises("EINVAL", nil, sock.set_option, sock, "join_multicast_group", unicast, "lo")
      assert_raises("EINVAL", nil, sock.set_option, sock, "join_multicast_group", family.any, "lo")
      assert_raises("EINVAL", nil, sock.set_option, sock, "join_source_group", unicast, unicast, "lo")
    end))

    it_family("tells a second join and a leave without a join", with_loop(function()
      local sock <close> = opened(family.name)
      assert_raises("EADDRNOTAVAIL", nil, sock.set_option, sock, "leave_multicast_group", group, "lo")
      assert.is_nil(sock:set_option("join_multicast_group", group, "lo"))
      assert_raises("EADDRINUSE", nil, sock.set_option, sock, "join_multicast_group", group, "lo")
      assert_raises("EADDRINUSE", nil, sock.set_option, sock, "join_multicast_group", ip.address.new(group),
        "127.0.0.1")
      assert.is_nil(sock:set_option("leave_multicast_group", group, ip.address.loopback_v4()))
      assert_raises("EADDRNOTAVAIL", nil, sock.set_option, sock, "leave_multicast_group", group, "lo")
    end))

    it_linux_family("tells the same of sources, in the system's words", with_loop(function()
      local sock <close> = opened(family.name)
      assert_raises("EINVAL", nil, sock.set_option, sock, "leave_source_group", group, unicast, "lo")
      sock:set_option("join_source_group", group, unicast, "lo")
      assert_raises("EADDRNOTAVAIL", nil, sock.set_option, sock, "join_source_group", group, unicast, "lo")
      local other = family.name == "v4" and "192.0.2.1" or "2001:db8::1"
      assert_raises("EADDRNOTAVAIL", nil, sock.set_option, sock, "leave_source_group", group, other, "lo")
      assert_raises("EADDRINUSE", nil, sock.set_option, sock, "join_multicast_group", group, "lo")
      sock:set_option("leave_source_group", group, unicast, "lo")
      assert_raises("EINVAL", nil, sock.set_option, sock, "leave_source_group", group, unicast, "lo")
    end))

    it_family("takes name, index and address for one interface", with_loop(function()
      local sock <close> = opened(family.name)
      local scoped = ip.address.new("ff02::1%lo")
      for _, interface in ipairs { "lo", scoped.scope_id, "127.0.0.1", ip.address.loopback_v4() } do
        sock:set_option("join_multicast_group", group, interface)
        assert_raises("EADDRINUSE", nil, sock.set_option, sock, "join_multicast_group", group, "lo")
        sock:set_option("leave_multicast_group", group, interface)
      end
    end))

    it_family("can be set only", with_loop(function()
      local sock <close> = opened(family.name)
      for _, name in ipairs(set_only) do
        assert_raises("ENOTSUP", nil, sock.get_option, sock, name)
      end
    end))

    it_family("needs an open socket, before it looks at its arguments", with_loop(function()
      local sock = ip.udp.socket.new()
      for _, name in ipairs { "multicast_interface", table.unpack(set_only) } do
        assert_raises("EBADF", nil, sock.set_option, sock, name, {})
        assert_raises("EBADF", nil, sock.get_option, sock, name)
      end
    end))
  end)
end

describe("the family of a group", function()
  it("is that of the socket, or EAFNOSUPPORT", with_loop(function()
    local sock <close> = opened("v4")
    assert_raises("EAFNOSUPPORT", nil, sock.set_option, sock, "join_multicast_group", "ff15::1", "lo")
    assert_raises("EAFNOSUPPORT", nil, sock.set_option, sock, "join_multicast_group", "::ffff:0:239.255.7.1", "lo")
    assert_raises("EAFNOSUPPORT", nil, sock.set_option, sock, "join_source_group", "239.255.7.1", "::1", "lo")
  end))

  it("is v4 for a v4-mapped address on a v4 socket", with_loop(function()
    local sock <close> = opened("v4")
    sock:set_option("join_multicast_group", "::ffff:239.255.7.1", "lo")
    assert_raises("EADDRINUSE", nil, sock.set_option, sock, "join_multicast_group", "239.255.7.1", "lo")
    sock:set_option("leave_multicast_group", "::ffff:239.255.7.1", "lo")
    sock:set_option("join_source_group", "239.255.7.1", "::ffff:127.0.0.1", "lo")
    sock:set_option("leave_source_group", "::ffff:239.255.7.1", "127.0.0.1", "lo")
    assert_raises("EADDRNOTAVAIL", nil, sock.set_option, sock, "leave_multicast_group", "239.255.7.1", "lo")
  end))

  it_v6("may be v4 on a dual-stack socket, not on one for v6 only", with_loop(function()
    local dual <close> = opened("v6")
    local only <close> = opened("v6")
    dual:set_option("v6_only", false)
    only:set_option("v6_only", true)
    dual:set_option("join_multicast_group", "239.255.7.1", "lo")
    assert_raises("EADDRINUSE", nil, dual.set_option, dual, "join_multicast_group", "::ffff:239.255.7.1", "lo")
    assert_raises("EINVAL", nil, dual.set_option, dual, "join_source_group", "239.255.7.2", "::1", "lo")
    assert_raises("EINVAL", nil, dual.set_option, dual, "join_source_group", "ff15::1", "127.0.0.1", "lo")
    for _, group in ipairs { "239.255.7.1", "::ffff:239.255.7.1" } do
      assert_raises("EAFNOSUPPORT", nil, only.set_option, only, "join_multicast_group", group, "lo")
    end
  end))

  it_v6("takes the interface from a scope, unless another one is named", with_loop(function()
    local sock <close> = opened("v6")
    sock:set_option("join_multicast_group", "ff02::7:1%lo")
    assert_raises("EADDRINUSE", nil, sock.set_option, sock, "join_multicast_group", "ff02::7:1", "lo")
    assert_raises("EADDRINUSE", nil, sock.set_option, sock, "join_multicast_group", "ff02::7:1%lo", "lo")
    assert_raises("EINVAL", nil, sock.set_option, sock, "join_multicast_group", "ff02::7:1%lo", 0x7fffffff)
    assert_raises("EINVAL", nil, sock.set_option, sock, "join_source_group", "ff02::7:2%lo", "fe80::1%77777")
    sock:set_option("leave_multicast_group", "ff02::7:1%lo")
  end))
end)

describe("multicast_interface", function()
  it("reads back as an address on v4", with_loop(function()
    local sock <close> = opened("v4")
    assert.equal(ip.address.any_v4(), sock:get_option("multicast_interface"))
    local index = ip.address.new("ff02::1%lo").scope_id
    for _, interface in ipairs { "lo", index, "127.0.0.1", ip.address.loopback_v4() } do
      sock:set_option("multicast_interface", interface)
      assert.equal(ip.address.loopback_v4(), sock:get_option("multicast_interface"))
      assert_raises("ENODEV", nil, sock.set_option, sock, "multicast_interface", "nosuch0")
      assert.equal(ip.address.loopback_v4(), sock:get_option("multicast_interface"))
    end
    for _, none in ipairs { 0, "0.0.0.0", ip.address.any_v4() } do
      sock:set_option("multicast_interface", "lo")
      sock:set_option("multicast_interface", none)
      assert.equal(ip.address.any_v4(), sock:get_option("multicast_interface"))
    end
  end))

  it_v6("reads back as an index on v6", with_loop(function()
    local sock <close> = opened("v6")
    assert.equal(0, sock:get_option("multicast_interface"))
    local index = ip.address.new("ff02::1%lo").scope_id
    for _, interface in ipairs { "lo", index, "127.0.0.1", ip.address.loopback_v4() } do
      sock:set_option("multicast_interface", interface)
      assert.equal(index, sock:get_option("multicast_interface"))
      sock:set_option("multicast_interface", 0)
      assert.equal(0, sock:get_option("multicast_interface"))
    end
  end))

  it("is forgotten with the socket", with_loop(function()
    local sock <close> = opened("v4")
    sock:set_option("multicast_interface", "lo")
    sock:close()
    sock:open("v4")
    assert.equal(ip.address.any_v4(), sock:get_option("multicast_interface"))
  end))
end)

describe("ip.udp.bind", function()
  it("knows interface and source on groups alone", with_loop(function()
    for name, value in pairs { interface = "lo", source = "127.0.0.1" } do
      local problem = ("option '%s': the address is no multicast group"):format(name)
      assert_bad_argument(3, problem, ip.udp.bind, "127.0.0.1", 0, { [name] = value })
      assert_bad_argument(3, ("unknown option '%s'"):format(name), ip.udp.connect, "127.0.0.1", 9, { [name] = value })
    end
  end))

  it("leaves no socket where the group cannot be joined", with_loop(function()
    assert_raises("ENODEV", "interface", ip.udp.bind, "239.255.7.1", 0, { interface = "nosuch0" })
    for _, case in ipairs {
      { "interface", { interface = true } }, { "source", { interface = "lo", source = 5 } },
      { "interface", { interface = -1 } },
    } do
      assert_bad_argument(3, ("option '%s': "):format(case[1]), ip.udp.bind, "239.255.7.1", 0, case[2])
    end
    if not platform.has_v6 then return end
    assert_raises("ENODEV", nil, ip.udp.bind, "ff02::7:1", 0, { interface = "nosuch0" })
    assert_raises("EINVAL", nil, ip.udp.bind, "ff02::7:1%lo", 0, { interface = 0x7fffffff })
    assert_raises("EINVAL", nil, ip.udp.bind, "ff02::7:1", 0)
  end))

  it("joins the group, and binds to it", with_loop(function()
    for _, interface in ipairs { "lo", "127.0.0.1", ip.address.loopback_v4() } do
      local sock <close> = ip.udp.bind("239.255.7.1", 0, { interface = interface, receive_timeout = 1 })
      assert.equal(ip.address.new("239.255.7.1"), sock.local_address)
      assert.equal(1, sock.receive_timeout)
      assert_raises("EADDRINUSE", nil, sock.set_option, sock, "join_multicast_group", "239.255.7.1", "lo")
    end
    local one <close> = ip.udp.bind("239.255.7.1", 0, { interface = "lo", source = "127.0.0.1" })
    assert_raises("EADDRNOTAVAIL", nil, one.set_option, one, "join_source_group", "239.255.7.1", "127.0.0.1", "lo")
  end))

  it_v6("gives a link-local group its scope", with_loop(function()
    local index = ip.address.new("ff02::1%lo").scope_id
    for _, interface in ipairs { "lo", index, "127.0.0.1", ip.address.loopback_v4() } do
      for _, group in ipairs { "ff02::7:1", "ff01::7:1" } do
        local sock <close> = ip.udp.bind(group, 0, { interface = interface })
        assert.equal(ip.address.new(group):with_scope_id(index), sock.local_address)
        assert_raises("EADDRINUSE", nil, sock.set_option, sock, "join_multicast_group", group, "lo")
      end
    end
    local named <close> = ip.udp.bind("ff02::7:1%lo", 0)
    assert.equal(index, named.local_address.scope_id)
    assert_raises("EADDRINUSE", nil, named.set_option, named, "join_multicast_group", "ff02::7:1", "lo")
    local wide <close> = ip.udp.bind("ff15::7:1", 0, { interface = "lo" })
    assert.equal(0, wide.local_address.scope_id)
  end))

  it_v6("joins a v4 group that is given v4-mapped", with_loop(function()
    local sock <close> = ip.udp.bind("::ffff:239.255.7.1", 0, { interface = "lo", v6_only = false })
    assert_raises("EADDRINUSE", nil, sock.set_option, sock, "join_multicast_group", "239.255.7.1", "lo")
  end))
end)
