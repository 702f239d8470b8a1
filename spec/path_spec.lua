-- What a socket promises about the path its datagrams take: devices, path MTU discovery, errors that the network
-- reports, addresses and interfaces that go away.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local network = require "spec.support.namespaces"
local platform = require "spec.support.platform"
local support = require "spec.support"

local with_loop = support.with_loop
local assert_raises, assert_bad_argument = assertions.assert_raises, assertions.assert_bad_argument
local it_linux = platform.it_linux

local function opened(family, v6_only)
  local sock = ip.udp.socket.new()
  sock:open(family)
  if v6_only ~= nil then sock:set_option("v6_only", v6_only) end
  return sock
end

local names = { "bind_to_device", "path_mtu_discovery", "error" }

it_linux("options of the path need an open socket, before they look at their arguments", with_loop(function()
  local sock = ip.udp.socket.new()
  for _, name in ipairs(names) do
    assert_raises("EBADF", nil, sock.get_option, sock, name)
    assert_raises("EBADF", nil, sock.set_option, sock, name, {})
  end
end))

describe("bind_to_device", function()
  it_linux("is set, read back and released by name", with_loop(function()
    local sock <close> = support.bound()
    assert.equal("", sock:get_option("bind_to_device"))
    local ok, err = pcall(sock.set_option, sock, "bind_to_device", "lo")
    if not ok then -- before Linux 5.7 it needs privileges
      assert.equal(ip.error.EPERM, err)
      return
    end
    assert.equal("lo", sock:get_option("bind_to_device"))
    sock:set_option("bind_to_device", "")
    assert.equal("", sock:get_option("bind_to_device"))
  end))

  it_linux("raises ENODEV for a name that no device has, whatever its length", with_loop(function()
    local sock <close> = support.bound()
    for _, name in ipairs { "nosuch0", ("l"):rep(15), ("l"):rep(16), ("l"):rep(1000), "lo\0", "\0", "127.0.0.1" } do
      assert_raises("ENODEV", nil, sock.set_option, sock, "bind_to_device", name)
      assert.equal("", sock:get_option("bind_to_device"))
    end
  end))

  it_linux("takes a name alone", with_loop(function()
    local sock <close> = support.bound()
    for _, value in ipairs { 1, true, {}, print, ip.address.loopback_v4() } do
      assert_bad_argument(2, "to 'set_option'", function() sock:set_option("bind_to_device", value) end)
    end
    assert_bad_argument(2, "to 'set_option'", function() sock:set_option("bind_to_device") end)
    assert_bad_argument(2, "to 'set_option'", function() sock:set_option("bind_to_device", nil) end)
  end))
end)

describe("path_mtu_discovery", function()
  for _, kind in ipairs { { "v4" }, { "v6", true }, { "v6", false } } do
    local title = kind[1] == "v4" and "v4" or kind[2] and "v6" or "dual-stack"
    local it_kind = platform.it_linux_family(kind[1])

    it_kind("takes each of its values on a " .. title .. " socket, and nothing else", with_loop(function()
      local sock <close> = opened(table.unpack(kind))
      for _, value in ipairs { "dont", "want", "do", "probe" } do
        assert.is_nil(sock:set_option("path_mtu_discovery", value))
        assert.equal(value, sock:get_option("path_mtu_discovery"))
      end
      for _, value in ipairs { "Do", "", "do ", "do\0", "interface", "omit", 2, true, {} } do
        assert_bad_argument(2, "to 'set_option'", function() sock:set_option("path_mtu_discovery", value) end)
      end
      assert_bad_argument(2, "to 'set_option'", function() sock:set_option("path_mtu_discovery") end)
      assert.equal("probe", sock:get_option("path_mtu_discovery"))
    end))
  end
end)

describe("error", function()
  it("is nil while there is none, and cannot be set", with_loop(function()
    local sock <close> = support.bound()
    assert.is_nil(sock:get_option("error"))
    assert_raises("ENOTSUP", nil, sock.set_option, sock, "error", 0)
    assert_raises("ENOTSUP", nil, sock.set_option, sock, "error")
  end))

  for _, family in ipairs { "v4", "v6" } do
    local it_family = platform.it_linux_family(family)

    it_family("tells once what the network said of an earlier datagram over " .. family, with_loop(function()
      local sock <close> = support.bound(family)
      sock:connect(sock.local_address, support.dead_port(family))
      sock:send("x")
      local err
      support.wait_until(function()
        err = sock:get_option("error")
        return err ~= nil
      end)
      assert.equal(ip.error.ECONNREFUSED, err)
      assert.is_nil(err.mtu)
      assert.equal("connection refused (ECONNREFUSED)", tostring(err))
      assert.is_nil(sock:get_option("error"))
      assert.is_nil((sock:try_receive(ip.byte_span.new(1))))
      assert.equal(1, sock:send("y"))
    end))
  end
end)

-- Through a router ----------------------------------------------------------------------------------------------------

local it_wire = network.it_wire()

-- `a` and `b` with the router `r` between them; the link to `b` takes 1280 bytes. A router bounds the errors that it
-- sends to one address, so that those who want some have an address of their own.
local paths = {
  { name = "v4", any = "0.0.0.0", own = "10.78.1.11", b = "10.78.2.2", forbidden = "10.78.9.1",
    forbidden_error = "EHOSTUNREACH", nowhere = "10.78.10.1", machine = "10.78.1.1", router = "10.78.1.2",
    absent = { "10.78.1.99", "10.78.2.99" } },
  { name = "v6", any = "::", own = "fd78:1::1", b = "fd78:2::2", forbidden = "fd78:9::1", forbidden_error = "EACCES",
    nowhere = "fd78:10::1", machine = "fd78:1::1", router = "fd78:1::2", absent = { "fd78:1::99", "fd78:2::99" } },
  { name = "dual-stack", any = "::", own = "::ffff:10.78.1.12", b = "::ffff:10.78.2.2", forbidden = "::ffff:10.78.9.1",
    forbidden_error = "EHOSTUNREACH", nowhere = "::ffff:10.78.10.1",
    machine = "::ffff:10.78.1.1", router = "::ffff:10.78.1.2", absent = { "::ffff:10.78.1.98", "::ffff:10.78.2.98" } },
}

describe("through a router", function()
  local net, a, b

  network.for_specs({ "a", "r", "b" }, function(made)
    net = made
    for _, parameter in ipairs { "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding" } do
      net:system("r", parameter, 1)
    end
    for _, parameter in ipairs { "net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit" } do
      net:system("r", parameter, 0)
    end
    net:join("near", "a", { "10.78.1.1/24", "10.78.1.11/24", "10.78.1.12/24", "fd78:1::1/64" },
      "r", { "10.78.1.2/24", "fd78:1::2/64" })
    net:join("far", "r", { "10.78.2.1/24", "fd78:2::1/64" }, "b", { "10.78.2.2/24", "fd78:2::2/64" })
    net:ip("r", "link set far mtu 1280")
    net:ip("b", "link set far mtu 1280")
    net:ip("a", "route add default via 10.78.1.2")
    net:ip("a", "-6 route add default via fd78:1::2")
    net:ip("b", "route add default via 10.78.2.1")
    net:ip("b", "-6 route add default via fd78:2::1")
    net:ip("r", "route add prohibit 10.78.9.0/24")
    net:ip("r", "-6 route add prohibit fd78:9::/64")
    net:ip("a", "route add unreachable 10.78.10.0/24")
    net:ip("a", "-6 route add unreachable fd78:10::/64")
    for name, link in pairs { a = "near", r = "far" } do -- they look for a host once, and give up soon
      for _, family in ipairs { "ipv4", "ipv6" } do
        net:system(name, ("net.%s.neigh.%s.mcast_solicit"):format(family, link), 1)
        net:system(name, ("net.%s.neigh.%s.retrans_time_ms"):format(family, link), 100)
      end
    end
    a, b = net:agent("a"), net:agent("b")
  end)

  after_each(function()
    if not net then return end
    net:ip("a", "route flush cache") -- the path MTUs that were learnt
    net:ip("a", "-6 route flush cache")
  end)

  -- A receiver in `b`; its port.
  local function receiver(path)
    return math.tointeger(b:run("sock = keep(ip.udp.bind((...), 0)) return sock.local_port", path.any))
  end

  for _, path in ipairs(paths) do
    local function it_path(name, fn)
      it_wire(("over %s %s"):format(path.name, name), fn)
    end

    it_path("path_mtu_discovery \"do\" learns what the path takes", function()
      local port = receiver(path)
      a:run([[
        local to, port = ...
        sock = keep(ip.udp.connect(to, port, { path_mtu_discovery = "do" }))
        large, small = ("x"):rep(1400), ("x"):rep(1200)
        sock:send(large)
      ]], path.b, port)
      assert.equal("EMSGSIZE", a:run "return error_of(sock.receive_string, sock)")
      assert.equal("1280", a:run "return sock:get_option('mtu')")
      assert.equal("EMSGSIZE", a:run "return error_of(sock.send, sock, large)")
      assert.equal("1200", a:run "return sock:send(small)")
      assert.equal("1200", b:run "return #next_of(sock)")
    end)

    it_path("the option error knows the path MTU", function()
      local port = receiver(path)
      assert.equal("EMSGSIZE 1280 nil", a:run([[
        local to, port = ...
        sock = keep(ip.udp.connect(to, port, { path_mtu_discovery = "do" }))
        sock:send(("x"):rep(1400))
        local err
        repeat
          fiber.sleep(0.001)
          err = sock:get_option("error")
        until err
        return err.name, err.mtu, sock:get_option("error")
      ]], path.b, port))
    end)

    it_path("path_mtu_discovery \"dont\" and \"want\" get large datagrams through", function()
      local port = receiver(path)
      for _, mode in ipairs { "want", "dont" } do
        a:run([[
          local to, port, mode = ...
          sock = keep(ip.udp.connect(to, port, { path_mtu_discovery = mode }))
          sock:send(("x"):rep(1400))
        ]], path.b, port, mode)
        -- the first one may be lost in learning the path's MTU; the next ones are cut in pieces before they leave
        a:run [[
          local learns = sock:get_option("path_mtu_discovery") == "want"
          repeat fiber.sleep(0.001) until not learns or sock:get_option("mtu") == 1280
          sock:get_option("error")
          sock:send(("y"):rep(1401))
        ]]
        assert.equal("true", b:run "repeat local text = next_of(sock) until #text == 1401 return true")
      end
    end)

    it_path("unicast_hops bounds how far datagrams go", function()
      local port = receiver(path)
      a:run([[
        local to, port = ...
        sock = keep(ip.udp.connect(to, port, { unicast_hops = 1 }))
        sock:send("lost")
        sock:set_option("unicast_hops", 2)
        sock:send("arrives")
      ]], path.b, port)
      assert.equal("arrives", b:run "return next_of(sock)")
    end)

    it_path("a router's refusal surfaces in a receive, or in a send, once", function()
      a:run([[
        local own, to = ...
        sock = keep(ip.udp.connect(to, 9, { local_address = own }))
        sock:send("x")
      ]], path.own, path.forbidden)
      assert.equal(path.forbidden_error, a:run "return error_of(sock.receive_string, sock)")
      assert.equal("EAGAIN", a:run "return select(2, sock:try_receive(byte_span.new(1))).name")
      assert.equal("1", a:run "return sock:send('y')")
      assert.equal(path.forbidden_error, a:run [[
        local name
        repeat
          fiber.sleep(0.001)
          name = error_of(sock.send, sock, "z")
        until name ~= "none"
        return name
      ]])
    end)

    it_path("a host that nobody is found at is EHOSTUNREACH, from the own machine or the router", function()
      local offenders = { path.machine, path.router }
      for i, absent in ipairs(path.absent) do
        assert.equal("EHOSTUNREACH EHOSTUNREACH " .. offenders[i] .. " " .. absent .. " 9", a:run([[
          local own, to = ...
          sock = keep(ip.udp.bind(own, 0, { receive_errors = true }))
          sock:send_to("x", to, 9)
          local name = error_of(sock.receive_string, sock)
          local info = sock:receive_error()
          return name, info.error.name, info.offender, info.address, info.port
        ]], path.own, absent))
      end
    end)

    it_path("a connected socket without receive_errors is not told of a host that nobody is found at", function()
      assert.equal("ECONNREFUSED", a:run([[
        local own, absent, there = ...
        sock = keep(ip.udp.connect(absent, 9, { local_address = own }))
        sock:send("x")
        local teller <close> = ip.udp.bind(own, 0, { receive_errors = true })
        teller:send_to("x", absent, 9)
        assert(error_of(teller.receive_string, teller) == "EHOSTUNREACH") -- this much later
        sock:connect(there, 9)
        sock:send("x")
        return error_of(sock.receive_string, sock) -- nothing of the absent host came before
      ]], path.own, path.absent[2], path.b))
    end)

    it_path("a peer without a route is told at once", function()
      local expected = "EHOSTUNREACH"
      assert.equal(expected, a:run("return error_of(ip.udp.connect, (...), 9)", path.nowhere))
      assert.equal(expected, a:run([[
        local any, to = ...
        local sock = keep(ip.udp.bind(any, 0))
        return error_of(sock.send_to, sock, "x", to, 9)
      ]], path.any, path.nowhere))
    end)
  end

  it_wire("a socket outlives the address that it is bound to, and works again when it is back", function()
    local port = receiver(paths[1])
    net:ip("a", "address add 10.78.1.7/24 dev near")
    a:run [[
      sock = keep(ip.udp.bind("10.78.1.7", 0))
      waiting = fiber.spawn(function() return sock:receive_string() end)
      fiber.yield()
    ]]
    net:ip("a", "address delete 10.78.1.7/24 dev near")
    assert.not_equal("none", a:run("return error_of(sock.send_to, sock, 'x', '10.78.2.2', ...)", port))
    assert.equal("waiting", a:run "fiber.yield() return waiting.status")
    net:ip("a", "address add 10.78.1.7/24 dev near")
    a:run("sock:send_to('ping', '10.78.2.2', ...)", port)
    assert.equal("ping 10.78.1.7", b:run [[
      local text, from, from_port = sock:receive_string()
      sock:send_to("pong", from, from_port)
      return text, from
    ]])
    assert.equal("pong", a:run "return (waiting:join())")
    net:ip("a", "address delete 10.78.1.7/24 dev near")
  end)

  it_wire("a fiber waits on while its interface is down, can be cancelled, and traffic flows after it", function()
    a:run [[
      sock = keep(ip.udp.bind("10.78.1.1", 0))
      function wait_again()
        waiting = fiber.spawn(function()
          local ok, result = pcall(sock.receive_string, sock)
          return ok and result or result.name
        end)
        fiber.yield()
      end
      wait_again()
    ]]
    net:ip("a", "link set near down")
    assert.equal("waiting", a:run "fiber.sleep(0.01) return waiting.status")
    assert.equal("ENETUNREACH", a:run "return error_of(sock.send_to, sock, 'x', '10.78.2.2', 9)")
    assert.equal("ECANCELED", a:run "sock:cancel() return (waiting:join())")
    a:run "wait_again()"
    net:ip("a", "link set near up")
    net:ip("a", "address replace fd78:1::1/64 dev near nodad") -- v6 addresses go with the link
    net:await("a", "near")
    net:await("r", "near")
    net:ip("a", "route replace default via 10.78.1.2")
    net:ip("a", "-6 route replace default via fd78:1::2")
    assert.equal("waiting", a:run "return waiting.status")
    b:run([[
      local out <close> = ip.udp.bind("0.0.0.0", 0)
      out:send_to("again", "10.78.1.1", (...))
    ]], math.tointeger(a:run "return sock.local_port"))
    assert.equal("again", a:run "return (waiting:join())")
  end)
end)
