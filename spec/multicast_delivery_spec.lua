-- What multicast promises on the wire: who receives what, over which interface, from which source.
local network = require "spec.support.namespaces"

local it_wire = network.it_wire()

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

  network.for_specs({ "a", "b" }, function(made)
    net = made
    net:join("one", "a", { "10.77.1.1/24", "fd77:1::1/64" },
      "b", { "10.77.1.2/24", "10.77.1.3/24", "fd77:1::2/64", "fd77:1::3/64" })
    net:join("two", "a", { "10.77.2.1/24", "fd77:2::1/64" }, "b", { "10.77.2.2/24", "fd77:2::2/64" })
    a, b = net:agent("a"), net:agent("b")
  end)

  -- A receiver in `a`; its port.
  local function receiver(family, options)
    return math.tointeger(a:run([[
      local any, options = ...
      sock = keep(ip.udp.bind(any, 0, load("return " .. options)()))
      return sock.local_port
    ]], family.any, options or "{}"))
  end

  local function join(group, link)
    a:run("sock:set_option('join_multicast_group', ...)", group, link)
  end

  -- A receiver in `a` that has joined the family's group on the link `one`; its port.
  local function member(family)
    local port = receiver(family)
    join(family.group, "one")
    return port
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
      join(family.group, "one")
      send("other", family.b_one, "one", family.other, port)
      send("wanted", family.b_one, "one", family.group, port)
      assert.equal("wanted", received())
      a:run("sock:set_option('leave_multicast_group', ..., 'one')", family.group)
      send("late", family.b_one, "one", family.group, port)
      send("end", family.b_one, "one", family.a_one, port)
      assert.equal("end", received())
    end)

    it_family("a group is joined on one interface, not on the other", function()
      local port = member(family)
      send("wrong", family.b_two, "two", family.group, port)
      send("end", family.b_two, "two", family.a_two, port)
      assert.equal("end", received())
      send("right", family.b_one, "one", family.group, port)
      assert.equal("right", received())
      join(family.group, "two")
      send("both", family.b_two, "two", family.group, port)
      assert.equal("both", received())
    end)

    it_family("of two sources only the one that was joined is heard", function()
      local port = receiver(family)
      a:run("sock:set_option('join_source_group', ...)", family.group, family.b_one, "one")
      send("other", family.b_one_more, "one", family.group, port)
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
        send("other", family.b_one_more, "one", family.group, math.tointeger(port))
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
      local port = member(family)
      join(family.group, "two")
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
      local port = member(family)
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
      local port = member(family)
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
      join(family.group, "one")
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
    send("other", "10.77.1.3", "one", "239.255.7.2", port)
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
  local alone

  network.for_specs({ "alone" }, function(net)
    -- Linux makes any other v6 route by way of lo one that rejects
    net:ip("alone", "-6 route add local ff00::/8 dev lo")
    alone = net:agent("alone")
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
