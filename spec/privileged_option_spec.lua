-- What the options promise that choose routes, queues and processors, and that bind to addresses of others: they are
-- read back, the kernel acts on them, and where they need a privilege they raise EPERM.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local netns = require "spec.support.netns"
local network = require "spec.support.namespaces"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"

local with_loop = support.with_loop
local assert_raises, assert_bad_argument = assertions.assert_raises, assertions.assert_bad_argument
local is_linux, has_v6 = platform.is_linux, platform.has_v6
local it_linux = platform.it_linux

local permitted = is_linux and has_v6 and network.is_permitted()
local it_wire = network.it_wire()

local kinds = { { "v4", "127.0.0.1" }, { "v6", "::1" } }
local function each_kind(fn)
  return with_loop(function()
    for _, kind in ipairs(kinds) do
      if platform.has_family(kind[1]) then
        local sock <close> = ip.udp.bind(kind[2], 0)
        fn(sock)
      end
    end
  end)
end

-- Sets an option that needs a privilege; false where this process has none.
local function may_set(sock, name, value)
  local ok, err = pcall(sock.set_option, sock, name, value)
  if not ok then assert.equal(ip.error.EPERM, err) end
  return ok
end

describe("mark", function()
  it_linux("is unsigned, and 0 to begin with", each_kind(function(sock)
    assert.equal(0, sock:get_option("mark"))
    for _, mark in ipairs { 1, 0x7fffffff, 0x80000000, 0xffffffff, 0 } do
      if not may_set(sock, "mark", mark) then return end
      assert.equal(mark, sock:get_option("mark"))
    end
    for _, mark in ipairs { -1, 1 << 32, math.mininteger } do
      assert_bad_argument(2, nil, function() sock:set_option("mark", mark) end)
    end
  end))
end)

describe("priority", function()
  it_linux("is read back; 0 to 6 need no privilege", each_kind(function(sock)
    assert.equal(0, sock:get_option("priority"))
    for priority = 0, 6 do
      sock:set_option("priority", priority)
      assert.equal(priority, sock:get_option("priority"))
    end
    for _, priority in ipairs { 7, 0x10010, 0xffffffff } do
      if may_set(sock, "priority", priority) then assert.equal(priority, sock:get_option("priority")) end
    end
    for _, priority in ipairs { -1, 1 << 32 } do
      assert_bad_argument(2, nil, function() sock:set_option("priority", priority) end)
    end
  end))

  it_linux("stays what a table of options says, whatever the traffic class", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { priority = 3, traffic_class = 0x10 })
    assert.equal(3, sock:get_option("priority"))
    assert.equal(0x10, sock:get_option("traffic_class"))
  end))
end)

describe("max_pacing_rate", function()
  it_linux("is read back in bytes a second, and nil without a limit", each_kind(function(sock)
    assert.is_nil(sock:get_option("max_pacing_rate"))
    for _, rate in ipairs { 1, 1000000, 0xfffffffe, 1.25e9 } do
      sock:set_option("max_pacing_rate", rate)
      assert.equal(rate, sock:get_option("max_pacing_rate"))
      assert.equal("integer", math.type(sock:get_option("max_pacing_rate")))
    end
    sock:set_option("max_pacing_rate", nil)
    assert.is_nil(sock:get_option("max_pacing_rate"))
    for _, rate in ipairs { 0, -1, math.mininteger } do
      assert_bad_argument(2, nil, function() sock:set_option("max_pacing_rate", rate) end)
    end
  end))

  it_linux("holds rates beyond 32 bits where the system does, and else refuses them", each_kind(function(sock)
    local set, err = pcall(sock.set_option, sock, "max_pacing_rate", 50000000000)
    if set then
      assert.equal(50000000000, sock:get_option("max_pacing_rate"))
    else
      assert.equal(ip.error.EINVAL, err)
      assert.is_nil(sock:get_option("max_pacing_rate"))
    end
  end))
end)

describe("incoming_cpu", function()
  it_linux("reads -1 until it is set, and is read back", each_kind(function(sock)
    assert.equal(-1, sock:get_option("incoming_cpu"))
    for _, cpu in ipairs { 0, 3, -1 } do
      sock:set_option("incoming_cpu", cpu)
      assert.equal(cpu, sock:get_option("incoming_cpu"))
    end
    for _, cpu in ipairs { -2, 1 << 31 } do
      assert_bad_argument(2, nil, function() sock:set_option("incoming_cpu", cpu) end)
    end
  end))

  it_linux("of a connected socket is the processor that its last datagram came on", with_loop(function()
    local one, other = support.pair()
    one:send("x")
    other:receive_string()
    assert.is_true(other:get_option("incoming_cpu") >= 0)
  end))
end)

describe("free_bind and transparent", function()
  local elsewhere = { v4 = "192.0.2.7", v6 = "2001:db8::7" }

  for _, kind in ipairs(kinds) do
    local family = kind[1]
    local it_family = platform.it_linux_family(family)

    it_family("free_bind binds to an address that no interface has: " .. family, with_loop(function()
      assert_raises("EADDRNOTAVAIL", nil, ip.udp.bind, elsewhere[family], 0)
      local sock <close> = ip.udp.bind(elsewhere[family], 0, { free_bind = true })
      assert.equal(ip.address.new(elsewhere[family]), sock.local_address)
      local off <close> = ip.udp.socket.new()
      off:open(family)
      off:set_option("free_bind", true)
      off:set_option("free_bind", false)
      assert_raises("EADDRNOTAVAIL", nil, off.bind, off, elsewhere[family], 0)
    end))

    it_family("transparent binds to an address of others: " .. family, with_loop(function()
      local sock <close> = ip.udp.socket.new()
      sock:open(family)
      assert.is_false(sock:get_option("transparent"))
      if not may_set(sock, "transparent", true) then return end
      assert.is_true(sock:get_option("transparent"))
      sock:bind(elsewhere[family], 0)
      assert.equal(ip.address.new(elsewhere[family]), sock.local_address)
      sock:set_option("transparent", false)
      assert.is_false(sock:get_option("transparent"))
    end))
  end

  local it_dual = platform.it_linux_family("v6")

  it_dual("act on the v4 addresses of a dual-stack socket, too", with_loop(function()
    local sock <close> = ip.udp.socket.new()
    sock:open("v6")
    sock:set_option("v6_only", false)
    sock:set_option("free_bind", true)
    sock:bind("::ffff:192.0.2.7", 0)
    assert.equal("::ffff:192.0.2.7", tostring(sock.local_address))
  end))
end)

describe("without privileges", function()
  local it_bare = platform.it_where(is_linux and process.exists("setpriv")
    and platform.succeeds("setpriv --bounding-set=-net_admin,-net_raw true"), "setpriv")

  it_bare("mark, transparent and high priorities raise EPERM and change nothing", with_loop(function()
    local program = support.write_file [[
      local ip = require "ip"
      local sock = ip.udp.bind("127.0.0.1", 0)
      for _, case in ipairs { { "mark", 7 }, { "transparent", true }, { "priority", 7 }, { "priority", 6 },
        { "free_bind", true }, { "max_pacing_rate", 1000 }, { "incoming_cpu", 0 } } do
        local ok, err = pcall(sock.set_option, sock, case[1], case[2])
        print(case[1], ok and "set" or err.name, ok or err.operation == case[1], sock:get_option(case[1]))
      end
      print(select(2, pcall(ip.udp.bind, "127.0.0.1", 0, { mark = 7 })).operation)
    ]]
    local words = { "setpriv", "--bounding-set=-net_admin,-net_raw" }
    table.move(process.lua(program), 1, 2, #words + 1, words)
    local running <close> = process.start(words)
    running:wait(30)
    os.remove(program)
    assert.equal("mark\tEPERM\ttrue\t0\ntransparent\tEPERM\ttrue\tfalse\npriority\tEPERM\ttrue\t0\n"
      .. "priority\tset\ttrue\t6\nfree_bind\tset\ttrue\ttrue\nmax_pacing_rate\tset\ttrue\t1000\n"
      .. "incoming_cpu\tset\ttrue\t0\nmark\n", running:output() .. running:errors())
  end))
end)

describe("the kernel", function()
  it_wire("routes by the mark", function()
    local net <close> = network.new("a", "b")
    net:join("one", "a", { "10.77.1.1/24", "fd77:1::1/64" }, "b", { "10.77.1.2/24", "fd77:1::2/64" })
    net:join("two", "a", { "10.77.2.1/24", "fd77:2::1/64" }, "b", { "10.77.2.2/24", "fd77:2::2/64" })
    net:ip("b", "address add 192.0.2.1/32 dev lo")
    net:ip("b", "address add 2001:db8::1/128 dev lo nodad")
    for _, family in ipairs { { "", "10.77.%d.2", "192.0.2.1" }, { "-6 ", "fd77:%d::2", "2001:db8::1" } } do
      net:ip("a", ("%sroute add %s via %s"):format(family[1], family[3], family[2]:format(1)))
      net:ip("a", ("%sroute add %s via %s table 100"):format(family[1], family[3], family[2]:format(2)))
      net:ip("a", family[1] .. "rule add fwmark 7 table 100")
    end
    local a, b = net:agent("a"), net:agent("b")
    for any, case in pairs { ["0.0.0.0"] = { "192.0.2.1", "10.77.%d.1" }, ["::"] = { "2001:db8::1", "fd77:%d::1" } } do
      local port = math.tointeger(b:run("sock = keep(ip.udp.bind(..., 0)) return sock.local_port", any))
      for mark, link in pairs { [0] = 1, [7] = 2, [8] = 1 } do
        for _, way in ipairs { "send_to", "connect" } do
          a:run([[
            local any, mark, way, to, port = ...
            local sock <close> = ip.udp.bind(any, 0, { mark = mark })
            if way == "connect" then sock:connect(to, port) sock:send("x") else sock:send_to("x", to, port) end
          ]], any, mark, way, case[1], port)
          assert.equal(case[2]:format(link), b:run "return (select(2, sock:receive_string()))")
        end
      end
    end
  end)

  -- Counts the packets in a class of the queueing discipline on `lo`.
  local function packets_in(net, class)
    local text = net:run("tc -s class show dev lo")
    return tonumber(text:match("class htb 1:" .. class .. " .-Sent %d+ bytes (%d+) pkt"))
  end

  local function has_classes()
    local net <close> = netns.new()
    return net ~= nil and net:try("tc qdisc add dev lo root handle 1: htb default 30")
  end

  local it_queued = platform.it_where(permitted and has_classes(), "network namespaces, and tc with htb")

  it_queued("queues by the priority, which may be a class of the queueing discipline", function()
    local net <close> = assert(netns.new())
    net:run("tc qdisc add dev lo root handle 1: htb default 30")
    for _, class in ipairs { "10", "20", "30" } do
      net:run(("tc class add dev lo parent 1: classid 1:%s htb rate 1gbit"):format(class))
    end
    local program = support.write_file [[
      local ip = require "ip"
      for _, any in ipairs { "127.0.0.1", "::1" } do
        for priority, count in pairs { [0x10010] = 3, [0x10020] = 5, [0] = 7 } do
          local sock = ip.udp.bind(any, 0, { priority = priority })
          for _ = 1, count do sock:send_to("x", any, 9) end
        end
      end
    ]]
    local command = net:program(table.concat(process.lua(program), " "))
    assert.is_true(os.execute(command))
    os.remove(program)
    assert.equal(6, packets_in(net, "10"))
    assert.equal(10, packets_in(net, "20"))
  end)

  it_wire("delivers to, and sends from, an address that free_bind or transparent has bound", function()
    local net <close> = network.new("a", "b")
    net:join("one", "a", { "10.77.1.1/24" }, "b", { "10.77.1.2/24" })
    net:ip("b", "route add 192.0.2.0/24 via 10.77.1.1")
    net:ip("a", "route add local 192.0.2.0/24 dev lo") -- a proxy for that network
    local a, b = net:agent("a"), net:agent("b")
    for _, option in ipairs { "free_bind", "transparent" } do
      local port = math.tointeger(a:run(
        "sock = keep(ip.udp.bind('192.0.2.7', 0, { [...] = true })) return sock.local_port", option))
      b:run("client = keep(ip.udp.bind('10.77.1.2', 0)) client:send_to('who?', '192.0.2.7', ...)", port)
      a:run "local text, address, port = sock:receive_string() sock:send_to('me', address, port)"
      assert.equal("192.0.2.7", b:run "return (select(2, client:receive_string()))")
    end
  end)
end)
