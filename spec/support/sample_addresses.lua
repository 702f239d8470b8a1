--- Addresses for specs: random ones, malformed ones, and this system's loopback interface.

local ip = require "ip"

local new, parse, from_bytes = ip.address.new, ip.address.parse, ip.address.from_bytes

local samples = {}

--- A generator of our own (Park and Miller), so that the addresses are the same on every run and machine.
function samples.generator(seed)
  return function(low, high)
    seed = seed * 48271 % 0x7fffffff
    return low + seed % (high - low + 1)
  end
end

local function random_bytes(random, count)
  local bytes = {}
  for i = 1, count do bytes[i] = string.char(random(0, 255)) end
  return table.concat(bytes)
end

--- A v6 address of eight groups, half of them zero, so that all shapes of "::" come up.
function samples.random_groups(random)
  local groups = {}
  for i = 1, 8 do groups[i] = random(0, 1) == 0 and 0 or random(0, 0xffff) >> random(0, 15) end
  return groups
end

function samples.address_of(groups)
  return from_bytes(string.pack((">I2"):rep(8), table.unpack(groups)))
end

--- An address of any kind: v4, v6, v4-mapped, with a scope.
function samples.random_address(random)
  local kind = random(1, 4)
  if kind == 1 then return from_bytes(random_bytes(random, 4)) end
  if kind == 2 then return from_bytes(random_bytes(random, 16)) end
  if kind == 3 then return from_bytes(random_bytes(random, 4)):to_v6() end
  local address = samples.address_of(samples.random_groups(random))
  return random(0, 1) == 0 and address or address:with_scope_id(random(1, 0x7ffffffe))
end

--- The loopback interface has one of these names on every system that the library runs on.
samples.loopback_name = parse("::1%lo") and "lo" or "lo0"
samples.loopback_index = new("::1%" .. samples.loopback_name).scope_id

--- Text that is no address, and a part of what is said about it.
samples.malformed = {
  [""] = "not an IPv4 or IPv6 address",
  ["localhost"] = "'localhost' is no IP address; ip.udp.get_address_info looks names up",
  ["1.2.3"] = "not an IPv4 or IPv6 address",
  ["1.2.3."] = "not an IPv4 or IPv6 address",
  ["1.2.3.4.5"] = "not an IPv4 or IPv6 address",
  ["1..3.4"] = "not an IPv4 or IPv6 address",
  ["01.2.3.4"] = "not an IPv4 or IPv6 address",
  ["1.2.3.04"] = "not an IPv4 or IPv6 address",
  ["1.2.3.256"] = "not an IPv4 or IPv6 address",
  ["1.2.3.-4"] = "not an IPv4 or IPv6 address",
  ["0x7f.0.0.1"] = "not an IPv4 or IPv6 address",
  ["2130706433"] = "not an IPv4 or IPv6 address",
  [" 1.2.3.4"] = "not an IPv4 or IPv6 address",
  ["1.2.3.4 "] = "not an IPv4 or IPv6 address",
  ["1.2.3.4\n"] = "not an IPv4 or IPv6 address",
  ["1.2.3.4:53"] = "is an address and a port; ip.toendpoint separates them",
  [":"] = "not an IPv4 or IPv6 address",
  [":::"] = "not an IPv4 or IPv6 address",
  ["1::2::3"] = "not an IPv4 or IPv6 address",
  ["1:2:3:4:5:6:7"] = "not an IPv4 or IPv6 address",
  ["1:2:3:4:5:6:7:8:9"] = "not an IPv4 or IPv6 address",
  ["12345::"] = "not an IPv4 or IPv6 address",
  ["::g"] = "not an IPv4 or IPv6 address",
  ["::ffff:1.2.3"] = "not an IPv4 or IPv6 address",
  ["::ffff:01.2.3.4"] = "not an IPv4 or IPv6 address",
  ["[::1]"] = "not an IPv4 or IPv6 address",
  [("1"):rep(10000)] = "not an IPv4 or IPv6 address",
  ["%1"] = "not an IPv4 or IPv6 address",
  ["::1%"] = "the scope is empty",
  ["fe80::1%nosuchif"] = "names no interface",
  ["fe80::1%1x"] = "names no interface",
  ["fe80::1%-1"] = "names no interface",
  ["fe80::1% 1"] = "names no interface",
  ["fe80::1%1%1"] = "names no interface",
  ["fe80::1%4294967296"] = "larger than 4294967295",
  ["fe80::1%99999999999"] = "larger than 4294967295",
  ["fe80::1%18446744073709551617"] = "larger than 4294967295",
  ["fe80::1%" .. ("x"):rep(16)] = "longer than an interface name",
  ["fe80::1%" .. ("x"):rep(10000)] = "longer than an interface name",
  ["1.2.3.4%lo"] = "an IPv4 address has no scope",
  ["1.2.3.4%1"] = "an IPv4 address has no scope",
  ["1.2.3.4%"] = "an IPv4 address has no scope",
  ["\0"] = "zero byte",
  ["1.2.3.4\0"] = "zero byte",
  ["1.2.3.4\0junk"] = "zero byte",
  ["::1\0"] = "zero byte",
  ["fe80::1%" .. samples.loopback_name .. "\0"] = "zero byte",
}

--- Values that are no strings.
samples.not_strings = { 1, 1.5, true, {}, print, from_bytes("\1\2\3\4") }

return samples
