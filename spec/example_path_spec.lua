-- What traceroute.lua and path_mtu.lua promise, on this machine and across two routers.
local ip = require "ip"
local support = require "spec.support"
local examples = require "spec.support.examples"
local network = require "spec.support.namespaces"
local platform = require "spec.support.platform"
local process = require "spec.support.process"

local with_loop = support.with_loop
local run_example, start_server = examples.run, examples.start_server
local assert_help, assert_refused = examples.assert_help, examples.assert_refused

describe("across two routers,", function()
  -- near - one - two - far, over links of which each takes less than the one before. Addresses: 10.81.LINK.1
  -- and .2, from left to right, and fd81:LINK::1 and ::2.
  local names = { "near", "one", "two", "far" }
  local links = { { "link1", 1500 }, { "link2", 1400 }, { "link3", 1300 } }
  local is_permitted = examples.can_use_networks()
  local it_routed = platform.it_where(is_permitted, "Linux and root")
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
    local output, errors, code = examples.run_in(net, "near", "traceroute", "--probes", "2", "--timeout", "5", target)
    assert.equal("", errors)
    assert.matches("^traceroute to " .. target .. ", 30 hops at most\n" .. hop(1, first) .. hop(2, second)
      .. hop(3, target) .. "$", output)
    assert.equal(0, code)
  end

  it_routed("traceroute.lua shows the routers and the host over v4", with_loop(function()
    shows_the_way("10.81.3.2", "10.81.1.2", "10.81.2.2")
  end, 30))

  it_routed("traceroute.lua shows the routers and the host over v6", with_loop(function()
    shows_the_way("fd81:3::2", "fd81:1::2", "fd81:2::2")
  end, 30))

  it_routed("traceroute.lua says that it has not come to the host, and why", with_loop(function()
    local output, _, code = examples.run_in(net, "near", "traceroute", "--max-hops", "2", "--probes", "1", "10.81.3.2")
    assert.equal(1, code)
    assert.matches("\n 2  10%.81%.2%.2" .. time .. "\n$", output)
    output, _, code = examples.run_in(net, "near", "traceroute", "--probes", "1", "fd99::1")
    assert.equal(1, code)
    assert.matches("\n 1  fd81:1::2" .. time .. " !X\n$", output)
  end, 30))

  local function finds_the_path(target, first, second)
    local output, errors, code = examples.run_in(net, "near", "path_mtu", "--timeout", "5", target)
    assert.equal("", errors)
    assert.equal((" 1500 bytes: too large (%s)\n 1400 bytes: too large (%s)\n 1300 bytes: arrived (%s)\n"
      .. "the path to %s takes 1300 bytes\n"):format(first, second, target, target), output)
    assert.equal(0, code)
  end

  it_routed("path_mtu.lua goes by what the routers say over v4", with_loop(function()
    finds_the_path("10.81.3.2", "10.81.1.2", "10.81.2.2")
  end, 30))

  it_routed("path_mtu.lua goes by what the routers say over v6", with_loop(function()
    finds_the_path("fd81:3::2", "fd81:1::2", "fd81:2::2")
  end, 30))
end)

describe("traceroute.lua", function()
  after_each(process.stop_all)

  it("has --help and refuses wrong arguments", with_loop(function()
    assert_help("traceroute")
    assert_refused("traceroute", "HOST expected")
    assert_refused("traceroute", "unexpected argument more", "127.0.0.1", "more")
    assert_refused("traceroute", "%-%-max%-hops 256", "--max-hops", "256", "127.0.0.1")
    assert_refused("traceroute", "%-%-timeout 0", "--timeout", "0", "127.0.0.1")
  end, 20))

  platform.it_linux("marks silence, and takes a datagram from the host for an answer", with_loop(function()
    local sock <close>, port = support.bound()
    local words = { "traceroute", "--port", port, "--probes", "1", "--max-hops", "1", "127.0.0.1" }
    local output, _, code = run_example(table.unpack(words))
    assert.matches("\n 1  %*\n$", output)
    assert.equal(1, code)
    sock:receive_string()
    local answering = ip.fiber.spawn(function()
      local _, address, from = sock:receive_string()
      sock:send_to("what do you want?", address, from)
    end)
    output, _, code = run_example(table.unpack(words))
    assert.matches("\n 1  127%.0%.0%.1 [%d.]+ ms\n$", output)
    assert.equal(0, code)
    answering:join()
  end, 20))
end)

describe("path_mtu.lua", function()
  after_each(process.stop_all)

  it("has --help and refuses wrong arguments", with_loop(function()
    assert_help("path_mtu")
    assert_refused("path_mtu", "HOST expected")
    assert_refused("path_mtu", "unexpected argument more", "127.0.0.1", "more")
    assert_refused("path_mtu", "%-%-port 0", "--port", "0", "127.0.0.1")
    assert_refused("path_mtu", "%-%-tries 0", "--tries", "0", "127.0.0.1")
  end, 20))

  platform.it_linux("takes an echo for an arrival", with_loop(function()
    local server <close>, port = start_server("echo_server", "--port", "0")
    local output, _, code = run_example("path_mtu", "--port", port, "127.0.0.1")
    assert.matches("%d+ bytes: arrived\nthe path to 127%.0%.0%.1 takes %d+ bytes\n$", output)
    assert.equal(0, code)
    assert.equal("", server:errors())
  end, 20))

  platform.it_linux("says that nobody has answered", with_loop(function()
    local silent <close>, port = support.bound()
    local output, errors, code = run_example("path_mtu", "--port", port, "--timeout", "0.1", "127.0.0.1")
    assert.matches("%d+ bytes: no answer\n$", output)
    assert.equal("path_mtu.lua: the path to 127.0.0.1 is not known\n", errors)
    assert.equal(1, code)
    assert.truthy(silent:io_control("bytes_readable") > 0)
  end, 20))
end)
