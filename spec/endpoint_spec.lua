-- What ip.tostring, ip.toendpoint, ip.endpoint_key and ip.endpoint_from_key promise.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local samples = require "spec.support.sample_addresses"

local new = ip.address.new
local assert_bad_argument = assertions.assert_bad_argument
local generator, random_address = samples.generator, samples.random_address
local loopback_name, loopback_index = samples.loopback_name, samples.loopback_index
local malformed, not_strings = samples.malformed, samples.not_strings

-- Whatever takes an addr argument takes an address and a string, and whatever takes a port takes an integer.
local function refuses_bad_addresses(fn)
  for text, message in pairs(malformed) do assert_bad_argument(1, message, fn, text, 53) end
  for _, value in ipairs { 1, 16909060, 1.5, true, {}, print, io.stdout } do
    assert_bad_argument(1, "ip.address or string expected", fn, value, 53)
  end
  assert_bad_argument(1, "ip.address or string expected, got nil", fn, nil, 53)
end

local function refuses_bad_ports(fn)
  for _, addr in ipairs { "1.2.3.4", new("::1") } do
    assert_bad_argument(2, "-1 is outside 0..65535", fn, addr, -1)
    assert_bad_argument(2, "65536 is outside 0..65535", fn, addr, 65536)
    assert_bad_argument(2, "outside 0..65535", fn, addr, math.maxinteger)
    assert_bad_argument(2, "outside 0..65535", fn, addr, math.mininteger)
    assert_bad_argument(2, "integer expected, got number", fn, addr, 1.5)
    assert_bad_argument(2, "integer expected, got number", fn, addr, 0 / 0)
    for _, value in ipairs { "80", "http", true, {} } do
      assert_bad_argument(2, "integer expected", fn, addr, value)
    end
  end
end

describe("ip.tostring", function()
  it("joins an address and a port", function()
    assert.are.equal("1.2.3.4:53", ip.tostring(new("1.2.3.4"), 53))
    assert.are.equal("[::1]:53", ip.tostring(new("::1"), 53))
    assert.are.equal("[::ffff:1.2.3.4]:0", ip.tostring(new("::ffff:1.2.3.4"), 0))
    assert.are.equal("[fe80::1%" .. loopback_name .. "]:65535", ip.tostring("fe80::1%" .. loopback_index, 65535))
    assert.are.equal("1.2.3.4:53", ip.tostring("1.2.3.4", 53.0))
  end)

  it("gives the bare address without a port", function()
    assert.are.equal("1.2.3.4", ip.tostring(new("1.2.3.4")))
    assert.are.equal("::1", ip.tostring(new("::1"), nil))
  end)

  it("takes a string for an address and normalises it", function()
    assert.are.equal("::1", ip.tostring("0:0::0:1"))
    assert.are.equal("[::1]:53", ip.tostring("0:0::0:1", 53))
  end)

  it("takes the longest text", function()
    local groups = ("ffff:"):rep(7) .. "ffff"
    assert.are.equal("[" .. groups .. "%4294967295]:65535", ip.tostring(groups .. "%4294967295", 65535))
  end)

  it("refuses what is no address", function() refuses_bad_addresses(ip.tostring) end)

  it("refuses what is no port", function() refuses_bad_ports(ip.tostring) end)
end)

describe("ip.toendpoint", function()
  it("inverts ip.tostring", function()
    local random = generator(3986)
    for _ = 1, 2000 do
      local address, port = random_address(random), random(0, 65535)
      local results = table.pack(ip.toendpoint(ip.tostring(address, port)))
      assert.are.equal(2, results.n)
      assert.are.equal(address, results[1])
      assert.are.equal(port, results[2])
      assert.are.equal("integer", math.type(results[2]))
    end
  end)

  it("reads the smallest and the largest port", function()
    for text, expected in pairs { ["0"] = 0, ["65535"] = 65535 } do
      assert.are.equal(expected, select(2, ip.toendpoint("1.2.3.4:" .. text)))
      assert.are.equal(expected, select(2, ip.toendpoint("[::1]:" .. text)))
    end
  end)

  it("reads a scope inside the brackets", function()
    local address, port = ip.toendpoint("[fe80::1%" .. loopback_name .. "]:53")
    assert.are.equal(new("fe80::1%" .. loopback_index), address)
    assert.are.equal(53, port)
  end)

  it("refuses malformed text and says what is wrong", function()
    local port = "the port is not a decimal number within 0..65535"
    local zero = "the port has a leading zero"
    for text, message in pairs {
      [""] = "not an IPv4 or IPv6 address",
      [":"] = "not an IPv4 or IPv6 address",
      [":53"] = "not an IPv4 or IPv6 address",
      ["localhost:53"] = "'localhost:53' is no IP address; ip.udp.get_address_info looks names up",
      ["1.2.3:53"] = "not an IPv4 or IPv6 address",
      ["[]:53"] = "not an IPv4 or IPv6 address",
      ["[[::1]]:53"] = "not an IPv4 or IPv6 address",
      ["[::1]]:53"] = "not an IPv4 or IPv6 address",
      [" [::1]:53"] = "not an IPv4 or IPv6 address",
      ["1.2.3.4"] = "the port is missing",
      ["::1"] = "the port is missing",
      ["[::1]"] = "the port is missing",
      ["1.2.3.4:"] = port, ["[::1]:"] = port, ["[::1]53"] = port, ["[::1] :53"] = port,
      ["1.2.3.4:65536"] = port, ["1.2.3.4:-1"] = port, ["1.2.3.4:+1"] = port, ["1.2.3.4:1.5"] = port,
      ["1.2.3.4: 53"] = port, ["1.2.3.4:53 "] = port, ["1.2.3.4:0x35"] = port, ["1.2.3.4:http"] = port,
      ["1.2.3.4:53\0"] = port, ["[::1]:4294967349"] = port, ["[::1]:18446744073709551669"] = port,
      ["1.2.3.4:080"] = zero, ["1.2.3.4:00"] = zero, ["[::1]:0053"] = zero, ["[::1]:00000000000080"] = zero,
      ["1.2.3.4\0:53"] = "zero byte",
      ["[::1\0]:53"] = "zero byte",
      ["::1:53"] = "an IPv6 address with a port is written in brackets",
      ["2001:db8::1:53"] = "an IPv6 address with a port is written in brackets",
      ["[1.2.3.4]:53"] = "an IPv4 address is not written in brackets",
      ["[::1:53"] = "']' is missing",
      ["["] = "']' is missing",
      ["[::1%]:53"] = "the scope is empty",
      ["[fe80::1%nosuchif]:53"] = "names no interface",
      ["1.2.3.4%lo:53"] = "an IPv4 address has no scope",
    } do
      assert_bad_argument(1, message, ip.toendpoint, text)
    end
  end)

  it("refuses anything but a string", function()
    for _, value in ipairs(not_strings) do assert_bad_argument(1, "string expected", ip.toendpoint, value) end
    assert_bad_argument(1, "string expected", ip.toendpoint)
  end)
end)

describe("ip.endpoint_key", function()
  local key = ip.endpoint_key

  it("is short", function()
    assert.are.equal(6, #key("1.2.3.4", 53))
    assert.are.equal(6, #key("::ffff:1.2.3.4", 53))
    assert.are.equal(18, #key("::1", 53))
    assert.are.equal(22, #key("::1%1", 53))
  end)

  it("is equal for equal endpoints, an address and its text alike", function()
    for _, text in ipairs { "1.2.3.4", "::1", "fe80::1%5" } do
      assert.are.equal(key(text, 53), key(new(text), 53))
    end
    assert.are.equal(key("::1", 53), key("0:0::1", 53))
    assert.are.equal(key("::1%0", 53), key("::1", 53))
  end)

  it("is the same for a v4 address and its mapped form", function()
    assert.are.equal(key("1.2.3.4", 53), key("::ffff:1.2.3.4", 53))
    assert.are.equal(key("1.2.3.4", 53), key(new("1.2.3.4"):to_v6(), 53))
    assert.are.equal(key("1.2.3.4", 53), key("::ffff:1.2.3.4%5", 53))
    assert.are_not.equal(key("1.2.3.4", 53), key("::1.2.3.4", 53))
  end)

  it("differs where address, port or scope differ", function()
    local seen, count = {}, 0
    for _, text in ipairs {
      "0.0.0.0", "1.2.3.4", "4.3.2.1", "::", "::1", "::1%1", "::1%256", "::1%16777216", "::1%4294967295", "fe80::1%1",
    } do
      for _, port in ipairs { 0, 1, 53, 255, 256, 13568, 65535 } do
        local value = key(text, port)
        assert.is_nil(seen[value], text)
        seen[value], count = true, count + 1
      end
    end
    assert.are.equal(70, count)
  end)

  it("is inverted by ip.endpoint_from_key", function()
    local random = generator(2460)
    for _ = 1, 2000 do
      local address, port = random_address(random), random(0, 65535)
      local results = table.pack(ip.endpoint_from_key(key(address, port)))
      assert.are.equal(2, results.n)
      assert.are.equal(address.is_v4_mapped and address:to_v4() or address, results[1])
      assert.are.equal(port, results[2])
      assert.are.equal("integer", math.type(results[2]))
      assert.are.equal(key(address, port), key(results[1], results[2]))
    end
  end)

  it("refuses what is no address", function() refuses_bad_addresses(key) end)

  it("refuses what is no port, a missing one included", function()
    refuses_bad_ports(key)
    assert_bad_argument(2, "integer expected", key, "1.2.3.4")
    assert_bad_argument(2, "integer expected, got nil", key, "1.2.3.4", nil)
  end)
end)

describe("ip.endpoint_from_key", function()
  it("gives a v4-mapped address back as v4", function()
    local address, port = ip.endpoint_from_key(ip.endpoint_key("::ffff:1.2.3.4", 53))
    assert.are.equal(new("1.2.3.4"), address)
    assert.are.equal(53, port)
    assert.are.equal(new("1.2.3.4"), (ip.endpoint_from_key(new("::ffff:1.2.3.4"):to_bytes() .. "\0\53")))
  end)

  it("refuses every other length", function()
    for length = 0, 40 do
      if length ~= 6 and length ~= 18 and length ~= 22 then
        assert_bad_argument(1, "not an endpoint key", ip.endpoint_from_key, ("x"):rep(length))
      end
    end
  end)

  it("refuses anything but a string, a number of six digits included", function()
    for _, value in ipairs { 123456, true, {}, print, new() } do
      assert_bad_argument(1, "string expected", ip.endpoint_from_key, value)
    end
    assert_bad_argument(1, "string expected", ip.endpoint_from_key)
  end)
end)
