-- What is promised about looking up names on this machine: results, arguments, errors, and how it waits.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"

local fiber, udp, flag = ip.fiber, ip.udp, ip.address_info_flag
local with_loop, on_main, error_of = support.with_loop, support.on_main, support.error_of
local assert_bad_argument, assert_contains = assertions.assert_bad_argument, assertions.assert_contains
local assert_message, assert_raises = assertions.assert_message, assertions.assert_raises

local look_ups = { "get_address_info", "get_address_v4_info", "get_address_v6_info" }

local function assert_resolver_error(name, operation, fn, ...)
  assert.equal("resolver", assert_raises(name, operation, fn, ...).category)
end

-- The addresses of a list as text, in its order.
local function texts(list)
  local all = {}
  for i, entry in ipairs(list) do
    all[i] = tostring(entry.address)
  end
  return all
end

local function look_up(...)
  return texts(udp.get_address_info(...))
end

-- A port of the UDP service `name`, as the system's list has it, or nil.
local function port_of(name)
  local file = io.open("/etc/services")
  if file == nil then return nil end
  for line in file:lines() do
    local port = line:match("^" .. name .. "%s+(%d+)/udp")
    if port then
      file:close()
      return tonumber(port)
    end
  end
  file:close()
end

describe("get_address_info", function()
  it("gives an address literal back, as an ip.address, with the port", with_loop(function()
    for _, text in ipairs { "127.0.0.1", "192.0.2.255", "::1", "2001:db8::5", "::ffff:192.0.2.1" } do
      for _, host in ipairs { text, ip.address.new(text) } do
        local list = udp.get_address_info(host, 4242)
        assert.equal(1, #list)
        assert.equal(ip.address.new(text), list[1].address)
        assert.equal(4242, list[1].port)
        assert.equal("integer", math.type(list[1].port))
        assert.is_nil(list[1].canonical_name)
      end
    end
  end))

  it("keeps the scope of an address", with_loop(function()
    local lo
    for _, entry in ipairs(ip.interfaces()) do
      if entry.is_internal then lo = entry end
    end
    local scoped = ip.address.new("fe80::1"):with_scope_id(lo.index)
    assert.equal(scoped, udp.get_address_info("fe80::1%" .. lo.name, 1)[1].address)
    assert.equal(scoped, udp.get_address_info("fe80::1%" .. lo.index, 1)[1].address)
    for _, text in ipairs { "fe80::1", "fe80::1%4294967295", "2001:db8::1%7", "ff02::fb%" .. lo.index } do
      local address = ip.address.new(text)
      assert.equal(address, udp.get_address_info(address, 1)[1].address)
    end
  end))

  it("finds localhost among this machine's names, each address once", with_loop(function()
    local list = udp.get_address_info("localhost", 53)
    assert.is_true(#list >= 1)
    local seen = {}
    for _, entry in ipairs(list) do
      assert.is_true(entry.address.is_loopback)
      assert.equal(53, entry.port)
      assert.is_nil(seen[tostring(entry.address)])
      seen[tostring(entry.address)] = true
    end
  end))

  it("gives results that a socket can use as they are", with_loop(function()
    local server <close>, port = support.bound()
    local entry = udp.get_address_v4_info("localhost", port)[1]
    local client <close> = udp.connect(entry.address, entry.port)
    client:send("found")
    assert.equal("found", (server:receive_string()))
  end))

  it("takes a service as an integer, as its digits, as its name, or none", with_loop(function()
    for _, service in ipairs { 0, 1, 53, 65535 } do
      assert.equal(service, udp.get_address_info("::1", service)[1].port)
      assert.equal(service, udp.get_address_info("::1", tostring(service))[1].port)
    end
    assert.equal(53, udp.get_address_info("::1", 53.0)[1].port)
    assert.equal(0, udp.get_address_info("::1")[1].port)
    assert.equal(0, udp.get_address_info("::1", nil)[1].port)
  end))

  it("knows the system's names of UDP services", with_loop(function()
    local port = port_of("domain")
    if port == nil then return pending("the system has no list of services") end
    assert.equal(port, udp.get_address_info("::1", "domain")[1].port)
  end))

  it("raises EAI_SERVICE for a service that does not exist, and never wraps a number", with_loop(function()
    for _, service in ipairs { "no-such-service", "65536", "70000", "99999999999999999999999", "-1", "+53", " 53",
      "53 ", "", "5.3" } do
      assert_resolver_error("EAI_SERVICE", "get_address_info", udp.get_address_info, "::1", service)
    end
  end))

  it("raises EAI_NONAME for what can be no name of a host", with_loop(function()
    for _, host in ipairs { "", ("x"):rep(256), ("x"):rep(100000), "\xff\xfe", ("\xc3\xa9"):rep(32) } do
      for _, name in ipairs(look_ups) do
        assert_resolver_error("EAI_NONAME", name, udp[name], host, 1)
      end
    end
  end))

  it("raises EAI_NONAME for the scope of an interface that does not exist", with_loop(function()
    assert_resolver_error("EAI_NONAME", "get_address_info", udp.get_address_info, "fe80::1%no-such-interface", 1)
  end))

  it("restricts the family where it is told to", with_loop(function()
    assert.same({ "127.0.0.1" }, texts(udp.get_address_v4_info("127.0.0.1", 1)))
    assert.same({ "::1" }, texts(udp.get_address_v6_info("::1", 1)))
    for _, case in ipairs { { "get_address_v4_info", "::1" }, { "get_address_v6_info", "127.0.0.1" } } do
      local name, host = table.unpack(case)
      for _, form in ipairs { host, ip.address.new(host) } do
        local err = error_of(udp[name], form, 1)
        assert.equal("resolver", err.category)
        assert.equal(name, err.operation)
      end
    end
  end))

  it("with v4_mapped gives v4 addresses in their mapped form to those who want v6", with_loop(function()
    assert.same({ "::ffff:192.0.2.1" }, texts(udp.get_address_v6_info("192.0.2.1", 1, flag.v4_mapped)))
    assert.same({ "::1" }, texts(udp.get_address_v6_info("::1", 1, flag.v4_mapped | flag.all_matching)))
  end))

  it("without a host, with passive, gives the addresses to bind to", with_loop(function()
    assert.same({ "0.0.0.0" }, texts(udp.get_address_v4_info(nil, 9, flag.passive)))
    assert.same({ "::" }, texts(udp.get_address_v6_info(nil, 9, flag.passive)))
    local both = udp.get_address_info(nil, 9, flag.passive)
    assert.equal(2, #both)
    assert.is_true(both[1].address.is_unspecified and both[2].address.is_unspecified)
    assert.equal(9, both[2].port)
    assert.equal(0, udp.get_address_v4_info(nil, nil, flag.passive)[1].port)
  end))

  it("gives the canonical name when it is asked for", with_loop(function()
    assert.equal("string", type(udp.get_address_info("localhost", 1, flag.canonical_name)[1].canonical_name))
    assert.is_nil(udp.get_address_info("localhost", 1)[1].canonical_name)
  end))

  it("makes new tables for every call", with_loop(function()
    local first = udp.get_address_info("::1", 1)
    first[1].port = 2
    assert.equal(1, udp.get_address_info("::1", 1)[1].port)
  end))

  it("refuses wrong arguments, naming function, position and type", with_loop(function()
    local function refused(part, position, ...)
      for _, name in ipairs(look_ups) do
        assert_contains(assert_bad_argument(position, part, udp[name], ...), name)
      end
    end
    refused("a host is needed without the flag passive", 1)
    refused("a host is needed without the flag passive", 1, nil, 53, flag.canonical_name)
    refused("ip.address, string or nil expected, got number", 1, 127, 53)
    refused("ip.address, string or nil expected, got table", 1, {}, 53)
    refused("ip.address, string or nil expected, got byte_span", 1, ip.byte_span.append("::1"), 53)
    refused("a zero byte in a name", 1, "::1\0", 53)
    refused("a zero byte in a name", 2, "::1", "53\0")
    refused("65536 is outside 0..65535", 2, "::1", 65536)
    refused("-1 is outside 0..65535", 2, "::1", -1)
    refused("integer expected, got number", 2, "::1", 1.5)
    refused("string, integer or nil expected, got boolean", 2, "::1", true)
    refused("ip.address_info_flag value expected, got string", 3, "::1", 53, "1")
    refused("no combination of ip.address_info_flag values", 3, "::1", 53, 1 << 30)
    refused("-1 is no combination of ip.address_info_flag values", 3, "::1", 53, -1)
    refused("1099511627776 is no combination of", 3, "::1", 53, 1 << 40)
  end))
end)

-- What a look-up gives or raises, in one text. A service that has a name is looked up in a thread.
local function outcome(name, host, service, flags)
  local ok, list = pcall(udp[name], host, service, flags)
  if not ok then return ("%s %s"):format(list.category, list.name) end
  local all = {}
  for i, entry in ipairs(list) do
    all[i] = ("%s %d %s"):format(entry.address, entry.port, entry.canonical_name)
  end
  return table.concat(all, ", ")
end

describe("a host that is an address", function()
  it("is answered at once, as text and as an ip.address", with_loop(function()
    for _, call in ipairs {
      function() return udp.get_address_info("127.0.0.1", 53) end,
      function() return udp.get_address_v6_info(ip.address.new("::1"), "53") end,
      function() return udp.get_address_v4_info("192.0.2.1") end,
      function() return udp.get_address_v6_info("192.0.2.1", 1, flag.v4_mapped) end,
      function() return udp.get_address_info("::1", 1, flag.canonical_name | flag.numeric_host) end,
      function() return udp.get_address_info(ip.address.new("::1"):with_scope_id(1), 1) end,
    } do
      local co = coroutine.create(call)
      local _, list = coroutine.resume(co)
      assert.equal("dead", coroutine.status(co))
      assert.equal(1, #list)
    end
  end))

  it("is answered though no time is left, and errors are raised at once, too", with_loop(function()
    fiber.with_timeout(0, function()
      assert.same({ "::1" }, look_up("::1", 1))
      assert.equal("resolver", error_of(udp.get_address_v4_info, ip.address.new("::1"), 1).category)
      assert_resolver_error("EAI_NONAME", "get_address_info", udp.get_address_info, "localhost", 1, flag.numeric_host)
    end)
  end))

  it("has the results and errors that a thread would find, whatever the flags", with_loop(function()
    local port = port_of("domain")
    if port == nil then return pending("the system has no list of services") end
    local lo = ip.interfaces()[1].name
    for _, host in ipairs {
      "127.0.0.1", "0.0.0.0", "255.255.255.255", "::1", "::", "::ffff:192.0.2.1", "::192.0.2.1", "fe80::1%" .. lo,
      "fe80::1%1", "fe80::1%0", "fe80::1%none", "2001:db8::1%" .. lo, "2001:db8::1%1", "ff02::1%" .. lo, "127.1", "1",
      "0x7f.1", "192.0.2.256", "192.0.2.1 ", "::1%", "2001:DB8:0:0::1",
    } do
      for _, name in ipairs(look_ups) do
        for _, flags in ipairs { 0, flag.canonical_name, flag.v4_mapped, flag.v4_mapped | flag.all_matching,
          flag.passive, flag.numeric_host, flag.address_configured } do
          local message = ("%s %s %d"):format(name, host, flags)
          assert.equal(outcome(name, host, "domain", flags), outcome(name, host, port, flags), message)
          local address = ip.address.parse(host)
          if address then
            assert.equal(outcome(name, address, "domain", flags), outcome(name, address, port, flags), message)
          end
        end
      end
    end
  end, 60))

  it("lets others run now and then", with_loop(function()
    local turns = support.turns_during(function()
      for _ = 1, 1000 do udp.get_address_info("::1", 1) end
    end)
    assert.is_true(turns > 1)
    local err = error_of(fiber.with_timeout, 0.002, function()
      while true do udp.get_address_info("::1", 1) end
    end)
    assert.equal(ip.error.ETIMEDOUT, err)
  end))

  it("can be closed while it lets others run", with_loop(function()
    local closed = 0
    for _ = 1, 3 do
      local co = coroutine.create(function()
        while true do udp.get_address_info("::1", 1) end
      end)
      coroutine.resume(co)
      if coroutine.close(co) then closed = closed + 1 end
    end
    assert.equal(3, closed)
  end))
end)

describe("ip.address_info_flag", function()
  it("has its flags, each a bit of its own", function()
    local bits, count = 0, 0
    for name, value in pairs(flag) do
      assert.equal("string", type(name))
      assert.equal(0, bits & value)
      bits, count = bits | value, count + 1
    end
    assert.equal(8, count)
    for _, name in ipairs { "address_configured", "all_matching", "canonical_name", "name_required", "numeric_host",
      "numeric_service", "passive", "v4_mapped" } do
      assert.equal("integer", math.type(flag[name]))
    end
  end)

  it("raises for a name that it does not have", function()
    for _, name in ipairs { "numerichost", "AI_PASSIVE", 1, true } do
      assert_message(("ip.address_info_flag has no flag '%s'"):format(name), function() return flag[name] end)
    end
  end)

  it("is taken by get_address_info, one by one and together", with_loop(function()
    for name, value in pairs(flag) do
      if name ~= "name_required" then
        local ok, result = pcall(udp.get_address_info, "127.0.0.1", 1, value)
        assert.is_true(ok, tostring(result))
      end
    end
    assert_bad_argument(3, "get_address_info has no flag 'name_required'", udp.get_address_info, "127.0.0.1", 1,
      flag.name_required)
    local all = flag.all_matching | flag.canonical_name | flag.passive | flag.v4_mapped
    assert.same({ "::ffff:192.0.2.1" }, texts(udp.get_address_v6_info("192.0.2.1", 1, all)))
  end))

  it("lets get_address_info refuse names: of hosts with numeric_host, of services with numeric_service", with_loop(
    function()
      for _, name in ipairs(look_ups) do
        assert_resolver_error("EAI_NONAME", name, udp[name], "localhost", 1, flag.numeric_host)
        local err = error_of(udp[name], ip.address.new("::1"), "domain", flag.numeric_service)
        assert.equal("resolver", err.category)
      end
      assert.equal(53, udp.get_address_info("::1", "53", flag.numeric_host | flag.numeric_service)[1].port)
      assert.equal(53, udp.get_address_v4_info("localhost", "53", flag.numeric_service)[1].port)
    end))
end)

describe("get_name_info", function()
  it("finds the names of loopback and of a UDP service", with_loop(function()
    local entry = udp.get_name_info("127.0.0.1", 53)[1]
    assert.is_true(#entry.host_name > 0)
    assert.equal(port_of("domain") == 53 and "domain" or "53", entry.service_name)
  end))

  it("returns numbers with numeric_host and numeric_service, both of them at once", with_loop(function()
    local numbers = flag.numeric_host | flag.numeric_service
    for _, text in ipairs { "127.0.0.1", "::1", "::ffff:192.0.2.1", "2001:db8::1%7" } do
      local co = coroutine.create(udp.get_name_info)
      local _, list = coroutine.resume(co, text, 53, numbers)
      assert.equal("dead", coroutine.status(co))
      assert.same({ { host_name = text, service_name = "53" } }, list)
    end
    assert.equal("127.0.0.1", udp.get_name_info("127.0.0.1", 53, flag.numeric_host)[1].host_name)
    assert.equal("53", udp.get_name_info("127.0.0.1", 53, flag.numeric_service)[1].service_name)
    assert.equal(udp.get_name_info("127.0.0.1", 53)[1].host_name,
      udp.get_name_info("127.0.0.1", 53, flag.numeric_service)[1].host_name)
    assert.equal(port_of("domain") == 53 and "domain" or "53",
      udp.get_name_info("127.0.0.1", 53, flag.numeric_host)[1].service_name)
  end))

  it("with name_required takes no number for a host's name", with_loop(function()
    assert.is_true(#udp.get_name_info("127.0.0.1", 53, flag.name_required)[1].host_name > 0)
    assert_resolver_error("EAI_NONAME", "get_name_info", udp.get_name_info, "127.0.0.1", 53,
      flag.name_required | flag.numeric_host)
  end))

  it("refuses the flags of get_address_info", with_loop(function()
    for _, name in ipairs { "address_configured", "all_matching", "canonical_name", "passive", "v4_mapped" } do
      assert_bad_argument(3, ("get_name_info has no flag '%s'"):format(name), udp.get_name_info, "::1", 1, flag[name])
    end
    assert_bad_argument(3, "no combination of ip.address_info_flag values", udp.get_name_info, "::1", 1, 1 << 30)
    assert_bad_argument(3, "ip.address_info_flag value expected, got string", udp.get_name_info, "::1", 1, "1")
  end))

  it("refuses wrong arguments", with_loop(function()
    local function refused(part, ...)
      assert_contains(assert_message(part, udp.get_name_info, ...), "get_name_info")
    end
    refused("#1")
    refused("#1", 1, 1)
    refused("#1", "localhost", 1)
    refused("#2", "::1")
    refused("#2", "::1", "53")
    refused("65536 is outside 0..65535", "::1", 65536)
  end))
end)

describe("a look-up as a suspending call", function()
  it("on the main thread drives the loop, and other fibers go on", on_main(function()
    local turns = support.turns_during(function()
      assert.is_true(#look_up("localhost", 1) > 0)
      assert.equal(1, #udp.get_name_info("127.0.0.1", 1))
    end)
    assert.is_true(turns > 0)
  end))

  it("on the main thread is no deadlock, though nothing else is going on", on_main(function()
    assert.is_true(#look_up("localhost", 1) > 0)
  end))

  it("suspends a coroutine that others have made, and yields nothing", on_main(function()
    local got
    local co = coroutine.create(function() got = look_up("localhost", 1) end)
    assert.equal(1, select("#", coroutine.resume(co)))
    assert.equal("suspended", coroutine.status(co))
    assert.is_nil(got)
    fiber.run()
    assert.is_true(#got > 0)
  end))

  it("waits unless it is answered at once: with no time left it raises the deadline", with_loop(function()
    assert_raises("ETIMEDOUT", "with_timeout", fiber.with_timeout, 0, udp.get_address_info, "localhost", 1)
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, -1, udp.get_name_info, "::1", 1))
  end))

  it("is refused where Lua cannot suspend, before anything is looked up", with_loop(function()
    for _, call in ipairs {
      function() udp.get_address_info("::1", 1) end,
      function() udp.get_address_info("", "") end,
      function() udp.get_name_info("::1", 1) end,
    } do
      assert_message("cannot wait in get_", string.gsub, "x", "x", call)
    end
  end))

  it("raises an interruption that came before it", with_loop(function()
    local err
    local one
    one = fiber.spawn(function()
      one:interrupt()
      err = error_of(udp.get_address_info, "::1", 1)
      assert.same({ "::1" }, fiber.shield(look_up, "::1", 1))
    end)
    one:join()
    assert.equal(ip.error.INTERRUPTED, err)
    assert.equal("get_address_info", err.operation)
  end))

  it("gives each of many fibers its own answer", with_loop(function()
    local fibers = {}
    for i = 1, 300 do
      fibers[i] = fiber.spawn(function()
        local entry = udp.get_address_v4_info("localhost", i)[1]
        local name = udp.get_name_info("127.0.0.1", 40000 + i)[1]
        return tostring(entry.address), entry.port, name.service_name
      end)
    end
    for i, each in ipairs(fibers) do
      local address, port, service = each:join()
      assert.equal("127.0.0.1", address)
      assert.equal(i, port)
      assert.equal(tostring(40000 + i), service)
    end
  end, 30))
end)
