-- What info.local_address promises: the address of this system that a datagram can be answered from, wherever it was
-- sent to; and that reply_message answers from there.
local ip = require "ip"
local garbage_of = require "spec.support.memory".garbage_of
local network = require "spec.support.namespaces"
local platform = require "spec.support.platform"
local support = require "spec.support"

local with_loop = support.with_loop
local is_linux, has_v6 = platform.is_linux, platform.has_v6
local it_linux = platform.it_linux
local it_linux_v6 = platform.it_where(is_linux and has_v6)

local ON = { receive_packet_info = true }

-- Sends to the server's port at `address`; returns what the server is told, and who answers the client.
local function exchange(server, client, address)
  local buf = ip.byte_span.new(10)
  client:send_to("who?", address, server.local_port)
  local _, info = server:receive_message(buf)
  server:reply_message("me", info)
  local _, from = client:receive_string()
  return info, tostring(from)
end

describe("info.local_address", function()
  it_linux("is the destination of a unicast datagram, and the same object", with_loop(function()
    local server <close> = ip.udp.bind("0.0.0.0", 0, ON)
    local client <close> = ip.udp.bind("127.0.0.1", 0)
    for _, address in ipairs { "127.0.0.1", "127.0.0.2" } do
      local info, from = exchange(server, client, address)
      assert.equal(ip.address.new(address), info.local_address)
      assert.is_true(rawequal(info.destination, info.local_address))
      assert.equal(address, from)
    end
  end))

  it_linux_v6("is the destination of a unicast datagram over v6", with_loop(function()
    local server <close> = ip.udp.bind("::", 0, { v6_only = false, receive_packet_info = true })
    local v6 <close> = ip.udp.bind("::1", 0)
    local v4 <close> = ip.udp.bind("127.0.0.1", 0)
    assert.equal("::1", tostring(exchange(server, v6, "::1").local_address))
    assert.equal("::ffff:127.0.0.1", tostring(exchange(server, v4, "127.0.0.1").local_address))
  end))

  it_linux("of a broadcast on loopback is an address of loopback", with_loop(function()
    local server <close> = ip.udp.bind("0.0.0.0", 0, ON)
    local client <close> = ip.udp.bind("0.0.0.0", 0, { broadcast = true })
    local info, from = exchange(server, client, "127.255.255.255")
    assert.equal("127.255.255.255", tostring(info.destination))
    assert.equal("127.0.0.1", tostring(info.local_address))
    assert.equal("127.0.0.1", from)
  end))

  it_linux("is nil without receive_packet_info, also in a table that had it", with_loop(function()
    local server <close> = ip.udp.bind("127.0.0.1", 0, ON)
    local client <close> = ip.udp.bind("127.0.0.1", 0)
    local info = exchange(server, client, "127.0.0.1")
    assert.is_not_nil(info.local_address)
    server:set_option("receive_packet_info", false)
    client:send_to("x", "127.0.0.1", server.local_port)
    server:receive_message(ip.byte_span.new(1), info)
    assert.is_nil(info.local_address)
  end))

  it_linux("makes no garbage while it does not change", with_loop(function()
    local server <close> = ip.udp.bind("127.0.0.1", 0, ON)
    local client <close> = ip.udp.connect("127.0.0.1", server.local_port)
    local buf, info = ip.byte_span.new(10), {}
    local function round()
      client:send("x")
      server:receive_message(buf, info)
    end
    local bytes = garbage_of(round, 200, 20)
    assert.is_true(bytes < 100, bytes .. " bytes")
  end))

  it_linux("is what reply_message answers from; an address that is not this system's is refused", with_loop(function()
    local server <close> = ip.udp.bind("0.0.0.0", 0, ON)
    local client <close> = ip.udp.bind("127.0.0.1", 0)
    local info = { address = client.local_address, port = client.local_port, local_address = "127.0.0.9" }
    server:reply_message("x", info)
    assert.equal("127.0.0.9", tostring(select(2, client:receive_string())))
    info.destination = ip.address.new("127.255.255.255")
    server:reply_message("x", info)
    assert.equal("127.0.0.9", tostring(select(2, client:receive_string())))
    info.local_address = "192.0.2.1"
    assert.is_false((pcall(server.reply_message, server, "x", info)))
    info.local_address = 5
    local ok, problem = pcall(server.reply_message, server, "x", info)
    assert.is_false(ok)
    assert.is_truthy(tostring(problem):find("field 'local_address'", 1, true))
  end))
end)

describe("between two machines, info.local_address", function()
  local it_wire = network.it_wire()
  local net, a, b

  network.for_specs({ "a", "b" }, function(made)
    net = made
    net:join("one", "a", { "10.77.1.1/24", "fd77:1::1/64" }, "b", { "10.77.1.2/24", "10.77.1.3/24", "fd77:1::2/64" })
    net:join("two", "a", { "10.77.2.1/24" }, "b", { "10.77.2.2/24" })
    a, b = net:agent("a"), net:agent("b")
  end)

  -- What `b` is told of a datagram of `a`, and from where its answer comes. `receive` sets `info`.
  local function ask(server, from, to, receive)
    local port = math.tointeger(b:run("sock = keep(" .. server .. ") buf = byte_span.new(99) return sock.local_port"))
    b:run [[
      for _, group in ipairs { "239.255.7.1", "ff05::7:1" } do
        for _, link in ipairs { "one", "two" } do pcall(sock.set_option, sock, "join_multicast_group", group, link) end
      end
    ]]
    a:run([[
      local from, to, port = ...
      client = keep(ip.udp.bind(from, 0, { broadcast = true }))
      local link = from:match("^10%.77%.2") and "two" or "one"
      client:set_option("multicast_interface", link)
      client:send_to("who?", to, port)
    ]], from, to, port)
    b:run(receive or "n, info = sock:receive_message(buf)")
    b:run "sock:reply_message('me', info)"
    return b:run("return info.destination, info.local_address"), a:run "return (select(2, client:receive_string()))"
  end

  local v4 = "ip.udp.bind('0.0.0.0', 0, { receive_packet_info = true })"
  local dual = "ip.udp.bind('::', 0, { v6_only = false, receive_packet_info = true })"

  it_wire("of a subnet's broadcast is the address on that subnet", function()
    for _, subnet in ipairs { "10.77.1", "10.77.2" } do
      local told, answered = ask(v4, subnet .. ".1", subnet .. ".255")
      assert.equal(subnet .. ".255 " .. subnet .. ".2", told)
      assert.equal(subnet .. ".2", answered)
    end
  end)

  it_wire("of a broadcast to everybody is the address on the link that it came by", function()
    net:ip("a", "route add 255.255.255.255 dev two")
    local told, answered = ask(v4, "10.77.2.1", "255.255.255.255")
    net:ip("a", "route delete 255.255.255.255 dev two")
    assert.equal("255.255.255.255 10.77.2.2", told)
    assert.equal("10.77.2.2", answered)
  end)

  it_wire("of a v4 group is the address on the link that it came by", function()
    for _, subnet in ipairs { "10.77.1", "10.77.2" } do
      local told, answered = ask(v4, subnet .. ".1", "239.255.7.1")
      assert.equal("239.255.7.1 " .. subnet .. ".2", told)
      assert.equal(subnet .. ".2", answered)
    end
  end)

  it_wire("is another address of the link where that was asked", function()
    local told, answered = ask(v4, "10.77.1.1", "10.77.1.3")
    assert.equal("10.77.1.3 10.77.1.3", told)
    assert.equal("10.77.1.3", answered)
  end)

  it_wire("is v4-mapped on a dual-stack socket", function()
    local told, answered = ask(dual, "10.77.2.1", "10.77.2.255")
    assert.equal("::ffff:10.77.2.255 ::ffff:10.77.2.2", told)
    assert.equal("10.77.2.2", answered)
    told, answered = ask(dual, "10.77.2.1", "239.255.7.1")
    assert.equal("::ffff:239.255.7.1 ::ffff:10.77.2.2", told)
    assert.equal("10.77.2.2", answered)
  end)

  it_wire("is nil for a v6 group, which is answered from where the route leads", function()
    local told, answered = ask(dual, "fd77:1::1", "ff05::7:1")
    assert.equal("ff05::7:1 nil", told)
    assert.equal("fd77:1::2", answered)
  end)

  it_wire("is there for batches, and for datagrams that coalesce has read ahead", function()
    local batch = "local batch = ip.udp.batch.new(3) assert(sock:receive_many(batch) == 1) info = batch:info(1)"
    local told, answered = ask(v4, "10.77.1.1", "10.77.1.255", batch)
    assert.equal("10.77.1.255 10.77.1.2", told)
    assert.equal("10.77.1.2", answered)
    told = ask("ip.udp.bind('0.0.0.0', 0, { receive_packet_info = true, coalesce = true })", "10.77.1.1", "10.77.1.255")
    assert.equal("10.77.1.255 10.77.1.2", told)
  end)
end)
