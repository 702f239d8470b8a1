-- What the scope of an address promises to a send: the datagram leaves from that interface, whatever the address is and
-- whichever call sends it.
local network = require "spec.support.namespaces"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"

local it_wire = network.it_wire()

-- Sender `a` and receiver `b`, joined by two links with the same networks on both.
describe("a scope", function()
  local net, a, b

  network.for_specs({ "a", "b" }, function(made)
    net = made
    for _, link in ipairs { "one", "two" } do
      local host = link == "one" and 1 or 3
      net:join(link, "a", { ("fec0::%d/64"):format(host), ("fd77::%d/64"):format(host) },
        "b", { "fec0::2/64", "fd77::2/64" })
      net:ip("b", ("-6 address add fe80::77/64 dev %s nodad"):format(link))
    end
    a, b = net:agent("a"), net:agent("b")
    a:run [[
      -- Every way to send "x" to an address and port, on a socket with these options.
      ways = {}
      function ways.send_to(sock, address, port) sock:send_to("x", address, port) end
      function ways.try_send_to(sock, address, port) assert(sock:try_send_to("x", address, port)) end
      function ways.send_to_with(sock, address, port)
        sock:send_to_with(1, function(span) span:copy("x") end, address, port)
      end
      function ways.parts(sock, address, port) sock:send_to({ "x", "" }, address, port) end
      function ways.send_message(sock, address, port) sock:send_message("x", { address = address, port = port }) end
      function ways.send_message_hops(sock, address, port)
        sock:send_message("x", { address = address, port = port, hops = 9, traffic_class = 4 })
      end
      function ways.reply_message(sock, address, port)
        sock:reply_message("x", { address = ip.address.new(address), port = port })
      end
      function ways.segments(sock, address, port)
        sock:send_message("xy", { address = address, port = port, segment_size = 1 })
      end
      function ways.send_many(sock, address, port)
        local batch = ip.udp.batch.new(2)
        batch:set(1, "x", address, port)
        batch:set(2, "x", address, port, { hops = 9 })
        assert(sock:send_many(batch) == 2)
      end
      function ways.coalesce(sock, address, port)
        sock:set_option("coalesce", true)
        sock:send_to("x", address, port)
        sock:send_to("x", address, port)
        sock:flush()
      end
      function ways.segment_size(sock, address, port)
        sock:set_option("segment_size", 1)
        sock:send_to("xy", address, port)
      end
      -- connected
      function ways.send(sock, address, port)
        sock:connect(address, port)
        sock:send("x")
        assert(sock:try_send("x"))
      end
      function ways.send_connected_with(sock, address, port)
        sock:connect(address, port)
        sock:send_with(1, function(span) span:copy("x") end)
      end
      function ways.send_message_connected(sock, address, port)
        sock:connect(address, port)
        sock:send_message("x", { hops = 9 })
        sock:send_message("x", {})
      end
      function ways.send_many_connected(sock, address, port)
        sock:connect(address, port)
        local batch = ip.udp.batch.new(3)
        for i = 1, 3 do batch:set(i, "x") end
        sock:send_many(batch)
      end
      function ways.coalesce_connected(sock, address, port)
        sock:set_option("coalesce", true)
        sock:connect(address, port)
        sock:send("x")
        sock:send("x")
        sock:flush()
      end
      function ways.connect_again(sock, address, port)
        sock:connect("::1", 9)
        sock:connect(address, port)
        sock:send("x")
      end

      function other(link) return link == "one" and "two" or "one" end
      function open(link, options)
        options = options or {}
        options.multicast_interface = other(link)
        return ip.udp.bind("::", 0, options)
      end
      function send(way, address, link, port)
        local sock <close> = open(link)
        ways[way](sock, address .. "%" .. link, port)
      end
    ]]
    b:run [[
      sock = ip.udp.bind("::", 0, { receive_packet_info = true })
      for _, link in ipairs { "one", "two" } do
        for _, group in ipairs { "ff02::7:1", "ff05::7:1", "ff08::7:1", "ff0e::7:1" } do
          sock:set_option("join_multicast_group", group, link)
        end
      end
      index = {}
      for _, link in ipairs { "one", "two" } do index[ip.address.new("fe80::1%" .. link).scope_id] = link end
      -- The links that all datagrams up to one that says "end" came by, and the last sender.
      function heard()
        local buf, info, links, seen = byte_span.new(9), {}, {}, {}
        repeat
          local n = sock:receive_message(buf, info)
          local link = index[info.interface_index]
          if buf:sub(1, n) ~= "end" and not seen[link] then
            links[#links + 1], seen[link], from = link, true, info.address
          end
        until buf:sub(1, n) == "end"
        return table.concat(links, "+")
      end
    ]]
  end)

  local function port()
    return math.tointeger(b:run "return sock.local_port")
  end

  local function heard()
    b:run "local out <close> = ip.udp.bind('::1', 0) out:send_to('end', '::1', sock.local_port)"
    return b:run "return heard()"
  end

  local addresses = {
    { "ff02::7:1", "a link-local group" }, { "ff05::7:1", "a site-local group" },
    { "ff08::7:1", "an organization's group" }, { "ff0e::7:1", "a global group" },
    { "fe80::77", "a link-local address" }, { "fec0::2", "a site-local address" },
    { "fd77::2", "a unique local address" },
  }
  local ways = {
    "send_to", "try_send_to", "send_to_with", "parts", "send_message", "send_message_hops", "reply_message", "segments",
    "send_many", "coalesce", "segment_size", "send", "send_connected_with", "send_message_connected",
    "send_many_connected", "coalesce_connected", "connect_again",
  }

  for _, address in ipairs(addresses) do
    for _, way in ipairs(ways) do
      it_wire(("of %s is the interface that %s leaves from"):format(address[2], way), function()
        for _, link in ipairs { "one", "two" } do
          a:run("send(...)", way, address[1], link, port())
          assert.equal(link, heard())
        end
      end)
    end
  end

  it_wire("chooses the source address of its link", function()
    for _, address in ipairs { "ff05::7:1", "fec0::2", "fd77::2" } do
      for _, way in ipairs { "send_to", "send", "send_message", "send_many" } do
        for link, host in pairs { one = "1", two = "3" } do
          a:run("send(...)", way, address, link, port())
          assert.equal(link, heard())
          assert.equal(host, b:run("return tostring(from)"):match("::(%d)$"), address .. " " .. way)
        end
      end
    end
  end)

  it_wire("is refused where the call names another interface", function()
    for _, address in ipairs { "ff05::7:1", "ff02::7:1", "fec0::2" } do
      assert.equal("EINVAL", a:run([[
        local address, port = ...
        sock = keep(ip.udp.bind("::", 0))
        return error_of(sock.send_message, sock, "x", { address = address .. "%one", port = port,
          interface_index = ip.address.new("fe80::1%two").scope_id })
      ]], address, port()))
      assert.equal("none", a:run([[
        local address, port = ...
        return error_of(sock.send_message, sock, "x", { address = address .. "%one", port = port,
          interface_index = ip.address.new("fe80::1%one").scope_id })
      ]], address, port()))
      assert.equal("one", heard())
    end
    assert.equal("EINVAL 1", a:run([[
      local batch = ip.udp.batch.new(2)
      batch:set(1, "x", "fec0::2%one", ...)
      batch:set(2, "x", "fec0::2%one", (...), { interface_index = ip.address.new("fe80::1%two").scope_id })
      local ok, err = pcall(sock.send_many, sock, batch)
      return err.name, err.sent
    ]], port()))
    assert.equal("one", heard())
    a:run "clean()"
  end)

  it_wire("of the source is an interface, too, which must be the same", function()
    for _, case in ipairs {
      { "fec0::1%one", "fec0::2%one", "none", "one" }, { "fec0::1%one", "fec0::2%two", "EINVAL", "" },
      { "fec0::1", "fec0::2%two", "none", "two" }, { "fec0::3%two", "fec0::2", "none", "two" },
      { "fec0::3%two", "ff05::7:1", "none", "two" }, { "fec0::1%one", "ff05::7:1%two", "EINVAL", "" },
    } do
      assert.equal(case[3], a:run([[
        local source, address, port = ...
        local sock <close> = ip.udp.bind("::", 0)
        return error_of(sock.send_message, sock, "x", { address = address, port = port, source = source })
      ]], case[1], case[2], port()))
      assert.equal(case[4], heard())
    end
  end)

  it_wire("of a peer is left with the peer", function()
    local words = a:run([[
      local port = ...
      local sock <close> = ip.udp.bind("::", 0, { multicast_interface = "two" })
      sock:connect("ff05::7:1%one", port)
      sock:send("x")
      sock:disconnect()
      sock:send_to("x", "ff05::7:1", port)
      sock:connect("ff05::7:1", port)
      sock:send("x")
      return sock.remote_address
    ]], port())
    assert.equal("ff05::7:1", words)
    assert.equal("one+two", heard())
  end)

  it_wire("of a peer stays where the next connect fails", function()
    a:run([[
      local port = ...
      local sock <close> = ip.udp.bind("::", 0, { multicast_interface = "two" })
      sock:connect("ff05::7:1%one", port)
      assert(error_of(sock.connect, sock, "2001:db8::1", port) == "ENETUNREACH")
      sock:send("x")
    ]], port())
    assert.equal("one", heard())
  end)

  it_wire("of a connect that fails leaves nothing behind", function()
    a:run([[
      local port = ...
      local sock <close> = ip.udp.bind("::", 0, { multicast_interface = "two" })
      assert(error_of(sock.connect, sock, "2001:db8::1%one", port) == "ENETUNREACH")
      sock:send_to("x", "ff05::7:1", port)
    ]], port())
    assert.equal("two", heard())
  end)

  it_wire("of a peer has to be that of the device that the socket is bound to", function()
    local words = a:run([[
      local port = ...
      local sock <close> = ip.udp.bind("::", 0, { bind_to_device = "one" })
      local first = error_of(sock.connect, sock, "ff05::7:1%two", port)
      sock:connect("ff05::7:1%one", port)
      sock:send("x")
      sock:disconnect()
      return first, sock:get_option("bind_to_device"), error_of(sock.send_to, sock, "x", "ff05::7:1%two", port)
    ]], port())
    assert.equal("EINVAL one EINVAL", words)
    assert.equal("one", heard())
  end)

  it_wire("of any kind of address never lets a datagram leave another device than the socket's", function()
    for _, address in ipairs { "ff02::7:1", "fe80::77", "ff05::7:1" } do
      for _, way in ipairs { "send_to", "try_send_to", "send_to_with", "send_message", "send_message_hops",
        "reply_message", "segments", "send_many", "coalesce", "segment_size" } do
        local words = a:run([[
          local way, address, port = ...
          local function attempt(sock, link) return error_of(ways[way], sock, address .. "%" .. link, port) end
          local sock <close> = ip.udp.bind("::", 0, { bind_to_device = "one" })
          local handed <close> = ip.udp.socket.new()
          local first, second = attempt(sock, "two"), attempt(sock, "one")
          handed:assign(sock:release())
          return first, second, attempt(handed, "two")
        ]], way, address, port())
        assert.equal("EINVAL none EINVAL", words, address .. " " .. way)
        assert.equal("one", heard(), address .. " " .. way)
      end
    end
  end)

  it_wire("of a destination is that of the link-local address that the socket is bound to", function()
    local words = a:run([[
      local address, port = ...
      local own
      for _, entry in ipairs(ip.interfaces()) do
        if entry.name == "one" and entry.address.is_link_local then own = entry.address end
      end
      local sock <close> = ip.udp.bind(own, 0)
      local handed <close> = ip.udp.socket.new()
      local first, second = error_of(ways.send_to, sock, address .. "%two", port),
        error_of(ways.send_to, sock, address .. "%one", port)
      handed:assign(sock:release())
      return first, second, error_of(ways.send_to, handed, address .. "%two", port)
    ]], "fe80::77", port())
    assert.equal("EINVAL none EINVAL", words)
    assert.equal("one", heard())
  end)

  it_wire("of a batch's entry that would leave another device stops the batch there", function()
    local words = a:run([[
      local port = ...
      local batch = ip.udp.batch.new(4)
      for i, link in ipairs { "one", "one", "two", "one" } do batch:set(i, "x", "ff02::7:1%" .. link, port) end
      local sock <close> = ip.udp.bind("::", 0, { bind_to_device = "one" })
      local ok, err = pcall(sock.send_many, sock, batch)
      sock:set_option("bind_to_device", "")
      return err.name, err.sent, sock:send_many(batch, 3)
    ]], port())
    assert.equal("EINVAL 2 2", words)
    assert.equal("one+two", heard())
  end)

  it_wire("of an interface that is not there is an error", function()
    for _, address in ipairs { "ff05::7:1%999", "fec0::2%4294967295", "fd77::2%999" } do
      local words = a:run([[
        local address, port = ...
        local sock <close> = ip.udp.bind("::", 0)
        return error_of(sock.send_to, sock, "x", address, port), error_of(sock.connect, sock, address, port)
      ]], address, port())
      assert.truthy(words:match("^E%u+ E%u+$"), words)
    end
    assert.equal("", heard())
  end)

  it_wire("on a v4 socket, or of a v4-mapped address, changes nothing", function()
    assert.equal("EAFNOSUPPORT none", a:run([[
      local v4 <close> = ip.udp.bind("127.0.0.1", 0)
      local v6 <close> = ip.udp.bind("::", 0, { v6_only = false })
      local sock <close> = ip.udp.bind("127.0.0.1", 0)
      local mapped = error_of(v6.send_to, v6, "x", "::ffff:127.0.0.1%999", sock.local_port)
      sock:receive_string()
      return error_of(v4.send_to, v4, "x", "ff05::7:1%one", ...), mapped
    ]], port()))
  end)
end)

-- strace(1) lets a setsockopt of the program fail: the first sets the interface of a peer, the second clears it.
describe("a system that refuses", function()
  local it_traced = platform.it_where(platform.has_v6 and platform.can_trace() and platform.mode ~= "sanitize",
    "strace")

  local function run(program, which)
    local path = support.write_file(program)
    local words = { "strace", "-qq", "-o", "/dev/null", "-e", "trace=setsockopt", "-e",
      ("inject=setsockopt:error=ENOBUFS:when=%d"):format(which) }
    table.move(process.lua(path), 1, 2, #words + 1, words)
    local running <close> = process.start(words)
    running:wait(30)
    os.remove(path)
    return running:output() .. running:errors()
  end

  it_traced("the interface of a peer leaves the former peer", support.with_loop(function()
    assert.equal("ENOBUFS\tfirst\n", run([[
      local ip = require "ip"
      local first, second = ip.udp.bind("::1", 0), ip.udp.bind("::1", 0)
      local sock = ip.udp.connect("::1", first.local_port)
      local ok, err = pcall(sock.connect, sock, "::1%lo", second.local_port)
      assert(sock.remote_port == first.local_port)
      sock:send("first")
      print(err.name, (first:receive_string()))
    ]], 1))
  end))

  it_traced("to clear the interface of a peer is an error of disconnect; the peer is gone", support.with_loop(function()
    assert.equal("ENOBUFS\tENOTCONN\tx\n", run([[
      local ip = require "ip"
      local peer = ip.udp.bind("::1", 0)
      local sock = ip.udp.connect("::1%lo", peer.local_port)
      local port = sock.local_port
      local _, err = pcall(sock.disconnect, sock)
      assert(sock.local_port == port)
      local _, gone = pcall(function() return sock.remote_port end)
      sock:send_to("x", "::1", peer.local_port)
      print(err.name, gone.name, (peer:receive_string()))
    ]], 2))
  end))
end)
