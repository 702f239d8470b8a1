-- What connecting again and disconnecting promise: the peer is replaced whatever both are, the source address follows
-- the new route, and the port, the device, the scope and every option survive. A connect that fails changes nothing.
local ip = require "ip"
local support = require "spec.support"
local network = require "spec.support.namespaces"
local platform = require "spec.support.platform"

local error_of, with_loop = support.error_of, support.with_loop


describe("a port that the system chose", function()
  local function answered(client, server)
    local _, address, port = server:receive_string()
    server:send_to("answer", address, port)
    return (client:receive_string())
  end

  for _, kind in ipairs { { "v4", "127.0.0.1" }, { "v6", "::1" } } do
    local family, loopback = table.unpack(kind)
    local it_family = platform.it_family(family)

    it_family("for a send stays through connect and disconnect, with its answers: " .. family, with_loop(function()
      local server <close> = ip.udp.bind(loopback, 0)
      local client <close> = ip.udp.socket.new()
      client:open(family)
      client:send_to("query", loopback, server.local_port)
      local port = client.local_port
      client:connect(loopback, server.local_port)
      client:disconnect()
      assert.equal(port, client.local_port)
      assert.equal("answer", answered(client, server))
    end))

    it_family("for connect stays through further connects and disconnect: " .. family, with_loop(function()
      local first <close> = ip.udp.bind(loopback, 0)
      local second <close> = ip.udp.bind(loopback, 0)
      local client <close> = ip.udp.connect(loopback, first.local_port)
      local port = client.local_port
      for _, server in ipairs { second, first } do
        client:connect(loopback, server.local_port)
        assert.equal(port, client.local_port)
        client:send("query")
        assert.equal("answer", answered(client, server))
      end
      client:disconnect()
      assert.equal(port, client.local_port)
      client:send_to("query", loopback, second.local_port)
      assert.equal("answer", answered(client, second))
    end))
  end

  it("stays when sockets share it", with_loop(function()
    local options = { reuse_port = true }
    local sock <close> = ip.udp.bind("127.0.0.1", 0, options)
    local port = sock.local_port
    local other <close> = ip.udp.bind("127.0.0.1", port, options)
    local peer <close> = ip.udp.bind("127.0.0.1", 0)
    for _ = 1, 2 do sock:connect("127.0.0.1", peer.local_port) end
    sock:disconnect()
    assert.equal(port, sock.local_port)
    assert.equal(port, other.local_port)
  end))

  it("stays on a descriptor that was adopted while it was connected", with_loop(function()
    local first <close> = ip.udp.bind("127.0.0.1", 0)
    local second <close> = ip.udp.bind("127.0.0.1", 0)
    local maker = ip.udp.connect("127.0.0.1", first.local_port)
    local port = maker.local_port
    local heir <close> = ip.udp.socket.new()
    heir:assign("v4", maker:release())
    heir:connect("127.0.0.1", second.local_port)
    assert.equal(port, heir.local_port)
    heir:disconnect()
    assert.equal(port, heir.local_port)
    assert.equal("0.0.0.0", tostring(heir.local_address))
  end))
end)

describe("a connect that fails", function()
  it("leaves the peer, the port and what the peer sends", with_loop(function()
    local peer <close> = ip.udp.bind("127.0.0.1", 0)
    local sock <close> = ip.udp.connect("127.0.0.1", peer.local_port)
    local port = sock.local_port
    assert.equal(ip.error.EACCES, error_of(sock.connect, sock, "255.255.255.255", 9)) -- without the option `broadcast`
    assert.equal(peer.local_port, sock.remote_port)
    assert.equal(port, sock.local_port)
    sock:send("still there")
    assert.equal("still there", (peer:receive_string()))
    peer:send_to("so am I", "127.0.0.1", port)
    assert.equal("so am I", (sock:receive_string()))
  end))

  it("leaves a suspended receive waiting for the former peer alone", with_loop(function()
    local peer <close> = ip.udp.bind("127.0.0.1", 0)
    local other <close> = ip.udp.bind("127.0.0.1", 0)
    local sock <close> = ip.udp.connect("127.0.0.1", peer.local_port)
    local waiting = ip.fiber.spawn(sock.receive_string, sock)
    ip.fiber.yield()
    assert.equal(ip.error.EACCES, error_of(sock.connect, sock, "255.255.255.255", 9))
    other:send_to("other", "127.0.0.1", sock.local_port)
    peer:send_to("peer", "127.0.0.1", sock.local_port)
    assert.equal("peer", (waiting:join()))
  end))

  it("leaves a socket without a peer without one", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0)
    local port = sock.local_port
    assert.equal(ip.error.EACCES, error_of(sock.connect, sock, "255.255.255.255", 9))
    assert.equal(ip.error.ENOTCONN, error_of(function() return sock.remote_port end))
    assert.equal(port, sock.local_port)
  end))
end)

-- Between two machines with two links -------------------------------------------------------------------------------

describe("on a machine with two links", function()
  local it_wire = network.it_wire()
  local net, a

  network.for_specs({ "a", "b" }, function(made)
    net = made
    net:join("left", "a", { "10.79.1.1/24", "fd79:1::1/64" }, "b", { "10.79.1.2/24", "fd79:1::2/64" })
    net:join("right", "a", { "10.79.2.1/24", "fd79:2::1/64" }, "b", { "10.79.2.2/24", "fd79:2::2/64" })
    net:ip("a", "route add 239.0.0.0/8 dev right")
    a = net:agent "a"
    a:run [[
      function source_of(sock)
        return (tostring(sock.local_address):gsub("^fe80:[^%%]*", "fe80:"))
      end
      function device_of(sock) return "[" .. sock:get_option "bind_to_device" .. "]" end
      function opened(family) local sock = keep(ip.udp.socket.new()) sock:open(family) return sock end
    ]]
  end)

  local routes = { -- peer, and the source address that a socket of its own would have
    { "127.0.0.1", "127.0.0.1" }, { "10.79.1.2", "10.79.1.1" }, { "10.79.2.2", "10.79.2.1" },
    { "239.1.2.3", "10.79.2.1" },
    { "::1", "::1" }, { "fd79:1::2", "fd79:1::1" }, { "fd79:2::2", "fd79:2::1" },
    { "fe80::1%left", "fe80:%left" }, { "fe80::1%right", "fe80:%right" },
    { "ff02::5%left", "fe80:%left" }, { "ff02::5%right", "fe80:%right" },
  }

  local function each_pair(v6, fn)
    for _, first in ipairs(routes) do
      for _, second in ipairs(routes) do
        local both_v4 = not first[1]:find ":" and not second[1]:find ":"
        if v6 or both_v4 then fn(first, second) end
      end
    end
  end

  local function mapped(text)
    return text:find ":" and text or "::ffff:" .. text
  end

  local connect_twice = [[
    local family, first, second = ...
    local sock = opened(family)
    sock:connect(first, 7)
    local port = sock.local_port
    sock:connect(second, 7)
    assert(sock.local_port == port)
    local source, peer = source_of(sock), sock.remote_address
    sock:disconnect()
    assert(sock.local_port == port and sock.local_address.is_unspecified)
    return source, peer, device_of(sock)
  ]]

  it_wire("a v4 socket goes from any peer to any other, and its source address with it", function()
    each_pair(false, function(first, second)
      assert.equal(("%s %s []"):format(second[2], second[1]), a:run(connect_twice, "v4", first[1], second[1]))
    end)
  end)

  it_wire("a dual-stack socket does so across the families", function()
    each_pair(true, function(first, second)
      assert.equal(("%s %s []"):format(mapped(second[2]), mapped(second[1])),
        a:run(connect_twice, "v6", first[1], second[1]))
    end)
  end)

  it_wire("an address that the owner bound to stays the source", function()
    for _, address in ipairs { "10.79.1.1", "fd79:1::1" } do
      local peers = address:find ":" and { "fd79:1::2", "fd79:2::2", "fd79:1::1" } or { "10.79.1.2", "10.79.2.2" }
      assert.equal("true", a:run([[
        local address = ip.address.parse(...)
        local sock = keep(ip.udp.bind(address, 0))
        local port = sock.local_port
        for _, peer in ipairs { select(2, ...) } do
          sock:connect(peer, 7)
          assert(sock.local_address == address and sock.local_port == port)
        end
        sock:disconnect()
        return sock.local_address == address and sock.local_port == port
      ]], address, table.unpack(peers)))
    end
  end)

  it_wire("a connect that fails leaves peer, source, port and device, whatever they are", function()
    local failing = { "203.0.113.1", "2001:db8::1", "fe80::1%9999", "ff02::5%9999" }
    for _, former in ipairs(routes) do
      for _, peer in ipairs(failing) do
        assert.equal("true true true true", a:run([[
          local former, peer = ...
          local sock = opened "v6"
          sock:connect(former, 7)
          local source, remote, port, device = sock.local_address, sock.remote_address, sock.local_port, device_of(sock)
          assert(error_of(sock.connect, sock, peer, 9) ~= "none")
          return source == sock.local_address, remote == sock.remote_address, port == sock.local_port,
            device == device_of(sock)
        ]], former[1], peer))
      end
    end
  end)

  it_wire("a first connect that fails leaves no device and no scope behind", function()
    assert.equal("ENETUNREACH [] fd79:2::1", a:run [[
      local sock = opened "v6"
      local problem = error_of(sock.connect, sock, "fe80::1%9999", 7)
      local device = device_of(sock)
      sock:connect("fd79:2::2", 7)
      return problem, device, sock.local_address
    ]])
  end)

  it_wire("bind_to_device stays through connect, connect again and disconnect, and keeps others out", function()
    for _, family in ipairs { "v4", "v6" } do
      assert.equal("[left] [left] [left] ETIMEDOUT", a:run([[
        local family = ...
        local any, loopback = "0.0.0.0", "127.0.0.1"
        if family == "v6" then any, loopback = "::", "::1" end
        local peers = family == "v4" and { "10.79.1.2", "10.79.1.3" } or { "fd79:1::2", "fe80::1%left" }
        local sock = keep(ip.udp.bind(any, 0, { bind_to_device = "left", receive_timeout = 0.1 }))
        local devices = {}
        for _, peer in ipairs(peers) do
          sock:connect(peer, 7)
          devices[#devices + 1] = device_of(sock)
        end
        sock:disconnect()
        keep(ip.udp.bind(loopback, 0)):send_to("over lo", loopback, sock.local_port)
        return devices[1], devices[2], device_of(sock), error_of(sock.receive_string, sock)
      ]], family))
    end
  end)

  it_wire("a device that is set, changed or unset while the socket is connected counts as well", function()
    assert.equal("[left] [right] []", a:run [[
      local sock = opened "v6"
      local devices = {}
      for i, device in ipairs { "left", "right", "" } do
        sock:connect(i == 3 and "fd79:2::2" or "fd79:1::2", 7)
        sock:set_option("bind_to_device", device)
        sock:disconnect()
        devices[i] = device_of(sock)
      end
      return table.unpack(devices)
    ]])
  end)

  it_wire("the link that connect chose is the owner's once the owner has set it", function()
    assert.equal("[left]", a:run [[
      local sock = opened "v6"
      sock:connect("fe80::1%left", 7)
      sock:set_option("bind_to_device", "left")
      sock:disconnect()
      return device_of(sock)
    ]])
  end)

  it_wire("the scope of a link-local bind stays", function()
    assert.equal("true true true", a:run [[
      local address
      for _, entry in ipairs(ip.interfaces()) do
        if entry.name == "left" and entry.address.is_v6 and entry.address.is_link_local then address = entry.address end
      end
      local results = {}
      for i, port in ipairs { 0, 5555 } do
        local sock = keep(ip.udp.bind(address, port))
        sock:connect("fe80::1%left", 9)
        sock:connect("fe80::2%left", 9)
        results[i] = sock.local_address == address
        sock:disconnect()
        results[i] = results[i] and sock.local_address == address
      end
      results[3] = results[1] and results[2]
      return table.unpack(results)
    ]])
  end)

  it_wire("a device stays on a descriptor that was adopted while it was connected", function()
    assert.equal("[left] [left]", a:run [[
      local maker = ip.udp.bind("0.0.0.0", 0, { bind_to_device = "left" })
      maker:connect("10.79.1.2", 7)
      local heir = keep(ip.udp.socket.new())
      heir:assign("v4", maker:release())
      heir:connect("10.79.1.3", 7)
      local connected = device_of(heir)
      heir:disconnect()
      return connected, device_of(heir)
    ]])
  end)

  it_wire("needs no privilege for any of this", function()
    local script = [[
      local ip = require "ip"
      local sock = ip.udp.bind("0.0.0.0", 0, { bind_to_device = "left" })
      local port = sock.local_port
      sock:connect("10.79.1.2", 7)
      sock:connect("10.79.1.3", 7)
      sock:disconnect()
      local other = ip.udp.socket.new()
      other:connect("fe80::1%left", 7)
      other:connect("fd79:2::2", 7)
      io.write(sock:get_option "bind_to_device", " ", tostring(sock.local_port == port), " ",
        tostring(other.local_address))
    ]]
    local path = os.tmpname()
    local file <close> = assert(io.open(path, "w"))
    file:write(script)
    file:close()
    os.execute("chmod 644 " .. path)
    local pipe = assert(io.popen(net.machines.a:program(("setpriv --reuid 65534 --clear-groups %s %s 2>&1"):format(
      os.getenv "LUA_IP_LUA" or "lua5.4", path))))
    local output = pipe:read "a"
    pipe:close()
    os.remove(path)
    assert.equal("left true fd79:2::1", output)
  end)
end)
