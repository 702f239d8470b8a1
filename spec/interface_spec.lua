-- What ip.interfaces and ip.host_name promise.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local network = require "spec.support.network"
local platform = require "spec.support.platform"
local process = require "spec.support.process"

local on_main, assert_contains = support.on_main, assertions.assert_contains
local it_network = platform.it_where(network.is_permitted(), "network namespaces")

local function contents(path)
  local file <close> = io.open(path)
  return file and (file:read("a"):gsub("%s+$", ""))
end

-- The loopback interface, whatever it is called here.
local function loopback_entry()
  for _, entry in ipairs(ip.interfaces()) do
    if entry.address == ip.address.loopback_v4() then return entry end
  end
end

describe("ip.interfaces", function()
  after_each(process.stop_all)

  it("gives loopback with its address, netmask and index, as internal", on_main(function()
    local entry = loopback_entry()
    assert.is_truthy(entry)
    assert.is_true(entry.is_internal)
    assert.equal("255.0.0.0", tostring(entry.netmask))
    assert.equal("00:00:00:00:00:00", entry.hardware_address)
    local index = contents("/sys/class/net/" .. entry.name .. "/ifindex")
    if index == nil then return pending("the system has no /sys/class/net") end
    assert.equal(tonumber(index), entry.index)
    assert.equal("integer", math.type(entry.index))
  end))

  it("gives every entry the same fields, and addresses of the netmask's family", function()
    for _, entry in ipairs(ip.interfaces()) do
      assert.equal("string", type(entry.name))
      assert.is_true(entry.index > 0)
      assert.equal("ip.address", getmetatable(entry.address))
      assert.equal(entry.address.is_v4, entry.netmask.is_v4)
      assert.equal("boolean", type(entry.is_internal))
      assert.equal("boolean", type(entry.is_multicast))
      assert.is_true(entry.is_up and entry.is_running)
      assert.equal("integer", math.type(entry.mtu))
      assert.is_true(entry.broadcast == nil or entry.broadcast.is_v4)
      assert.matches("^%x%x:%x%x:%x%x:%x%x:%x%x:%x%x$", entry.hardware_address)
    end
  end)

  it("gives the hardware address that the system shows", function()
    for _, entry in ipairs(ip.interfaces()) do
      local shown = contents("/sys/class/net/" .. entry.name .. "/address")
      if shown ~= nil and #shown == 17 then assert.equal(shown, entry.hardware_address) end
    end
  end)

  it("gives the MTU that the system shows", function()
    for _, entry in ipairs(ip.interfaces(true)) do
      local shown = contents("/sys/class/net/" .. entry.name .. "/mtu")
      if shown ~= nil then assert.equal(tonumber(shown), entry.mtu) end
    end
  end)

  it("takes a boolean or nothing", function()
    assert.same(#ip.interfaces(), #ip.interfaces(false))
    assert.same(#ip.interfaces(), #ip.interfaces(nil))
    for _, value in ipairs { 1, "all", {} } do
      assertions.assert_bad_argument(1, "boolean expected", ip.interfaces, value)
    end
  end)

  it("makes a new list each time: changing one changes no other", function()
    local first = ip.interfaces()
    local count = #first
    first[1].name, first[2] = "changed", nil
    assert.equal(count, #ip.interfaces())
    assert.are_not.equal("changed", ip.interfaces()[1].name)
  end)

  it("gives a link-local address its scope, so that it can be bound to", on_main(function()
    for _, entry in ipairs(ip.interfaces()) do
      if entry.address.is_v6 and entry.address.is_link_local then
        assert.equal(entry.index, entry.address.scope_id)
        assert.equal(0, entry.netmask.scope_id)
        local ok, sock = pcall(ip.udp.bind, entry.address, 0) -- one that is still tentative cannot be bound
        if ok then sock:close() end
        assert.is_true(ok or sock == ip.error.EADDRNOTAVAIL)
      end
    end
  end))

  it_network("follows the system: addresses, netmasks and hardware addresses of a new interface", on_main(function()
    local output, code = network.run([[
      local ip = require "ip"
      for _, e in ipairs(ip.interfaces()) do
        print(e.name, e.index, e.address, e.netmask, e.is_internal, e.hardware_address)
      end
      local function ask(address)
        local sock <close> = ip.udp.bind(address, 0)
        return sock.local_address
      end
      for _, e in ipairs(ip.interfaces()) do
        if e.name == "probe0" then print("bound", ask(e.address)) end
      end
    ]], nil, [[
      ip link add probe0 index 40 address 02:00:00:00:0a:05 type veth peer name probe1
      ip address add 192.0.2.5/26 dev probe0
      ip -6 address add 2001:db8::5/48 dev probe0 nodad
      ip link set probe0 addrgenmode none
      ip -6 address add fe80::5/64 dev probe0 nodad
      ip link set probe0 up
      ip link set probe1 up
    ]])
    assert.equal(0, code, output)
    for _, line in ipairs {
      "lo\t1\t127.0.0.1\t255.0.0.0\ttrue\t00:00:00:00:00:00",
      "probe0\t40\t192.0.2.5\t255.255.255.192\tfalse\t02:00:00:00:0a:05",
      "probe0\t40\t2001:db8::5\tffff:ffff:ffff::\tfalse\t02:00:00:00:0a:05",
      "probe0\t40\tfe80::5%probe0\tffff:ffff:ffff:ffff::\tfalse\t02:00:00:00:0a:05",
      "bound\t192.0.2.5", "bound\t2001:db8::5", "bound\tfe80::5%probe0",
    } do
      assert_contains(output, line .. "\n")
    end
  end))

  it_network("leaves out an interface that is down or has no address", on_main(function()
    local output, code = network.run([[
      for _, e in ipairs(require("ip").interfaces()) do print(e.name) end
    ]], nil, [[
      ip link add down0 type veth peer name down1
      ip address add 192.0.2.5/26 dev down0
    ]])
    assert.equal(0, code, output)
    assert.is_nil(output:find("down", 1, true), output)
    assert_contains(output, "lo\n")
  end))

  it_network("with true gives all interfaces: those that are down, and those without an address", on_main(function()
    local output, code = network.run([[
      local ip = require "ip"
      for _, e in ipairs(ip.interfaces(true)) do
        print(e.name, e.index, e.address, e.netmask, e.broadcast, e.is_up, e.is_running, e.is_multicast, e.is_internal,
          e.mtu, e.hardware_address)
      end
      print("up and running")
      for _, e in ipairs(ip.interfaces()) do print(e.name, e.address, e.broadcast) end
    ]], nil, [[
      ip link add bare0 index 40 address 02:00:00:00:0a:05 mtu 1400 type veth peer name bare1 index 41
      ip link set bare0 addrgenmode none multicast off
      ip link set bare1 addrgenmode none
      ip link set bare0 up
      ip link set bare1 address 02:00:00:00:0a:06 up
      ip link add down0 index 42 address 02:00:00:00:0a:07 type veth peer name down1 index 43
      ip link set down1 address 02:00:00:00:0a:08
      ip address add 192.0.2.5/26 brd + dev down0
      ip link add up0 index 44 address 02:00:00:00:0a:09 type veth peer name up1 index 45
      ip link set up0 addrgenmode none
      ip link set up1 addrgenmode none
      ip address add 192.0.2.69/26 brd + dev up0
      ip address add 192.0.2.133/26 brd + dev up0 label up0:x
      ip address add 192.0.2.200/32 dev up0
      ip address add 192.0.2.201 peer 192.0.2.202/24 dev up0
      ip link set up0 up
      ip link set up1 address 02:00:00:00:0a:0a up
    ]])
    assert.equal(0, code, output)
    local all, up = output:match("^(.*)up and running\n(.*)$")
    for _, line in ipairs {
      "lo\t1\t127.0.0.1\t255.0.0.0\tnil\ttrue\ttrue\tfalse\ttrue\t65536\t00:00:00:00:00:00",
      "bare0\t40\tnil\tnil\tnil\ttrue\ttrue\tfalse\tfalse\t1400\t02:00:00:00:0a:05",
      "bare1\t41\tnil\tnil\tnil\ttrue\ttrue\ttrue\tfalse\t1500\t02:00:00:00:0a:06",
      "down0\t42\t192.0.2.5\t255.255.255.192\t192.0.2.63\tfalse\tfalse\ttrue\tfalse\t1500\t02:00:00:00:0a:07",
      "down1\t43\tnil\tnil\tnil\tfalse\tfalse\ttrue\tfalse\t1500\t02:00:00:00:0a:08",
      "up0\t44\t192.0.2.69\t255.255.255.192\t192.0.2.127\ttrue\ttrue\ttrue\tfalse\t1500\t02:00:00:00:0a:09",
      "up0:x\t44\t192.0.2.133\t255.255.255.192\t192.0.2.191\ttrue\ttrue\ttrue\tfalse\t1500\t02:00:00:00:0a:09",
      "up0\t44\t192.0.2.200\t255.255.255.255\tnil\ttrue\ttrue\ttrue\tfalse\t1500\t02:00:00:00:0a:09",
      "up0\t44\t192.0.2.201\t255.255.255.0\tnil\ttrue\ttrue\ttrue\tfalse\t1500\t02:00:00:00:0a:09",
      "up1\t45\tnil\tnil\tnil\ttrue\ttrue\ttrue\tfalse\t1500\t02:00:00:00:0a:0a",
    } do
      assert_contains(all, line .. "\n")
    end
    for _, name in ipairs { "bare0", "bare1", "down1", "up1" } do
      assert.equal(1, select(2, ("\n" .. all):gsub("\n" .. name .. "\t", "")), name)
    end
    assert.is_nil(up:find("down", 1, true) or up:find("bare", 1, true), up)
    assert_contains(up, "up0\t192.0.2.69\t192.0.2.127\n")
  end))

  it("works in a coroutine that cannot be suspended: it never waits", function()
    local ok, count = pcall(function()
      local found
      string.gsub("x", "x", function() found = #ip.interfaces() end)
      return found
    end)
    assert.is_true(ok)
    assert.is_true(count > 0)
  end)

  it("gives each address of an interface once", function()
    local seen = {}
    for _, entry in ipairs(ip.interfaces()) do
      local key = entry.name .. " " .. tostring(entry.address)
      assert.is_nil(seen[key], key)
      seen[key] = true
    end
  end)
end)

describe("ip.host_name", function()
  it("gives what the system calls itself", function()
    local name = ip.host_name()
    assert.equal("string", type(name))
    assert.is_true(#name > 0)
    assert.is_nil(name:find("\0", 1, true))
    local shown = contents("/proc/sys/kernel/hostname")
    if shown == nil then return pending("the system has no /proc/sys/kernel/hostname") end
    assert.equal(shown, name)
  end)
end)
