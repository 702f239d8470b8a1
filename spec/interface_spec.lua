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
      assert.matches("^%x%x:%x%x:%x%x:%x%x:%x%x:%x%x$", entry.hardware_address)
    end
  end)

  it("gives the hardware address that the system shows", function()
    for _, entry in ipairs(ip.interfaces()) do
      local shown = contents("/sys/class/net/" .. entry.name .. "/address")
      if shown ~= nil and #shown == 17 then assert.equal(shown, entry.hardware_address) end
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
