-- What the relay, the SNTP server and the programs that look at networks promise, run as processes.
local ip = require "ip"
local network = require "spec.support.namespaces"
local process = require "spec.support.process"
local support = require "spec.support"

local function example(name, ...)
  return process.lua("examples/" .. name .. ".lua", ...)
end

local function run_example(...)
  return process.run(example(...))
end

-- Starts a server of the examples with a port that the system chooses; returns it and its port.
local function start_server(...)
  local server = process.start(example(...))
  local _, port = ip.toendpoint(server:wait_for("listening on (%S+)"))
  return server, port
end

local function matches(pattern, text)
  assert.truthy(text:find(pattern), ("no match of %s in: %s"):format(pattern, text))
end

local function is_refused(name, message, ...)
  local output, errors, code = run_example(name, ...)
  assert.equal(2, code)
  assert.equal("", output)
  matches("^" .. name .. "%.lua: .*" .. message, errors)
  matches("usage: " .. name .. "%.lua", errors)
end

local function has_help(name)
  local output, errors, code = run_example(name, "--help")
  assert.equal(0, code)
  assert.equal("", errors)
  matches("^usage: " .. name .. "%.lua .*%-%-help", output)
end

local is_linux = io.open("/proc/self/fdinfo/0") ~= nil
local it_linux = is_linux and it or pending

local function descriptors_of(pid)
  local pipe <close> = assert(io.popen(("ls /proc/%d/fd | wc -l"):format(pid)))
  return pipe:read("n")
end

describe("udp_relay.lua", function()
  after_each(process.stop_all)

  -- Answers in a fiber of this process: each datagram with what it was and how many its sender has sent. `seen` counts
  -- the datagrams of each sender.
  local function start_counting_server(seen)
    local sock, port = support.bound()
    local server = ip.fiber.spawn(function()
      while true do
        local text, address, from = sock:receive_string()
        seen[from] = (seen[from] or 0) + 1
        sock:send_to(("%s #%d"):format(text, seen[from]), address, from)
      end
    end)
    return port, setmetatable({}, { __close = function()
      server:interrupt()
      server:join()
      sock:close()
    end })
  end

  local function count(set)
    local n = 0
    for _ in pairs(set) do n = n + 1 end
    return n
  end

  local function start_relay(to_port, ...)
    return start_server("udp_relay", "--port", "0", "--to", "127.0.0.1", "--to-port", to_port, "--verbose", ...)
  end

  local function client_of(port)
    return ip.udp.connect("127.0.0.1", port, { receive_timeout = 10 })
  end

  it("has --help and refuses wrong arguments", support.with_loop(function()
    has_help("udp_relay")
    is_refused("udp_relay", "%-%-to HOST expected")
    is_refused("udp_relay", "%-%-to%-port PORT expected", "--to", "127.0.0.1")
    is_refused("udp_relay", "%-%-to%-port 0: .*1%.%.65535", "--to", "127.0.0.1", "--to-port", "0")
    is_refused("udp_relay", "%-%-listen localhost", "--listen", "localhost")
    is_refused("udp_relay", "%-%-idle 0: .*above 0", "--idle", "0")
    is_refused("udp_relay", "%-%-clients 0", "--clients", "0")
    is_refused("udp_relay", "unexpected argument more", "more")
    is_refused("udp_relay", "unknown option", "--nonsense")
  end, 20))

  it("gives each of 200 clients its own answers, and forgets those that are idle", support.with_loop(function()
    local seen, clients = {}, {}
    local server_port, server <close> = start_counting_server(seen) -- luacheck: ignore server
    local relay <close>, port = start_relay(server_port, "--idle", "2")
    local before = is_linux and descriptors_of(relay.pid)
    for i = 1, 200 do
      clients[i] = client_of(port)
    end
    for round = 1, 3 do
      for i, client in ipairs(clients) do
        client:send(("client %d round %d"):format(i, round))
      end
      for i, client in ipairs(clients) do
        assert.equal(("client %d round %d #%d"):format(i, round, round), (client:receive_string()))
      end
    end
    assert.equal(200, count(seen)) -- the server saw as many ports
    matches("clients: 200\n", relay:output())
    if before then assert.equal(before + 200, descriptors_of(relay.pid)) end
    local rounds = 3
    relay:poll("the end of idle clients", 20, function() -- the first one keeps talking, and is kept
      rounds = rounds + 1
      clients[1]:send("still here")
      assert.equal("still here #" .. rounds, (clients[1]:receive_string()))
      return relay:output():find("has gone, clients: 1\n", 1, true)
    end)
    assert.equal(200, count(seen))
    relay:wait_for("has gone, clients: 0\n")
    if before then assert.equal(before, descriptors_of(relay.pid)) end
    assert.equal("", relay:errors())
    for _, client in ipairs(clients) do client:close() end
  end, 60))

  it("passes on empty and largest datagrams", support.with_loop(function()
    local server <close>, server_port = start_server("echo_server", "--port", "0") -- luacheck: ignore server
    local relay <close>, port = start_relay(server_port)
    local client <close> = client_of(port)
    for _, text in ipairs { "", "hello", ("x"):rep(65507), "after" } do
      client:send(text)
      assert.equal(text, (client:receive_string()))
    end
    assert.equal("", relay:errors())
  end, 20))

  it("goes on when the server was not there, and serves no more clients than it was told", support.with_loop(function()
    local dead = support.dead_port()
    local relay <close>, port = start_relay(dead, "--clients", "1")
    local first <close> = client_of(port)
    local second <close> = client_of(port)
    first:send("nobody is there")
    relay:wait_for("has come, clients: 1\n")
    local server <close> = ip.udp.bind("127.0.0.1", dead)
    support.wait_until(function() -- the first ones may be lost to ECONNREFUSED
      second:send("one too many")
      first:send("hello")
      return server:io_control("bytes_readable") > 0
    end)
    local text, address, from = server:receive_string()
    assert.equal("hello", text)
    server:send_to("welcome", address, from)
    assert.equal("welcome", (first:receive_string()))
    assert.is_nil(relay:output():find("clients: 2", 1, true))
  end, 20))

  it("says where it cannot listen and whom it cannot find", support.with_loop(function()
    local sock <close>, port = support.bound()
    assert.is_true(sock.is_open)
    local _, errors, code = run_example("udp_relay", "--port", port, "--to", "127.0.0.1", "--to-port", "9")
    assert.equal(1, code)
    matches("^udp_relay%.lua: cannot listen on 127%.0%.0%.1:%d+: .*EADDRINUSE%)\n$", errors)
    _, errors, code = run_example("udp_relay", "--port", "0", "--to", "a..b", "--to-port", "9")
    assert.equal(1, code)
    matches("^udp_relay%.lua: cannot find a%.%.b: .*EAI_", errors)
  end, 20))
end)

describe("sntp_server.lua", function()
  after_each(process.stop_all)

  local PACKET = ">B B i1 i1 I4 I4 c4 I8 I8 I8 I8"
  local ORIGINATE = 0x0123456789ABCDEF

  local function query(version, mode, rest)
    return string.pack(PACKET, version << 3 | mode, 0, 6, 0, 0, 0, "\0\0\0\0", 0, 0, 0, ORIGINATE) .. (rest or "")
  end

  local function parse(packet)
    assert.equal(48, #packet)
    local reply = {}
    reply.first, reply.stratum, reply.poll, reply.precision, reply.delay, reply.dispersion, reply.reference_id,
      reply.reference, reply.originate, reply.receive, reply.transmit = string.unpack(PACKET, packet)
    return reply
  end

  -- Seconds since 1970 of an NTP timestamp.
  local function unix(timestamp)
    return (timestamp >> 32) - 2208988800 + (timestamp & 0xFFFFFFFF) / 2 ^ 32
  end

  it("has --help and refuses wrong arguments", support.with_loop(function()
    has_help("sntp_server")
    is_refused("sntp_server", "%-%-port 70000", "--port", "70000")
    is_refused("sntp_server", "%-%-stratum 16", "--stratum", "16")
    is_refused("sntp_server", "%-%-address nowhere", "--address", "nowhere")
    is_refused("sntp_server", "unexpected argument more", "more")
  end, 20))

  it("answers with the time, the client's timestamp and its own stratum", support.with_loop(function()
    local server <close>, port = start_server("sntp_server", "--port", "0", "--stratum", "3")
    local client <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 10 })
    for version = 1, 4 do
      local sent = ip.fiber.time() / 1e9
      client:send(query(version, 3))
      local reply = parse(client:receive_string())
      local received = ip.fiber.time() / 1e9
      assert.equal(version << 3 | 4, reply.first)
      assert.equal(3, reply.stratum)
      assert.equal(6, reply.poll)
      assert.truthy(reply.precision < 0)
      assert.equal(ORIGINATE, reply.originate)
      assert.truthy(math.ult(reply.receive, reply.transmit) or reply.receive == reply.transmit)
      assert.truthy(math.ult(reply.reference, reply.transmit) or reply.reference == reply.transmit)
      assert.truthy(unix(reply.receive) > sent - 0.001, "received before it was sent")
      assert.truthy(unix(reply.transmit) < received + 0.001, "left after it has come")
    end
    assert.equal("", server:errors())
  end, 20))

  it("ignores what is malformed or of no client", support.with_loop(function()
    local server <close>, port = start_server("sntp_server", "--port", "0")
    local client <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 10 })
    local whole = query(4, 3)
    for _, bad in ipairs { "", "\x23", whole:sub(1, 47), whole .. "x", ("x"):rep(3000), query(0, 3), query(5, 3) } do
      client:send(bad)
    end
    for _, mode in ipairs { 0, 1, 2, 4, 5, 6, 7 } do
      client:send(query(4, mode))
    end
    client:send(query(4, 3, ("k"):rep(20))) -- with a digest that is not looked at
    local reply = parse(client:receive_string())
    assert.equal(ORIGINATE, reply.originate) -- the first answer is that to the last query
    assert.is_nil(client:try_receive(ip.byte_span.new(48)))
    assert.equal("", server:errors())
  end, 20))

  it_linux("answers from the address that was asked", support.with_loop(function()
    local server <close>, port = start_server("sntp_server", "--address", "0.0.0.0", "--port", "0")
    local client <close> = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 10 })
    for _, address in ipairs { "127.0.0.2", "127.0.0.1", "127.7.7.7" } do
      client:send_to(query(4, 3), address, port)
      local _, from, from_port = client:receive_string()
      assert.equal(address, tostring(from))
      assert.equal(port, from_port)
    end
    assert.equal("", server:errors())
  end, 20))

  local chronyd = os.getenv("LUA_IP_CHRONYD") or "chronyd"
  local has_chronyd = os.execute(("'%s' -v >/dev/null 2>&1"):format(chronyd)) == true
  local it_chronyd = has_chronyd and it or function(name) pending(name .. " (needs chronyd)") end

  it_chronyd("is believed by chronyd, which only looks (-Q) and never sets the clock", support.with_loop(function()
    local server <close>, port = start_server("sntp_server", "--port", "0")
    local pid_file = os.tmpname()
    local output, errors, code = process.run(process.foreign(chronyd, "-U", "-Q", "-x", "-u", "root", "-f",
      "/dev/null", "-t", "8", ("server 127.0.0.1 port %d iburst maxsamples 1"):format(port), "cmdport 0",
      "pidfile " .. pid_file))
    os.remove(pid_file)
    local said = output .. errors
    matches("System clock wrong by %-?[%d.]+ seconds %(ignored%)", said)
    assert.equal(0, code)
    assert.truthy(math.abs(tonumber(said:match("wrong by (%-?[%d.]+)"))) < 0.5)
    assert.equal("", server:errors())
  end, 30))
end)

-- The words that run an example in a namespace of a network.
local function words_in(net, name, ...)
  local words = { "sh", "-c", "exec " .. net.machines[name]:program('"$@"'), "sh" }
  for _, word in ipairs(example(...)) do words[#words + 1] = word end
  return words
end

local function run_in(...)
  return process.run(words_in(...))
end

describe("across two routers,", function()
  -- near - one - two - far, over links of which each takes less than the one before. Addresses: 10.81.LINK.1 and .2,
  -- from left to right, and fd81:LINK::1 and ::2.
  local names = { "near", "one", "two", "far" }
  local links = { { "link1", 1500 }, { "link2", 1400 }, { "link3", 1300 } }
  local is_permitted = is_linux and process.exists("ip") and network.is_permitted()
  local it_routed = is_permitted and it or function(name) pending(name .. " (needs Linux and root)") end
  local net

  local function route(name, v4, v6)
    net:ip(name, "route add default via " .. v4)
    net:ip(name, "-6 route add default via " .. v6)
  end

  setup(function()
    if not is_permitted then return end
    net = network.new(table.unpack(names))
    for i, each in ipairs(links) do
      local link, mtu = table.unpack(each)
      net:join(link, names[i], { ("10.81.%d.1/24"):format(i), ("fd81:%d::1/64"):format(i) },
        names[i + 1], { ("10.81.%d.2/24"):format(i), ("fd81:%d::2/64"):format(i) })
      for _, name in ipairs { names[i], names[i + 1] } do
        net:ip(name, ("link set %s mtu %d"):format(link, mtu))
      end
    end
    for _, name in ipairs(names) do
      net:system(name, "net.ipv4.ip_forward", 1)
      net:system(name, "net.ipv6.conf.all.forwarding", 1)
      net:system(name, "net.ipv4.icmp_ratelimit", 0)
      net:system(name, "net.ipv6.icmp.ratelimit", 0)
    end
    route("near", "10.81.1.2", "fd81:1::2")
    route("one", "10.81.2.2", "fd81:2::2")
    net:ip("one", "-6 route add prohibit fd99::/16")
    route("far", "10.81.3.1", "fd81:3::1")
    net:ip("two", "route add 10.81.1.0/24 via 10.81.2.1")
    net:ip("two", "-6 route add fd81:1::/64 via fd81:2::1")
  end)

  teardown(function()
    process.stop_all()
    if net then net:close() end
  end)

  local time = " %d+%.%d%d%d ms"

  local function hop(number, address)
    return ("%2d  %s"):format(number, (address:gsub("%.", "%%."))) .. time:rep(2) .. "\n"
  end

  local function shows_the_way(target, first, second)
    local output, errors, code = run_in(net, "near", "traceroute", "--probes", "2", "--timeout", "5", target)
    assert.equal("", errors)
    matches("^traceroute to " .. target .. ", 30 hops at most\n" .. hop(1, first) .. hop(2, second)
      .. hop(3, target) .. "$", output)
    assert.equal(0, code)
  end

  it_routed("traceroute.lua shows the routers and the host over v4", support.with_loop(function()
    shows_the_way("10.81.3.2", "10.81.1.2", "10.81.2.2")
  end, 30))

  it_routed("traceroute.lua shows the routers and the host over v6", support.with_loop(function()
    shows_the_way("fd81:3::2", "fd81:1::2", "fd81:2::2")
  end, 30))

  it_routed("traceroute.lua says that it has not come to the host, and why", support.with_loop(function()
    local output, _, code = run_in(net, "near", "traceroute", "--max-hops", "2", "--probes", "1", "10.81.3.2")
    assert.equal(1, code)
    matches("\n 2  10%.81%.2%.2" .. time .. "\n$", output)
    output, _, code = run_in(net, "near", "traceroute", "--probes", "1", "fd99::1")
    assert.equal(1, code)
    matches("\n 1  fd81:1::2" .. time .. " !X\n$", output)
  end, 30))

  local function finds_the_path(target, first, second)
    local output, errors, code = run_in(net, "near", "path_mtu", "--timeout", "5", target)
    assert.equal("", errors)
    assert.equal((" 1500 bytes: too large (%s)\n 1400 bytes: too large (%s)\n 1300 bytes: arrived (%s)\n"
      .. "the path to %s takes 1300 bytes\n"):format(first, second, target, target), output)
    assert.equal(0, code)
  end

  it_routed("path_mtu.lua goes by what the routers say over v4", support.with_loop(function()
    finds_the_path("10.81.3.2", "10.81.1.2", "10.81.2.2")
  end, 30))

  it_routed("path_mtu.lua goes by what the routers say over v6", support.with_loop(function()
    finds_the_path("fd81:3::2", "fd81:1::2", "fd81:2::2")
  end, 30))
end)

describe("traceroute.lua", function()
  after_each(process.stop_all)

  it("has --help and refuses wrong arguments", support.with_loop(function()
    has_help("traceroute")
    is_refused("traceroute", "HOST expected")
    is_refused("traceroute", "unexpected argument more", "127.0.0.1", "more")
    is_refused("traceroute", "%-%-max%-hops 256", "--max-hops", "256", "127.0.0.1")
    is_refused("traceroute", "%-%-timeout 0", "--timeout", "0", "127.0.0.1")
  end, 20))

  it_linux("marks silence, and takes a datagram from the host for an answer", support.with_loop(function()
    local sock <close>, port = support.bound()
    local words = { "traceroute", "--port", port, "--probes", "1", "--max-hops", "1", "127.0.0.1" }
    local output, _, code = run_example(table.unpack(words))
    matches("\n 1  %*\n$", output)
    assert.equal(1, code)
    sock:receive_string()
    local answering = ip.fiber.spawn(function()
      local _, address, from = sock:receive_string()
      sock:send_to("what do you want?", address, from)
    end)
    output, _, code = run_example(table.unpack(words))
    matches("\n 1  127%.0%.0%.1 [%d.]+ ms\n$", output)
    assert.equal(0, code)
    answering:join()
  end, 20))
end)

describe("path_mtu.lua", function()
  after_each(process.stop_all)

  it("has --help and refuses wrong arguments", support.with_loop(function()
    has_help("path_mtu")
    is_refused("path_mtu", "HOST expected")
    is_refused("path_mtu", "unexpected argument more", "127.0.0.1", "more")
    is_refused("path_mtu", "%-%-port 0", "--port", "0", "127.0.0.1")
    is_refused("path_mtu", "%-%-tries 0", "--tries", "0", "127.0.0.1")
  end, 20))

  it_linux("takes an echo for an arrival", support.with_loop(function()
    local server <close>, port = start_server("echo_server", "--port", "0")
    local output, _, code = run_example("path_mtu", "--port", port, "127.0.0.1")
    matches("%d+ bytes: arrived\nthe path to 127%.0%.0%.1 takes %d+ bytes\n$", output)
    assert.equal(0, code)
    assert.equal("", server:errors())
  end, 20))

  it_linux("says that nobody has answered", support.with_loop(function()
    local silent <close>, port = support.bound()
    local output, errors, code = run_example("path_mtu", "--port", port, "--timeout", "0.1", "127.0.0.1")
    matches("%d+ bytes: no answer\n$", output)
    assert.equal("path_mtu.lua: the path to 127.0.0.1 is not known\n", errors)
    assert.equal(1, code)
    assert.truthy(silent:io_control("bytes_readable") > 0)
  end, 20))
end)

describe("discovery.lua", function()
  local is_permitted = is_linux and process.exists("ip") and network.is_permitted()
  local it_network = is_permitted and it or function(name) pending(name .. " (needs Linux and root)") end
  local net

  setup(function()
    if not is_permitted then return end
    net = network.new("left", "right")
    net:join("wire0", "left", { "10.82.1.1/24", "fd82:1::1/64" }, "right", { "10.82.1.2/24", "fd82:1::2/64" })
    net:agent("left") -- started here, for it stays to the end
  end)
  after_each(process.stop_all)
  teardown(function()
    if net then net:close() end
  end)

  local function start_announcing(where, name, ...)
    local announcer = process.start(words_in(net, where, "discovery", "--announce", name, "--interface", "wire0", ...))
    announcer:wait_for("listening on")
    return announcer
  end

  -- The names that are found, and the addresses of each.
  local function find_all(...)
    local output, errors, code = run_in(net, "left", "discovery", "--interface", "wire0", "--wait", "2", ...)
    assert.equal("", errors)
    local found = {}
    for name, address in output:gmatch("([^\n]+) at (%S+)\n") do
      found[name] = found[name] or {}
      table.insert(found[name], address)
    end
    for _, addresses in pairs(found) do table.sort(addresses) end
    return found, code
  end

  it("has --help and refuses wrong arguments", support.with_loop(function()
    has_help("discovery")
    is_refused("discovery", "%-%-family v5: v4 or v6", "--family", "v5")
    is_refused("discovery", "%-%-announce a/b", "--announce", "a/b")
    is_refused("discovery", "%-%-announce x+: ", "--announce", ("x"):rep(201))
    is_refused("discovery", "%-%-port 0", "--port", "0")
    is_refused("discovery", "%-%-wait 0", "--wait", "0")
    is_refused("discovery", "unexpected argument more", "more")
  end, 20))

  it("says that there is no such interface", support.with_loop(function()
    local output, errors, code = run_example("discovery", "--interface", "nosuch0")
    assert.equal(1, code)
    assert.equal("", output)
    matches("^discovery%.lua: no v4 on nosuch0: .*ENODEV%)\ndiscovery%.lua: no v6 on nosuch0: .*ENODEV%)\n$", errors)
  end))

  it_network("finds all who announce themselves on the other side, over v4 and v6", support.with_loop(function()
    local one <close> = start_announcing("right", "printer one")
    local two <close> = start_announcing("right", "printer-two", "--family", "v6")
    local found, code = find_all()
    assert.equal(0, code)
    assert.equal(2, #found["printer one"])
    assert.equal("10.82.1.2", found["printer one"][1])
    matches("^fe80::", found["printer one"][2])
    assert.equal(1, #found["printer-two"])
    matches("^fe80::.*%%wire0$", found["printer-two"][1])
    found = find_all("--family", "v4")
    assert.same({ ["printer one"] = { "10.82.1.2" } }, found)
    assert.equal("", one:errors() .. two:errors())
  end, 40))

  it_network("exits with 1 when nobody is there", support.with_loop(function()
    local found, code = find_all()
    assert.same({}, found)
    assert.equal(1, code)
  end, 20))

  it_network("answers questions and nothing else", support.with_loop(function()
    local announcer <close> = start_announcing("right", "printer one", "--family", "v4")
    local got = net:agent("left"):run([[
      local question = "lua-ip discovery: who is there? "
      local sock <close> = ip.udp.bind("0.0.0.0", 0, { multicast_interface = "wire0", receive_timeout = 9 })
      for _, text in ipairs { "", "nonsense", question, question .. "1234567", question .. "123456789",
        question:upper() .. "12345678", question .. "the last" } do
        sock:send_to(text, "239.255.76.85", 9009)
      end
      return next_of(sock)
    ]])
    assert.equal("lua-ip discovery: here is the lastprinter one", got)
    assert.equal("", announcer:errors())
  end, 20))
end)
