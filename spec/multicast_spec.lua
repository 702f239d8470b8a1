-- What multicast promises: who receives what, over which interface, from which source; and every refusal.
local ip = require "ip"
local support = require "spec.support"
local network = require "spec.support.namespaces"

local error_of, with_loop = support.error_of, support.with_loop

local has_v6 = pcall(support.bound, "v6")
local it_v6 = has_v6 and it or pending
local is_linux = io.open("/proc/self/fdinfo/0") ~= nil
local it_linux = is_linux and it or pending

local function assert_raises(name, fn, ...)
  assert.equal(ip.error[name], error_of(fn, ...))
end

local function assert_bad_argument(position, method, fn)
  local message = error_of(fn)
  assert.is_string(message)
  assert.is_truthy(message:find(("bad argument #%d to '%s'"):format(position, method), 1, true), message)
end

local memberships = { "join_multicast_group", "leave_multicast_group" }
local source_memberships = { "join_source_group", "leave_source_group" }
local set_only = { memberships[1], memberships[2], source_memberships[1], source_memberships[2] }

local families = {
  { name = "v4", any = "0.0.0.0", group = "239.255.7.1", unicast = "127.0.0.1", it = it },
  { name = "v6", any = "::", group = "ff15::7:1", unicast = "::1", it = it_v6 },
}

local function opened(family)
  local sock = ip.udp.socket.new()
  sock:open(family)
  return sock
end

-- Arguments and refusals ----------------------------------------------------------------------------------------------

for _, family in ipairs(families) do
  describe("membership on a " .. family.name .. " socket", function()
    local group, unicast, it_family = family.group, family.unicast, family.it

    it_family("refuses what is no address, group or source", with_loop(function()
      local sock <close> = opened(family.name)
      for _, name in ipairs(set_only) do
        for _, value in ipairs { 5, true, {}, "", "nowhere", group .. " ", group .. "\0" } do
          assert_bad_argument(2, "set_option", function() sock:set_option(name, value, "127.0.0.1") end)
        end
        assert_bad_argument(2, "set_option", function() sock:set_option(name) end)
        assert_bad_argument(2, "set_option", function() sock:set_option(name, nil) end)
      end
      for _, name in ipairs(source_memberships) do
        assert_bad_argument(3, "set_option", function() sock:set_option(name, group) end)
        assert_bad_argument(3, "set_option", function() sock:set_option(name, group, 5) end)
        assert_bad_argument(3, "set_option", function() sock:set_option(name, group, "lo") end)
      end
    end))

    it_family("refuses what is no interface", with_loop(function()
      local sock <close> = opened(family.name)
      local v6 = ip.address.loopback_v6()
      for _, value in ipairs { true, {}, print, 1.5, -1, 1 << 31, 1 << 32, math.mininteger, v6 } do
        for _, name in ipairs(memberships) do
          assert_bad_argument(3, "set_option", function() sock:set_option(name, group, value) end)
        end
        for _, name in ipairs(source_memberships) do
          assert_bad_argument(4, "set_option", function() sock:set_option(name, group, unicast, value) end)
        end
        assert_bad_argument(2, "set_option", function() sock:set_option("multicast_interface", value) end)
      end
      assert_bad_argument(2, "set_option", function() sock:set_option("multicast_interface") end)
      assert_bad_argument(2, "set_option", function() sock:set_option("multicast_interface", nil) end)
    end))

    it_family("raises ENODEV for an interface that does not exist", with_loop(function()
      local sock <close> = opened(family.name)
      for _, value in ipairs { "nosuch0", "", "lo\0", "1", "::1", ("l"):rep(15), ("l"):rep(16), "192.0.2.77",
        ip.address.new("192.0.2.77"), 0x7fffffff } do
        assert_raises("ENODEV", sock.set_option, sock, "join_multicast_group", group, value)
        assert_raises("ENODEV", sock.set_option, sock, "join_source_group", group, unicast, value)
        assert_raises("ENODEV", sock.set_option, sock, "multicast_interface", value)
      end
    end))

    it_linux("raises EINVAL for what is no group", with_loop(function()
      if not (family.name == "v4" or has_v6) then return end
      local sock <close> = opened(family.name)
      assert_raises("EINVAL", sock.set_option, sock, "join_multicast_group", unicast, "lo")
      assert_raises("EINVAL", sock.set_option, sock, "join_multicast_group", family.any, "lo")
      assert_raises("EINVAL", sock.set_option, sock, "join_source_group", unicast, unicast, "lo")
    end))

    it_family("tells a second join and a leave without a join", with_loop(function()
      local sock <close> = opened(family.name)
      assert_raises("EADDRNOTAVAIL", sock.set_option, sock, "leave_multicast_group", group, "lo")
      assert.is_nil(sock:set_option("join_multicast_group", group, "lo"))
      assert_raises("EADDRINUSE", sock.set_option, sock, "join_multicast_group", group, "lo")
      assert_raises("EADDRINUSE", sock.set_option, sock, "join_multicast_group", ip.address.new(group), "127.0.0.1")
      assert.is_nil(sock:set_option("leave_multicast_group", group, ip.address.loopback_v4()))
      assert_raises("EADDRNOTAVAIL", sock.set_option, sock, "leave_multicast_group", group, "lo")
    end))

    it_linux("tells the same of sources, in the system's words", with_loop(function()
      if not (family.name == "v4" or has_v6) then return end
      local sock <close> = opened(family.name)
      assert_raises("EINVAL", sock.set_option, sock, "leave_source_group", group, unicast, "lo")
      sock:set_option("join_source_group", group, unicast, "lo")
      assert_raises("EADDRNOTAVAIL", sock.set_option, sock, "join_source_group", group, unicast, "lo")
      local other = family.name == "v4" and "192.0.2.1" or "2001:db8::1"
      assert_raises("EADDRNOTAVAIL", sock.set_option, sock, "leave_source_group", group, other, "lo")
      assert_raises("EADDRINUSE", sock.set_option, sock, "join_multicast_group", group, "lo")
      sock:set_option("leave_source_group", group, unicast, "lo")
      assert_raises("EINVAL", sock.set_option, sock, "leave_source_group", group, unicast, "lo")
    end))

    it_family("takes name, index and address for one interface", with_loop(function()
      local sock <close> = opened(family.name)
      local scoped = ip.address.new("ff02::1%lo")
      for _, interface in ipairs { "lo", scoped.scope_id, "127.0.0.1", ip.address.loopback_v4() } do
        sock:set_option("join_multicast_group", group, interface)
        assert_raises("EADDRINUSE", sock.set_option, sock, "join_multicast_group", group, "lo")
        sock:set_option("leave_multicast_group", group, interface)
      end
    end))

    it_family("can be set only", with_loop(function()
      local sock <close> = opened(family.name)
      for _, name in ipairs(set_only) do
        assert_raises("ENOTSUP", sock.get_option, sock, name)
      end
    end))

    it_family("needs an open socket, before it looks at its arguments", with_loop(function()
      local sock = ip.udp.socket.new()
      for _, name in ipairs { "multicast_interface", table.unpack(set_only) } do
        assert_raises("EBADF", sock.set_option, sock, name, {})
        assert_raises("EBADF", sock.get_option, sock, name)
      end
    end))
  end)
end

describe("the family of a group", function()
  it("is that of the socket, or EAFNOSUPPORT", with_loop(function()
    local sock <close> = opened("v4")
    assert_raises("EAFNOSUPPORT", sock.set_option, sock, "join_multicast_group", "ff15::1", "lo")
    assert_raises("EAFNOSUPPORT", sock.set_option, sock, "join_multicast_group", "::ffff:239.255.7.1", "lo")
    assert_raises("EAFNOSUPPORT", sock.set_option, sock, "join_source_group", "239.255.7.1", "::1", "lo")
  end))

  it_v6("may be v4 on a dual-stack socket, not on one for v6 only", with_loop(function()
    local dual <close> = opened("v6")
    local only <close> = opened("v6")
    dual:set_option("v6_only", false)
    only:set_option("v6_only", true)
    dual:set_option("join_multicast_group", "239.255.7.1", "lo")
    assert_raises("EADDRINUSE", dual.set_option, dual, "join_multicast_group", "::ffff:239.255.7.1", "lo")
    assert_raises("EINVAL", dual.set_option, dual, "join_source_group", "239.255.7.2", "::1", "lo")
    assert_raises("EINVAL", dual.set_option, dual, "join_source_group", "ff15::1", "127.0.0.1", "lo")
    for _, group in ipairs { "239.255.7.1", "::ffff:239.255.7.1" } do
      assert_raises("EAFNOSUPPORT", only.set_option, only, "join_multicast_group", group, "lo")
    end
  end))

  it_v6("takes the interface from a scope, unless another one is named", with_loop(function()
    local sock <close> = opened("v6")
    sock:set_option("join_multicast_group", "ff02::7:1%lo")
    assert_raises("EADDRINUSE", sock.set_option, sock, "join_multicast_group", "ff02::7:1", "lo")
    assert_raises("EADDRINUSE", sock.set_option, sock, "join_multicast_group", "ff02::7:1%lo", "lo")
    assert_raises("EINVAL", sock.set_option, sock, "join_multicast_group", "ff02::7:1%lo", 0x7fffffff)
    assert_raises("EINVAL", sock.set_option, sock, "join_source_group", "ff02::7:2%lo", "fe80::1%77777")
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
      assert_raises("ENODEV", sock.set_option, sock, "multicast_interface", "nosuch0")
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
    assert_raises("ENOTSUP", ip.udp.bind, "127.0.0.1", 0, { interface = "lo" })
    assert_raises("ENOTSUP", ip.udp.bind, "127.0.0.1", 0, { source = "127.0.0.1" })
    assert_raises("ENOTSUP", ip.udp.connect, "127.0.0.1", 9, { interface = "lo" })
  end))

  it("leaves no socket where the group cannot be joined", with_loop(function()
    assert_raises("ENODEV", ip.udp.bind, "239.255.7.1", 0, { interface = "nosuch0" })
    for _, options in ipairs { { interface = true }, { interface = "lo", source = 5 }, { interface = -1 } } do
      assert.is_truthy(tostring(error_of(ip.udp.bind, "239.255.7.1", 0, options)):find("bad argument", 1, true))
    end
    if not has_v6 then return end
    assert_raises("ENODEV", ip.udp.bind, "ff02::7:1", 0, { interface = "nosuch0" })
    assert_raises("EINVAL", ip.udp.bind, "ff02::7:1%lo", 0, { interface = 0x7fffffff })
    assert_raises("EINVAL", ip.udp.bind, "ff02::7:1", 0)
  end))

  it("joins the group, and binds to it", with_loop(function()
    for _, interface in ipairs { "lo", "127.0.0.1", ip.address.loopback_v4() } do
      local sock <close> = ip.udp.bind("239.255.7.1", 0, { interface = interface, receive_timeout = 1 })
      assert.equal(ip.address.new("239.255.7.1"), sock.local_address)
      assert.equal(1, sock.receive_timeout)
      assert_raises("EADDRINUSE", sock.set_option, sock, "join_multicast_group", "239.255.7.1", "lo")
    end
    local one <close> = ip.udp.bind("239.255.7.1", 0, { interface = "lo", source = "127.0.0.1" })
    assert_raises("EADDRNOTAVAIL", one.set_option, one, "join_source_group", "239.255.7.1", "127.0.0.1", "lo")
  end))

  it_v6("gives a link-local group its scope", with_loop(function()
    local index = ip.address.new("ff02::1%lo").scope_id
    for _, interface in ipairs { "lo", index, "127.0.0.1", ip.address.loopback_v4() } do
      for _, group in ipairs { "ff02::7:1", "ff01::7:1" } do
        local sock <close> = ip.udp.bind(group, 0, { interface = interface })
        assert.equal(ip.address.new(group):with_scope_id(index), sock.local_address)
        assert_raises("EADDRINUSE", sock.set_option, sock, "join_multicast_group", group, "lo")
      end
    end
    local named <close> = ip.udp.bind("ff02::7:1%lo", 0)
    assert.equal(index, named.local_address.scope_id)
    assert_raises("EADDRINUSE", named.set_option, named, "join_multicast_group", "ff02::7:1", "lo")
    local wide <close> = ip.udp.bind("ff15::7:1", 0, { interface = "lo" })
    assert.equal(0, wide.local_address.scope_id)
  end))

  it_v6("joins a v4 group that is given v4-mapped", with_loop(function()
    local sock <close> = ip.udp.bind("::ffff:239.255.7.1", 0, { interface = "lo", v6_only = false })
    assert_raises("EADDRINUSE", sock.set_option, sock, "join_multicast_group", "239.255.7.1", "lo")
  end))
end)

-- On the wire ---------------------------------------------------------------------------------------------------------

local permitted = is_linux and has_v6 and network.is_permitted()
local it_wire = permitted and it or function(name)
  pending(name .. " (network namespaces are not permitted here)")
end

-- Receiver `a` and sender `b`, joined by two links. Each family has its own groups and addresses there.
local wire = {
  {
    name = "v4", any = "0.0.0.0", group = "239.255.7.1", other = "239.255.7.2", loopback = "127.0.0.1",
    a_one = "10.77.1.1", a_two = "10.77.2.1", b_one = "10.77.1.2", b_one_more = "10.77.1.3", b_two = "10.77.2.2",
  },
  {
    name = "v6", any = "::", group = "ff15::7:1", other = "ff15::7:2", loopback = "::1",
    a_one = "fd77:1::1", a_two = "fd77:2::1", b_one = "fd77:1::2", b_one_more = "fd77:1::3", b_two = "fd77:2::2",
  },
}

describe("between two machines", function()
  local net, a, b

  lazy_setup(function()
    if not permitted then return end
    net = network.new("a", "b")
    net:join("one", "a", { "10.77.1.1/24", "fd77:1::1/64" },
      "b", { "10.77.1.2/24", "10.77.1.3/24", "fd77:1::2/64", "fd77:1::3/64" })
    net:join("two", "a", { "10.77.2.1/24", "fd77:2::1/64" }, "b", { "10.77.2.2/24", "fd77:2::2/64" })
    a, b = net:agent("a"), net:agent("b")
  end)

  after_each(function()
    if net then net:clean() end
  end)

  lazy_teardown(function()
    if net then net:close() end
  end)

  -- A receiver in `a`; its port.
  local function receiver(family, options)
    return math.tointeger(a:run([[
      local any, options = ...
      sock = keep(ip.udp.bind(any, 0, load("return " .. options)()))
      return sock.local_port
    ]], family.any, options or "{}"))
  end

  -- Sends from `b`: from an address, over an interface, to an endpoint.
  local function send(text, from, link, to, port)
    b:run([[
      local text, from, link, to, port = ...
      local sock <close> = ip.udp.bind(from, 0, { multicast_interface = link })
      sock:send_to(text, to, port)
    ]], text, from, link, to, port)
  end

  local function received()
    return a:run "return next_of(sock)"
  end

  for _, family in ipairs(wire) do
    local function it_family(name, fn)
      it_wire(("over %s %s"):format(family.name, name), fn)
    end

    it_family("a group arrives while it is joined, and no other", function()
      local port = receiver(family)
      send("early", family.b_one, "one", family.group, port)
      a:run("sock:set_option('join_multicast_group', ..., 'one')", family.group)
      send("other", family.b_one, "one", family.other, port)
      send("wanted", family.b_one, "one", family.group, port)
      assert.equal("wanted", received())
      a:run("sock:set_option('leave_multicast_group', ..., 'one')", family.group)
      send("late", family.b_one, "one", family.group, port)
      send("end", family.b_one, "one", family.a_one, port)
      assert.equal("end", received())
    end)

    it_family("a group is joined on one interface, not on the other", function()
      local port = receiver(family)
      a:run("sock:set_option('join_multicast_group', ..., 'one')", family.group)
      send("wrong", family.b_two, "two", family.group, port)
      send("end", family.b_two, "two", family.a_two, port)
      assert.equal("end", received())
      send("right", family.b_one, "one", family.group, port)
      assert.equal("right", received())
      a:run("sock:set_option('join_multicast_group', ..., 'two')", family.group)
      send("both", family.b_two, "two", family.group, port)
      assert.equal("both", received())
    end)

    it_family("of two sources only the one that was joined is heard", function()
      local port = receiver(family)
      a:run("sock:set_option('join_source_group', ...)", family.group, family.b_one, "one")
      send("stranger", family.b_one_more, "one", family.group, port)
      send("wanted", family.b_one, "one", family.group, port)
      assert.equal("wanted", received())
      a:run("sock:set_option('join_source_group', ...)", family.group, family.b_one_more, "one")
      send("second", family.b_one_more, "one", family.group, port)
      assert.equal("second", received())
      a:run("sock:set_option('leave_source_group', ...)", family.group, family.b_one, "one")
      send("gone", family.b_one, "one", family.group, port)
      send("still", family.b_one_more, "one", family.group, port)
      assert.equal("still", received())
    end)

    it_family("bind on a group hears the group, and with a source that source", function()
      for _, interface in ipairs { "one", "10.77.1.1" } do
        local port = a:run([[
          local group, interface, source = ...
          sock = keep(ip.udp.bind(group, 0, { interface = interface, source = source }))
          return sock.local_port
        ]], family.group, interface, family.b_one)
        send("unicast", family.b_one, "one", family.a_one, math.tointeger(port))
        send("stranger", family.b_one_more, "one", family.group, math.tointeger(port))
        send("wanted", family.b_one, "one", family.group, math.tointeger(port))
        assert.equal("wanted", received())
      end
      local port = math.tointeger(a:run([[
        sock = keep(ip.udp.bind((...), 0, { interface = "one" }))
        return sock.local_port
      ]], family.group))
      send("unicast", family.b_one, "one", family.a_one, port)
      send("any", family.b_one_more, "one", family.group, port)
      assert.equal("any", received())
    end)

    it_family("multicast_interface is the way out, by name, by index and by address", function()
      local port = receiver(family)
      a:run("sock:set_option('join_multicast_group', ..., 'one')", family.group)
      a:run("sock:set_option('join_multicast_group', ..., 'two')", family.group)
      local sender = "out = keep(ip.udp.bind((...), 0))"
      b:run(sender, family.any)
      for _, link in ipairs { "one", "two" } do
        local index = math.tointeger(b:run("return ip.address.new('ff02::1%' .. ...).scope_id", link))
        local address = link == "one" and "10.77.1.2" or "10.77.2.2"
        for _, interface in ipairs { link, index, address } do
          b:run("local interface, group, port = ... out:set_option('multicast_interface', interface)"
            .. " out:send_to('x', group, port)", interface, family.group, port)
          local expected = link == "one" and (family.name == "v4" and "10.77.1." or "fd77:1:")
            or family.name == "v4" and "10.77.2." or "fd77:2:"
          local source = a:run("return (select(2, sock:receive_string()))")
          assert.equal(expected, source:sub(1, #expected))
          local readback = b:run("return out:get_option('multicast_interface')")
          assert.equal(family.name == "v4" and address or tostring(index), readback)
        end
      end
    end)

    it_family("multicast_loop off keeps datagrams from the sender's own machine", function()
      local port = receiver(family)
      a:run("sock:set_option('join_multicast_group', ..., 'one')", family.group)
      b:run([[
        local any, group, port = ...
        own = keep(ip.udp.bind(any, port, { multicast_interface = "one", multicast_loop = false }))
        own:set_option("join_multicast_group", group, "one")
        own:send_to("away", group, port)
        own:set_option("multicast_loop", true)
        own:send_to("back", group, port)
      ]], family.any, family.group, port)
      assert.equal("back", b:run "return next_of(own)")
      assert.equal("away back", received() .. " " .. received())
    end)

    it_family("multicast_hops 0 keeps datagrams on the sender's machine", function()
      local port = receiver(family)
      a:run("sock:set_option('join_multicast_group', ..., 'one')", family.group)
      b:run([[
        local any, group, port = ...
        own = keep(ip.udp.bind(any, port, { multicast_interface = "one", multicast_hops = 0 }))
        own:set_option("join_multicast_group", group, "one")
        own:send_to("stays", group, port)
        own:set_option("multicast_hops", 1)
        own:send_to("leaves", group, port)
      ]], family.any, family.group, port)
      assert.equal("stays leaves", b:run "return next_of(own), next_of(own)")
      assert.equal("leaves", received())
    end)

    it_family("multicast_all off hides what other sockets have joined", function()
      local port = receiver(family, "{ reuse_address = true }")
      a:run([[
        local any, group, other, port = ...
        deaf = keep(ip.udp.bind(any, port, { reuse_address = true }))
        sock:set_option("join_multicast_group", group, "one")
        sock:set_option("join_multicast_group", other, "one")
        deaf:set_option("join_multicast_group", other, "one")
      ]], family.any, family.group, family.other, port)
      send("for all", family.b_one, "one", family.group, port)
      assert.equal("for all", a:run "return next_of(deaf)")
      a:run "deaf:set_option('multicast_all', false)"
      send("for members", family.b_one, "one", family.group, port)
      send("end", family.b_one, "one", family.other, port)
      assert.equal("end", a:run "return next_of(deaf)")
      assert.equal("for all for members end", a:run "return next_of(sock), next_of(sock), next_of(sock)")
    end)

    it_family("the system knows a group as long as a socket has joined it", function()
      local function is_known()
        return net:ip("a", "maddress show dev one"):find(family.group .. "\n", 1, true) ~= nil
      end
      receiver(family)
      assert.is_false(is_known())
      a:run("sock:set_option('join_multicast_group', ..., 'one')", family.group)
      assert.is_true(is_known())
      a:run "sock:close()"
      assert.is_false(is_known())
    end)

    it_family("bind_to_device hears one link alone, and sends there", function()
      local port = receiver(family, "{ bind_to_device = 'one' }")
      assert.equal("one", a:run "return sock:get_option('bind_to_device')")
      local marker = math.tointeger(a:run("all = keep(ip.udp.bind((...), 0)) return all.local_port", family.any))
      send("wrong", family.b_two, "two", family.a_two, port)
      send("end", family.b_two, "two", family.a_two, marker)
      assert.equal("end", a:run "return next_of(all)")
      assert.equal("EAGAIN", a:run "return select(2, sock:try_receive(byte_span.new(9))).name")
      send("right", family.b_one, "one", family.a_one, port)
      assert.equal("right", received())
      local peer = math.tointeger(b:run([[
        local any, group = ...
        peer = keep(ip.udp.bind(any, 0))
        peer:set_option("join_multicast_group", group, "one")
        peer:set_option("join_multicast_group", group, "two")
        return peer.local_port
      ]], family.any, family.group))
      a:run("sock:send_to('x', ...)", family.group, peer)
      assert.equal(family.a_one:match("^.*[.:]"), b:run("return (select(2, peer:receive_string()))"):match("^.*[.:]"))
      assert.equal("ENODEV", a:run "return error_of(sock.set_option, sock, 'bind_to_device', 'nosuch0')")
      a:run "sock:set_option('bind_to_device', '')"
      assert.equal("", a:run "return sock:get_option('bind_to_device')")
      send("now right", family.b_two, "two", family.a_two, port)
      assert.equal("now right", received())
    end)
  end

  it_wire("a v4 group is heard on loopback when it was joined there", function()
    local port = receiver(wire[1])
    a:run([[
      local group, other, from, port = ...
      sock:set_option("join_multicast_group", group, "lo")
      local out <close> = ip.udp.bind(from, 0, { multicast_interface = "lo", multicast_loop = false })
      out:send_to("other", other, port)
      out:send_to("wanted", group, port)
    ]], "239.255.7.1", "239.255.7.2", "127.0.0.1", port)
    assert.equal("wanted", received())
  end)

  it_wire("the system's bound on v4 groups is ENOBUFS", function()
    net:system("a", "net.ipv4.igmp_max_memberships", 20)
    receiver(wire[1])
    assert.equal("20 ENOBUFS", a:run [[
      for i = 1, 100 do
        local name = error_of(sock.set_option, sock, "join_multicast_group", "239.255.8." .. i, "one")
        if name ~= "none" then return i - 1, name end
      end
    ]])
    a:run "sock:set_option('leave_multicast_group', '239.255.8.1', 'one')"
    assert.equal("none",
      a:run "return error_of(sock.set_option, sock, 'join_multicast_group', '239.255.9.1', 'one')")
  end)

  it_wire("a v4 group without interface and route is ENODEV", function()
    receiver(wire[1])
    assert.equal("ENODEV", a:run "return error_of(sock.set_option, sock, 'join_multicast_group', '239.255.7.1')")
  end)

  it_wire("a v4 group without interface is joined where the route leads", function()
    net:ip("a", "route add 239.255.0.0/16 dev two")
    local port = receiver(wire[1])
    a:run "sock:set_option('join_multicast_group', '239.255.7.1')"
    send("routed", "10.77.2.2", "two", "239.255.7.1", port)
    assert.equal("routed", received())
    a:run "sock:set_option('leave_multicast_group', '239.255.7.1', nil)"
    net:ip("a", "route delete 239.255.0.0/16 dev two")
  end)

  it_wire("a dual-stack socket hears v4 groups, and sends to them over its interface", function()
    local port = receiver(wire[2], "{ v6_only = false }")
    a:run "sock:set_option('join_multicast_group', '239.255.7.1', '10.77.1.1')"
    a:run "sock:set_option('join_source_group', '::ffff:239.255.7.2', '10.77.1.2', 'one')"
    send("any source", "10.77.1.3", "one", "239.255.7.1", port)
    assert.equal("any source ::ffff:10.77.1.3", a:run "local s, from = sock:receive_string() return s, from")
    send("stranger", "10.77.1.3", "one", "239.255.7.2", port)
    send("wanted", "10.77.1.2", "one", "239.255.7.2", port)
    assert.equal("wanted", received())
    for _, case in ipairs { { "one", "10.77.1.2" }, { "two", "10.77.2.2" } } do
      a:run("sock:set_option('join_multicast_group', '239.255.7.3', ...)", case[1])
      b:run([[
        local link, port = ...
        local out <close> = ip.udp.bind("::", 0, { v6_only = false, multicast_interface = link })
        out:send_to("x", "239.255.7.3", port)
      ]], case[1], port)
      assert.equal("::ffff:" .. case[2], a:run "return (select(2, sock:receive_string()))")
    end
  end)

  it_wire("a link-local group is heard on the interface of its scope", function()
    for _, call in ipairs {
      "keep(ip.udp.bind('ff02::7:1', 0, { interface = 'one' }))",
      "keep(ip.udp.bind('ff02::7:1', 0, { interface = '10.77.1.1' }))",
      "keep(ip.udp.bind('ff02::7:1%one', 0))",
    } do
      local port = math.tointeger(a:run("sock = " .. call .. " return sock.local_port"))
      send("wrong", "fd77:2::2", "two", "ff02::7:1%two", port)
      send("right", "fd77:1::2", "one", "ff02::7:1%one", port)
      assert.equal("right", received())
    end
  end)

  it_wire("an address with a label of its own names its interface", function()
    net:ip("a", "address add 10.77.1.9/24 dev one label one:x")
    local port = receiver(wire[1])
    a:run "sock:set_option('join_multicast_group', '239.255.7.1', '10.77.1.9')"
    send("heard", "10.77.1.2", "one", "239.255.7.1", port)
    assert.equal("heard", received())
  end)

  it_wire("an interface that was given by name keeps working when its address changes", function()
    local port = receiver(wire[1])
    a:run "sock:set_option('join_multicast_group', '239.255.7.1', 'two')"
    b:run "out = keep(ip.udp.bind('0.0.0.0', 0, { multicast_interface = 'two' }))"
    net:ip("b", "address add 10.77.2.7/24 dev two")
    net:ip("b", "address delete 10.77.2.2/24 dev two")
    net:ip("b", "address add 10.77.2.7/24 dev two") -- the first address takes its secondaries along
    assert.equal("10.77.2.7", b:run "return out:get_option('multicast_interface')")
    b:run("out:send_to('x', '239.255.7.1', ...)", port)
    assert.equal("10.77.2.7", a:run "return (select(2, sock:receive_string()))")
    net:ip("b", "address add 10.77.2.2/24 dev two")
  end)

  it_wire("an interface whose name has the full length is found, and no longer one", function()
    local longest = ("n"):rep(15)
    net:ip("a", "link add " .. longest .. " type veth peer name short")
    receiver(wire[1])
    assert.equal("none", a:run("return error_of(sock.set_option, sock, 'bind_to_device', ...)", longest))
    assert.equal(longest, a:run "return sock:get_option('bind_to_device')")
    for _, name in ipairs { "bind_to_device", "multicast_interface" } do
      assert.equal("ENODEV", a:run("return error_of(sock.set_option, sock, ...)", name, longest .. "n"))
    end
    assert.equal(longest, a:run "return sock:get_option('bind_to_device')")
    net:ip("a", "link delete short")
  end)
end)

describe("on loopback alone", function()
  local net, alone

  lazy_setup(function()
    if not permitted then return end
    net = network.new("alone")
    -- Linux makes any other v6 route by way of lo one that rejects
    net:ip("alone", "-6 route add local ff00::/8 dev lo")
    alone = net:agent("alone")
  end)

  after_each(function()
    if net then net:clean() end
  end)

  lazy_teardown(function()
    if net then net:close() end
  end)

  local scopes = {
    { name = "v4", any = "0.0.0.0", group = "239.255.7.1", other = "239.255.7.2", loopback = "127.0.0.1" },
    { name = "v6, wide", any = "::", group = "ff15::7:1", other = "ff15::7:2", loopback = "::1" },
    { name = "v6, link-local", any = "::", group = "ff02::7:1", other = "ff02::7:2", loopback = "::1" },
    { name = "v6, node-local", any = "::", group = "ff01::7:1", other = "ff01::7:2", loopback = "::1" },
  }

  for _, scope in ipairs(scopes) do
    it_wire("a group arrives while it is joined, and no other: " .. scope.name, function()
      local words = alone:run([[
        local any, group, other, loopback = ...
        local sock = keep(ip.udp.bind(any, 0))
        local out = keep(ip.udp.bind(loopback, 0, { multicast_interface = "lo" }))
        local function send(text, to) out:send_to(text, to, sock.local_port) end
        local function heard()
          local text, address, port = sock:receive_string()
          assert(address == ip.address.new(loopback) and port == out.local_port)
          return text
        end
        send("early", group)
        sock:set_option("join_multicast_group", group, "lo")
        send("other", other)
        send("wanted", group)
        local first = heard()
        sock:set_option("leave_multicast_group", group, "lo")
        send("late", group)
        send("end", loopback)
        return first, heard()
      ]], scope.any, scope.group, scope.other, scope.loopback)
      assert.equal("wanted end", words)
    end)

    it_wire("a socket bound to a group hears that alone: " .. scope.name, function()
      local words = alone:run([[
        local _, group, other, loopback = ...
        local sock = keep(ip.udp.bind(group, 0, { interface = "lo" }))
        local out = keep(ip.udp.bind(loopback, 0, { multicast_interface = "lo" }))
        for _, to in ipairs { loopback, other, group } do out:send_to(to, to, sock.local_port) end
        return next_of(sock)
      ]], scope.any, scope.group, scope.other, scope.loopback)
      assert.equal(scope.group, words)
    end)
  end
end)
