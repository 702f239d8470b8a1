-- What ip.address promises.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local memory = require "spec.support.memory"
local samples = require "spec.support.sample_addresses"

local new, parse, from_bytes = ip.address.new, ip.address.parse, ip.address.from_bytes
local assert_bad_argument, assert_contains = assertions.assert_bad_argument, assertions.assert_contains
local assert_message = assertions.assert_message
local generator, random_groups = samples.generator, samples.random_groups
local address_of, random_address = samples.address_of, samples.random_address
local loopback_name, loopback_index = samples.loopback_name, samples.loopback_index
local malformed, not_strings = samples.malformed, samples.not_strings

describe("ip.address.new", function()
  it("gives 0.0.0.0 without an argument", function()
    assert.are.equal(new(), ip.address.any_v4())
    assert.are.equal("0.0.0.0", tostring(new()))
  end)

  it("reads dotted IPv4 text", function()
    assert.are.equal("\192\0\2\255", new("192.0.2.255"):to_bytes())
  end)

  it("reads IPv6 text in every notation", function()
    local bytes = "\x20\x01\x0d\xb8" .. ("\0"):rep(8) .. "\xc0\x00\x02\x21"
    for _, text in ipairs {
      "2001:db8::c000:221", "2001:0db8:0000:0000:0000:0000:c000:0221", "2001:DB8::C000:221",
      "2001:db8:0:0::c000:221", "2001:db8::192.0.2.33",
    } do
      assert.are.equal(bytes, new(text):to_bytes(), text)
    end
  end)

  it("reads a scope as an interface name", function()
    assert.is_true(loopback_index > 0)
    assert.are.equal(loopback_index, new("fe80::1%" .. loopback_name).scope_id)
    assert.are.equal(loopback_index, new("ff02::1%" .. loopback_name).scope_id)
    assert.are.equal(loopback_index, new("2001:db8::1%" .. loopback_name).scope_id)
  end)

  it("reads a scope as a number within 0..4294967295", function()
    assert.are.equal(7, new("fe80::1%7").scope_id)
    assert.are.equal(7, new("fe80::1%007").scope_id)
    assert.are.equal(4294967295, new("fe80::1%4294967295").scope_id)
    assert.are.equal(new("fe80::1"), new("fe80::1%0"))
  end)

  it("refuses malformed text and says what is wrong", function()
    for text, message in pairs(malformed) do assert_bad_argument(1, message, new, text) end
  end)

  it("refuses anything but a string, numbers and an explicit nil included", function()
    for _, value in ipairs(not_strings) do assert_bad_argument(1, "string expected", new, value) end
    assert_bad_argument(1, "string expected, got nil", new, nil)
  end)
end)

describe("ip.address.parse", function()
  it("gives the same address as new", function()
    for _, text in ipairs { "1.2.3.4", "::", "fe80::1%3", "::ffff:1.2.3.4" } do
      assert.are.equal(new(text), parse(text))
      assert.are.equal(1, select("#", parse(text)))
    end
  end)

  it("returns nil and a message for malformed text and never raises on it", function()
    for text, message in pairs(malformed) do
      local results = table.pack(parse(text))
      assert.are.equal(2, results.n)
      assert.is_nil(results[1])
      assert_contains(results[2], message)
    end
  end)

  it("never raises on random text", function()
    local random = generator(7)
    local alphabet = "0123456789abcdef:.%[]g \0"
    local accepted = 0
    for _ = 1, 20000 do
      local characters = {}
      for i = 1, random(0, 12) do
        local at = random(1, #alphabet)
        characters[i] = alphabet:sub(at, at)
      end
      local address, message = parse(table.concat(characters))
      if address then
        accepted = accepted + 1
        assert.are.equal(address, parse(tostring(address)))
      else
        assert.is_string(message)
      end
    end
    assert.is_true(accepted > 0)
  end)

  it("raises on a wrong type, which is a mistake in the program", function()
    for _, value in ipairs(not_strings) do assert_bad_argument(1, "string expected", parse, value) end
    assert_bad_argument(1, "string expected", parse)
  end)
end)

describe("the constructors of ip.address", function()
  it("give the well-known addresses", function()
    assert.are.equal("0.0.0.0", tostring(ip.address.any_v4()))
    assert.are.equal("::", tostring(ip.address.any_v6()))
    assert.are.equal("127.0.0.1", tostring(ip.address.loopback_v4()))
    assert.are.equal("::1", tostring(ip.address.loopback_v6()))
    assert.are.equal("255.255.255.255", tostring(ip.address.broadcast_v4()))
  end)

  it("make an address of 4 or 16 bytes", function()
    assert.are.equal("1.2.3.4", tostring(from_bytes("\1\2\3\4")))
    assert.are.equal("0.0.0.0", tostring(from_bytes("\0\0\0\0")))
    assert.are.equal("102:304::", tostring(from_bytes("\1\2\3\4" .. ("\0"):rep(12))))
    assert.are.equal(0, from_bytes(("\255"):rep(16)).scope_id)
  end)

  it("make an address of the bytes in a span, which may change afterwards", function()
    local span = ip.byte_span.new(4)
    span:copy("\1\2\3\4")
    local address = from_bytes(span)
    span:copy("\5\6\7\8")
    assert.are.equal(new("1.2.3.4"), address)
    assert.are.equal(new("::"), from_bytes(ip.byte_span.new(16)))
    assert_bad_argument(1, "4 or 16 bytes expected, got 5", from_bytes, ip.byte_span.new(5))
  end)

  it("refuse any other number of bytes", function()
    for length = 0, 33 do
      if length ~= 4 and length ~= 16 then
        assert_bad_argument(1, "4 or 16 bytes expected, got " .. length, from_bytes, ("x"):rep(length))
      end
    end
  end)

  it("refuse anything but bytes, a number of four digits included", function()
    for _, value in ipairs { 1234, true, {}, print, new() } do
      assert_bad_argument(1, "string or byte_span expected", from_bytes, value)
    end
    assert_bad_argument(1, "string or byte_span expected", from_bytes)
  end)

  it("invert to_bytes", function()
    local random = generator(11)
    for _ = 1, 500 do
      local address = random_address(random)
      local again = from_bytes(address:to_bytes())
      assert.are.equal(address.is_v6 and address:with_scope_id(0) or address, again)
    end
  end)
end)

describe("the text of an address", function()
  it("is what RFC 5952 recommends", function()
    for text, expected in pairs {
      ["2001:0db8::0001"] = "2001:db8::1", -- 4.1, leading zeros
      ["2001:db8:0:0:0:0:2:1"] = "2001:db8::2:1", -- 4.2.1, shorten as much as possible
      ["2001:db8::0:1"] = "2001:db8::1",
      ["2001:db8:0:1:1:1:1:1"] = "2001:db8:0:1:1:1:1:1", -- 4.2.2, never a single group
      ["2001:0:0:1:0:0:0:1"] = "2001:0:0:1::1", -- 4.2.3, the longest run
      ["2001:db8:0:0:1:0:0:1"] = "2001:db8::1:0:0:1", -- 4.2.3, the first of equals
      ["2001:DB8::ABCD"] = "2001:db8::abcd", -- 4.3, lower case
      ["0:0:0:0:0:0:0:0"] = "::",
      ["0:0:0:0:0:0:0:1"] = "::1",
      ["1:0:0:0:0:0:0:0"] = "1::",
      ["0:0:1:1:1:1:1:1"] = "::1:1:1:1:1:1",
      ["1:1:1:1:1:1:0:0"] = "1:1:1:1:1:1::",
      ["0:1:1:1:1:1:1:0"] = "0:1:1:1:1:1:1:0",
      ["1:0:0:2:3:0:0:4"] = "1::2:3:0:0:4",
      ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
      ["1000:200:30:4:0500:0060:0007:f000"] = "1000:200:30:4:500:60:7:f000",
    } do
      assert.are.equal(expected, tostring(new(text)))
    end
  end)

  it("is mixed notation for v4-mapped addresses and for no others", function()
    assert.are.equal("::ffff:192.0.2.1", tostring(new("::ffff:c000:201")))
    assert.are.equal("::ffff:0.0.0.0", tostring(new("::ffff:0:0")))
    assert.are.equal("::ffff:255.255.255.255%4294967295",
      tostring(new("::ffff:ffff:ffff%4294967295")))
    assert.are.equal("::102:304", tostring(new("::1.2.3.4")))
    assert.are.equal("::ffff:0:102:304", tostring(new("::ffff:0:1.2.3.4")))
    assert.are.equal("64:ff9b::102:304", tostring(new("64:ff9b::1.2.3.4")))
    assert.are.equal("::fffe:102:304", tostring(new("::fffe:1.2.3.4")))
  end)

  it("has no leading zeros in IPv4", function()
    assert.are.equal("0.10.100.255", tostring(from_bytes("\0\10\100\255")))
  end)

  it("names the interface of a link-local scope", function()
    for _, prefix in ipairs { "fe80::1", "febf::1", "ff02::1", "ff12::1" } do
      assert.are.equal(prefix .. "%" .. loopback_name, tostring(new(prefix .. "%" .. loopback_index)))
    end
  end)

  it("numbers every other scope", function()
    for _, prefix in ipairs { "::1", "2001:db8::1", "fec0::1", "ff05::1", "ff01::1" } do
      assert.are.equal(prefix .. "%" .. loopback_index, tostring(new(prefix .. "%" .. loopback_name)))
    end
    assert.are.equal("fe80::1%2147483646", tostring(new("fe80::1%2147483646")))
    assert.are.equal("fe80::1%4294967295", tostring(new("fe80::1%4294967295")))
  end)

  it("does not mention scope 0", function()
    assert.are.equal("fe80::1", tostring(new("fe80::1%0")))
  end)

  it("follows the rules for random addresses", function()
    local function expected_text(groups)
      local best, best_length = nil, 1
      for first = 1, 8 do
        local length = 0
        while groups[first + length] == 0 do length = length + 1 end
        if length > best_length then best, best_length = first, length end
      end
      local function join(from, to)
        local parts = {}
        for i = from, to do parts[#parts + 1] = ("%x"):format(groups[i]) end
        return table.concat(parts, ":")
      end
      if not best then return join(1, 8) end
      return join(1, best - 1) .. "::" .. join(best + best_length, 8)
    end
    local random, compressed = generator(5952), 0
    for _ = 1, 3000 do
      local groups = random_groups(random)
      local address = address_of(groups)
      if not address.is_v4_mapped then
        local text = expected_text(groups)
        if text:find("::", 1, true) then compressed = compressed + 1 end
        assert.are.equal(text, tostring(address))
      end
    end
    assert.is_true(compressed > 1000 and compressed < 3000)
  end)

  it("reads back as the same address", function()
    local random = generator(4291)
    for _ = 1, 5000 do
      local address = random_address(random)
      local again = parse(tostring(address))
      assert.are.equal(address, again)
      assert.are.equal(tostring(address), tostring(again))
    end
    local scoped = new("fe80::1%" .. loopback_name)
    assert.are.equal(scoped, parse(tostring(scoped)))
  end)
end)

describe("the properties of an address", function()
  local common = { "is_v4", "is_v6", "is_loopback", "is_multicast", "is_unspecified", "is_v4_mapped" }
  local v6_only = {
    "is_link_local", "is_site_local", "is_multicast_global", "is_multicast_link_local", "is_multicast_node_local",
    "is_multicast_org_local", "is_multicast_site_local", "scope_id",
  }

  -- Expects the listed predicates to be true and all others to be false.
  local function assert_is(text, ...)
    local address, expected = new(text), {}
    for _, name in ipairs { ... } do expected[name] = true end
    for _, name in ipairs(common) do
      assert.are.equal(expected[name] or false, address[name], text .. " " .. name)
    end
    for _, name in ipairs(v6_only) do
      if address.is_v6 and name ~= "scope_id" then
        assert.are.equal(expected[name] or false, address[name], text .. " " .. name)
      end
    end
  end

  it("tell the kinds of v4 addresses", function()
    assert_is("0.0.0.0", "is_v4", "is_unspecified")
    assert_is("0.0.0.1", "is_v4")
    assert_is("127.0.0.1", "is_v4", "is_loopback")
    assert_is("127.255.255.255", "is_v4", "is_loopback")
    assert_is("126.255.255.255", "is_v4")
    assert_is("128.0.0.0", "is_v4")
    assert_is("223.255.255.255", "is_v4")
    assert_is("224.0.0.0", "is_v4", "is_multicast")
    assert_is("239.255.255.255", "is_v4", "is_multicast")
    assert_is("240.0.0.0", "is_v4")
    assert_is("255.255.255.255", "is_v4")
  end)

  it("tell the kinds of v6 addresses", function()
    assert_is("::", "is_v6", "is_unspecified")
    assert_is("::%1", "is_v6", "is_unspecified")
    assert_is("::1", "is_v6", "is_loopback")
    assert_is("::1%1", "is_v6", "is_loopback")
    assert_is("::2", "is_v6")
    assert_is("7f00::", "is_v6")
    assert_is("2001:db8::1", "is_v6")
    assert_is("e000::1", "is_v6")
    assert_is("fe7f::1", "is_v6")
    assert_is("fe80::1", "is_v6", "is_link_local")
    assert_is("febf:ffff::1", "is_v6", "is_link_local")
    assert_is("fec0::1", "is_v6", "is_site_local")
    assert_is("feff::1", "is_v6", "is_site_local")
    assert_is("fd00::1", "is_v6")
  end)

  it("tell every multicast scope, whatever the flags", function()
    local names = {
      [0x1] = "is_multicast_node_local", [0x2] = "is_multicast_link_local", [0x5] = "is_multicast_site_local",
      [0x8] = "is_multicast_org_local", [0xe] = "is_multicast_global",
    }
    for flags = 0, 15 do
      for scope = 0, 15 do
        assert_is(("ff%x%x::1"):format(flags, scope), "is_v6", "is_multicast", names[scope])
      end
    end
    for scope = 0, 15 do assert_is(("fd0%x::1"):format(scope), "is_v6") end
  end)

  it("do not look into a v4-mapped address", function()
    assert_is("::ffff:127.0.0.1", "is_v6", "is_v4_mapped")
    assert_is("::ffff:224.0.0.1", "is_v6", "is_v4_mapped")
    assert_is("::ffff:0.0.0.0", "is_v6", "is_v4_mapped")
    assert_is("::fffe:1.2.3.4", "is_v6")
    assert_is("1::ffff:1.2.3.4", "is_v6")
    assert_is("::1.2.3.4", "is_v6")
  end)

  it("give the scope id as an integer", function()
    assert.are.equal("integer", math.type(new("fe80::1%5").scope_id))
    assert.are.equal(5, new("fe80::1%5").scope_id)
    assert.are.equal(0, new("fe80::1").scope_id)
  end)

  it("that only v6 has say so on a v4 address", function()
    for _, name in ipairs(v6_only) do
      assert_message("property '" .. name .. "' is for v6 addresses only, 1.2.3.4 is a v4 address", function()
        return new("1.2.3.4")[name]
      end)
    end
  end)

  it("raise under an unknown name, and name it", function()
    for _, name in ipairs { "is_loopbck", "port", "new", 1 } do
      assert_message("ip.address has no property '" .. name .. "'", function() return new()[name] end)
    end
  end)

  it("cannot be written, known or not", function()
    local address = new("fe80::1%5")
    for _, name in ipairs { "scope_id", "is_v4", "to_v4" } do
      assert_message("property '" .. name .. "' of ip.address cannot be written", function() address[name] = 1 end)
    end
    assert_message("ip.address has no property 'port'", function() address.port = 1 end)
    assert.are.equal(new("fe80::1%5"), address)
  end)

  it("hide the metatable", function()
    assert.are.equal("ip.address", getmetatable(new()))
  end)
end)

describe("address:to_v6 and address:to_v4", function()
  it("map a v4 address and take it out again", function()
    local address = new("192.0.2.1")
    assert.are.equal(new("::ffff:192.0.2.1"), address:to_v6())
    assert.is_true(address:to_v6().is_v4_mapped)
    assert.are.equal(address, address:to_v6():to_v4())
  end)

  it("leave an address of the wanted version as it is", function()
    local v4, v6 = new("192.0.2.1"), new("fe80::1%5")
    assert.is_true(rawequal(v4, v4:to_v4()))
    assert.is_true(rawequal(v6, v6:to_v6()))
  end)

  it("drop the scope of a v4-mapped address", function()
    assert.are.equal(new("192.0.2.1"), new("::ffff:192.0.2.1%5"):to_v4())
  end)

  it("refuse a v6 address that is not v4-mapped", function()
    for _, text in ipairs { "::1", "::", "::102:304", "fe80::1%4294967295" } do
      assert_bad_argument(1, "v4 or v4-mapped address expected, got " .. text, function()
        return new(text):to_v4()
      end)
    end
  end)
end)

describe("address:to_bytes", function()
  it("gives 4 or 16 bytes in network order, without the scope", function()
    assert.are.equal("\1\2\3\4", new("1.2.3.4"):to_bytes())
    assert.are.equal("\xfe\x80" .. ("\0"):rep(13) .. "\1", new("fe80::1%5"):to_bytes())
  end)
end)

describe("address:with_scope_id", function()
  it("gives another address and leaves this one alone", function()
    local address = new("fe80::1")
    assert.are.equal(new("fe80::1%5"), address:with_scope_id(5))
    assert.are.equal(0, address.scope_id)
    assert.are.equal(address, address:with_scope_id(5):with_scope_id(0))
    assert.are.equal(4294967295, address:with_scope_id(4294967295).scope_id)
    assert.are.equal(5, address:with_scope_id(5.0).scope_id)
  end)

  it("refuses what is no scope id", function()
    local address = new("fe80::1")
    assert_bad_argument(1, "-1 is outside 0..4294967295", address.with_scope_id, address, -1)
    assert_bad_argument(1, "4294967296 is outside 0..4294967295", address.with_scope_id, address, 4294967296)
    assert_bad_argument(1, "integer expected, got number", address.with_scope_id, address, 1.5)
    for _, value in ipairs { "1", "lo", true, {} } do
      assert_bad_argument(1, "integer expected", address.with_scope_id, address, value)
    end
    assert_bad_argument(1, "integer expected", address.with_scope_id, address)
  end)

  it("refuses a v4 address", function()
    assert_bad_argument(1, "v6 address expected, got 1.2.3.4", function()
      return new("1.2.3.4"):with_scope_id(1)
    end)
  end)
end)

describe("the methods of an address", function()
  it("refuse to work on anything else", function()
    local address = new("::1")
    for _, name in ipairs { "to_v4", "to_v6", "to_bytes", "with_scope_id" } do
      for _, value in ipairs { 1, "::1", {}, io.stdout } do
        assert_message("calling '" .. name .. "' on bad self (ip.address expected, got ", address[name], value, 0)
      end
      assert_message("calling '" .. name .. "' on bad self (ip.address expected, got no value)", address[name])
    end
  end)
end)

describe("comparing addresses", function()
  it("finds equal what has the same version, bytes and scope", function()
    assert.is_true(new("1.2.3.4") == new("1.2.3.4"))
    assert.is_true(new("fe80::1%5") == new("FE80:0::1%5"))
    assert.is_false(new("1.2.3.4") == new("1.2.3.5"))
    assert.is_false(new("fe80::1%5") == new("fe80::1%6"))
    assert.is_false(new("fe80::1%5") == new("fe80::1"))
    assert.is_false(new("1.2.3.4") == new("::ffff:1.2.3.4"))
    assert.is_false(new("0.0.0.0") == new("::"))
  end)

  it("finds an address different from every other value", function()
    local address = new("1.2.3.4")
    for _, value in ipairs { "1.2.3.4", 16909060, {}, io.stdout, true, ip.byte_span.new(4) } do
      assert.is_false(address == value)
      assert.is_false(value == address)
    end
  end)

  it("puts v4 before v6, then goes by bytes, then by scope", function()
    local ascending = {
      "0.0.0.0", "1.2.3.4", "1.2.4.3", "127.255.255.255", "128.0.0.0", "255.255.255.255", "::", "::%1", "::1",
      "::1%1", "::1%255", "::1%256", "::1%4294967295", "::ffff:1.2.3.4", "7fff::", "8000::", "fe80::1%9", "fe80::2%1",
    }
    for i, left in ipairs(ascending) do
      for j, right in ipairs(ascending) do
        local a, b = new(left), new(right)
        assert.are.equal(i < j, a < b, left .. " < " .. right)
        assert.are.equal(i <= j, a <= b, left .. " <= " .. right)
        assert.are.equal(i > j, a > b, left .. " > " .. right)
        assert.are.equal(i >= j, a >= b, left .. " >= " .. right)
        assert.are.equal(i == j, a == b, left .. " == " .. right)
      end
    end
  end)

  it("is a strict total order that table.sort can use", function()
    local random, addresses = generator(99), {}
    for i = 1, 500 do addresses[i] = i % 5 == 0 and addresses[i // 2] or random_address(random) end
    table.sort(addresses)
    for i = 2, #addresses do
      local a, b = addresses[i - 1], addresses[i]
      assert.is_false(b < a)
      assert.is_true(a <= b)
      assert.are_not.equal(a < b, a == b)
    end
    for _ = 1, 5000 do
      local a, b, c = addresses[random(1, 500)], addresses[random(1, 500)], addresses[random(1, 500)]
      local count = (a < b and 1 or 0) + (b < a and 1 or 0) + (a == b and 1 or 0)
      assert.are.equal(1, count)
      if a < b and b < c then assert.is_true(a < c) end
    end
  end)

  it("refuses to order an address and another type, and names both", function()
    local address = new("1.2.3.4")
    local span = ip.byte_span.new(1)
    for name, value in pairs { number = 1, string = "1.2.3.4", table = {}, boolean = true, byte_span = span } do
      local forward = "attempt to compare ip.address with " .. name
      assert_message(forward, function() return address < value end)
      assert_message(forward, function() return address <= value end)
      local backward = "attempt to compare " .. name .. " with ip.address"
      assert_message(backward, function() return value < address end)
      assert_message(backward, function() return value <= address end)
    end
    assert_message("attempt to compare ip.address with nil", function() return address < nil end)
  end)
end)

describe("an address", function()
  it("is not changed by what is made from it", function()
    local address = new("fe80::1%5")
    local before = tostring(address)
    address:to_v6()
    address:with_scope_id(9)
    ip.endpoint_key(address, 1)
    assert.are.equal(before, tostring(address))
  end)

  it("survives in numbers without leaking", function()
    local before = memory.used()
    for i = 1, 100000 do
      local address = from_bytes(string.pack(">I4", i))
      assert(address:to_v6():to_v4() == address)
    end
    assert.is_true(memory.used() - before < 100)
  end)
end)
