-- What is promised about looking up names: results, errors, and calls that wait for a resolver that is slow or silent.
local ip = require "ip"
local network = require "spec.support.network"
local process = require "spec.support.process"
local support = require "spec.support"

local fiber, udp, flag = ip.fiber, ip.udp, ip.address_info_flag
local with_loop, on_main, error_of = support.with_loop, support.on_main, support.error_of

local look_ups = { "get_address_info", "get_address_v4_info", "get_address_v6_info" }

local function assert_contains(text, part)
  assert.is_truthy(text:find(part, 1, true), ("%q does not contain %q"):format(text, part))
end

local function assert_resolver_error(name, err, operation)
  assert.equal(ip.error[name], err)
  assert.equal("resolver", err.category)
  assert.equal(operation or "get_address_info", err.operation)
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
      assert_resolver_error("EAI_SERVICE", error_of(udp.get_address_info, "::1", service))
    end
  end))

  it("raises EAI_NONAME for what can be no name of a host", with_loop(function()
    for _, host in ipairs { "", ("x"):rep(256), ("x"):rep(100000), "\xff\xfe", ("\xc3\xa9"):rep(32) } do
      for _, name in ipairs(look_ups) do
        assert_resolver_error("EAI_NONAME", error_of(udp[name], host, 1), name)
      end
    end
  end))

  it("raises EAI_NONAME for the scope of an interface that does not exist", with_loop(function()
    assert_resolver_error("EAI_NONAME", error_of(udp.get_address_info, "fe80::1%no-such-interface", 1))
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
        local message = error_of(udp[name], ...)
        assert.equal("string", type(message))
        assert_contains(message, ("bad argument #%d to '"):format(position))
        assert_contains(message, name)
        assert_contains(message, part)
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
    refused("number has no integer representation", 2, "::1", 1.5)
    refused("string, integer or nil expected, got boolean", 2, "::1", true)
    refused("integer expected, got string", 3, "::1", 53, "1")
    refused("not a combination of ip.address_info_flag values", 3, "::1", 53, 1 << 30)
    refused("is outside", 3, "::1", 53, -1)
    refused("is outside", 3, "::1", 53, 1 << 40)
  end))
end)

describe("ip.address_info_flag", function()
  it("has the five flags, each a bit of its own", function()
    local bits, count = 0, 0
    for name, value in pairs(flag) do
      assert.equal("string", type(name))
      assert.equal(0, bits & value)
      bits, count = bits | value, count + 1
    end
    assert.equal(5, count)
    for _, name in ipairs { "address_configured", "all_matching", "canonical_name", "passive", "v4_mapped" } do
      assert.equal("integer", math.type(flag[name]))
    end
  end)

  it("is taken by get_address_info, one by one and together", with_loop(function()
    for _, value in pairs(flag) do
      local ok, result = pcall(udp.get_address_info, "127.0.0.1", 1, value)
      assert.is_true(ok, tostring(result))
    end
    local all = flag.all_matching | flag.canonical_name | flag.passive | flag.v4_mapped
    assert.same({ "::ffff:192.0.2.1" }, texts(udp.get_address_v6_info("192.0.2.1", 1, all)))
  end))
end)

describe("get_name_info", function()
  it("finds the names of loopback and of a UDP service", with_loop(function()
    local entry = udp.get_name_info("127.0.0.1", 53)[1]
    assert.is_true(#entry.host_name > 0)
    assert.equal(port_of("domain") == 53 and "domain" or "53", entry.service_name)
  end))

  it("refuses wrong arguments", with_loop(function()
    local function refused(part, ...)
      local message = error_of(udp.get_name_info, ...)
      assert.equal("string", type(message))
      assert_contains(message, "get_name_info")
      assert_contains(message, part)
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
    local turns = 0
    local counting = fiber.spawn(function()
      while true do
        turns = turns + 1
        fiber.yield()
      end
    end)
    assert.same({ "::1" }, look_up("::1", 1))
    assert.equal(1, #udp.get_name_info("127.0.0.1", 1))
    assert.is_true(turns > 0)
    counting:interrupt()
    counting:join()
  end))

  it("on the main thread is no deadlock, though nothing else is going on", on_main(function()
    assert.same({ "::1" }, look_up("::1", 1))
  end))

  it("suspends a coroutine that others have made, and yields nothing", on_main(function()
    local got
    local co = coroutine.create(function() got = look_up("::1", 1) end)
    assert.equal(1, select("#", coroutine.resume(co)))
    assert.equal("suspended", coroutine.status(co))
    assert.is_nil(got)
    fiber.run()
    assert.same({ "::1" }, got)
  end))

  it("always waits: with no time left it raises the deadline", with_loop(function()
    local err = error_of(fiber.with_timeout, 0, udp.get_address_info, "::1", 1)
    assert.equal(ip.error.ETIMEDOUT, err)
    assert.equal("with_timeout", err.operation)
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, -1, udp.get_name_info, "::1", 1))
  end))

  it("is refused where Lua cannot suspend, before anything is looked up", with_loop(function()
    for _, call in ipairs {
      function() udp.get_address_info("::1", 1) end,
      function() udp.get_address_info("", "") end,
      function() udp.get_name_info("::1", 1) end,
    } do
      local message = error_of(string.gsub, "x", "x", call)
      assert_contains(message, "cannot wait in get_")
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
        local entry = udp.get_address_info("10.0." .. i // 256 .. "." .. i % 256, i)[1]
        local name = udp.get_name_info("127.0.0.1", 40000 + i)[1]
        return tostring(entry.address), entry.port, name.service_name
      end)
    end
    for i, each in ipairs(fibers) do
      local address, port, service = each:join()
      assert.equal("10.0." .. i // 256 .. "." .. i % 256, address)
      assert.equal(i, port)
      assert.equal(tostring(40000 + i), service)
    end
  end, 30))
end)

-- Runs a program in namespaces of its own; its output must be what is expected, and its exit code 0.
local function runs(expected, program, files, commands)
  return on_main(function()
    if not network.is_permitted() then return pending("no mount and network namespaces permitted") end
    local output, code = network.run(program, files, commands)
    assert.equal(expected, output)
    assert.equal(0, code)
  end, 100)
end

-- What the programs begin with.
local PRELUDE = [[
local ip = require "ip"
local fiber, udp, flag = ip.fiber, ip.udp, ip.address_info_flag
local name_server = require "spec.support.name_server"
local function show(list)
  local all = {}
  for i, entry in ipairs(list) do all[i] = tostring(entry.address) end
  table.sort(all)
  print(table.concat(all, " "))
end
local function fail(call, ...)
  local ok, err = pcall(call, ...)
  print(not ok and type(err) ~= "string" and err.category .. " " .. err.name .. " " .. err.operation or err)
end
]]

-- Withdrawn look-ups go on in their threads, which have descriptors open: such programs are processes of their own.
local function withdraws(expected, program)
  return function()
    local output, code = support.run_program(PRELUDE .. [[
local function left() return require("ip.core").fiber.statistics().operations end
]] .. program)
    assert.equal(expected, output)
    assert.equal(0, code)
  end
end

describe("a look-up that is withdrawn", function()
  it("by coroutine.close runs the coroutine's __close variables, and nothing else of it", withdraws(
    "closed\ntrue\n0\n::1\n", [[
local co = coroutine.create(function()
  local guard <close> = setmetatable({}, { __close = function() print("closed") end })
  udp.get_address_info("::1", 1)
  print("never reached")
end)
coroutine.resume(co)
print(coroutine.close(co))
print(left())
show(udp.get_address_info("::1", 1))
]]))

  it("by a stranger's resume raises in the coroutine, and gives no forged result", withdraws(
    "resumed while waiting in get_address_v4_info\nresumed while waiting in get_name_info\n0\n::1\n", [[
for _, call in ipairs { udp.get_address_v4_info, udp.get_name_info } do
  local co = coroutine.create(call)
  coroutine.resume(co, "127.0.0.1", 1)
  local ok, message = coroutine.resume(co, { { address = "forged" } })
  print(not ok and message)
end
print(left())
show(udp.get_address_info("::1", 1))
]]))

  it("many times leaves nothing", withdraws("0\n::1\n", [[
for i = 1, 500 do
  local co = coroutine.create(i % 2 == 0 and udp.get_address_info or udp.get_name_info)
  coroutine.resume(co, "127.0.0.1", 1)
  if i % 3 == 0 then fiber.sleep(0) end
  coroutine.close(co)
end
print(left())
show(udp.get_address_info("::1", 1))
]]))

  it("when its result is there already leaves nothing of that either", withdraws("1\n0\n", [[
local waiting, ended = {}, 0
for i = 1, 20 do
  waiting[i] = coroutine.create(function()
    local call = i % 2 == 0 and udp.get_address_info or udp.get_name_info
    call("127.0.0.1", 1)
    ended = ended + 1
    for j = 1, 20 do
      if j ~= i then coroutine.close(waiting[j]) end
    end
  end)
end
for _, co in ipairs(waiting) do coroutine.resume(co) end
local spin = fiber.now()
repeat until fiber.now() - spin > 0.05 -- most are finished when the loop looks
fiber.run()
print(ended)
print(left())
]]))

  it("by an interruption or not, the fiber learns of the interruption", withdraws("true INTERRUPTED\n", [[
local fine, last = true, nil
for _ = 1, 200 do
  local one = fiber.spawn(function()
    local ok, result = pcall(udp.get_address_info, "::1", 1)
    -- which of the two came first is the thread pool's business
    fine = fine and (ok and result[1].port == 1 or result == ip.error.INTERRUPTED)
    last = select(2, pcall(fiber.yield))
  end)
  fiber.yield()
  one:interrupt()
  one:join()
end
print(tostring(fine) .. " " .. last.name)
]]))
end)

describe("a look-up that needs a name server", function()
  after_each(process.stop_all)

  it("leaves the loop to others: the server may be a fiber of the same program", runs([[
192.0.2.1 2001:db8::1
192.0.2.1
2001:db8::1
192.0.2.2
2001:db8::3
::ffff:192.0.2.2
2001:db8::1 ::ffff:192.0.2.1
192.0.2.4 192.0.2.5
]], PRELUDE .. [[
name_server.start {
  ["both.test"] = { A = { "192.0.2.1" }, AAAA = { "2001:db8::1" } },
  ["four.test"] = { A = { "192.0.2.2" } },
  ["six.test"] = { AAAA = { "2001:db8::3" } },
  ["twice.test"] = { A = { "192.0.2.4", "192.0.2.5", "192.0.2.4" } },
}
show(udp.get_address_info("both.test", 1))
show(udp.get_address_v4_info("both.test", 1))
show(udp.get_address_v6_info("both.test", 1))
show(udp.get_address_info("four.test", 1))
show(udp.get_address_info("six.test", 1))
show(udp.get_address_v6_info("four.test", 1, flag.v4_mapped))
show(udp.get_address_v6_info("both.test", 1, flag.v4_mapped | flag.all_matching))
show(udp.get_address_info("twice.test", 1))
]]))

  it("gives the canonical name with every entry", runs(
    "real.test 192.0.2.1\nreal.test 192.0.2.2\nnil\n", PRELUDE .. [[
name_server.start { ["alias.test"] = { CNAME = "real.test" }, ["real.test"] = { A = { "192.0.2.1", "192.0.2.2" } } }
local list = udp.get_address_v4_info("alias.test", 1, flag.canonical_name)
table.sort(list, function(a, b) return a.address < b.address end)
for _, entry in ipairs(list) do print(entry.canonical_name .. " " .. tostring(entry.address)) end
print(udp.get_address_v4_info("alias.test", 1)[1].canonical_name)
]]))

  it("asks for the ASCII form of an international name", runs("192.0.2.1\n1\n", PRELUDE .. [[
local asked = name_server.start { ["xn--bcher-kva.test"] = { A = { "192.0.2.1" } } }
show(udp.get_address_v4_info("bücher.test", 1))
print(asked["xn--bcher-kva.test"])
]]))

  it("finds the name of an address", runs(
    "one.test domain\nsix.test 4\nlocalhost 4\n192.0.2.9 4\n", PRELUDE .. [[
name_server.start {
  ["1.2.0.192.in-addr.arpa"] = { PTR = { "one.test" } },
  ["9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"] = { PTR = { "six.test" } },
}
local function names(...)
  local list = udp.get_name_info(...)
  assert(#list == 1)
  print(list[1].host_name, list[1].service_name)
end
print = function(a, b) io.write(a, " ", tostring(b):gsub("^53$", "domain"), "\n") end
names("192.0.2.1", 53)
names(ip.address.new("2001:db8::9"), 4)
names("127.0.0.1", 4)
names("192.0.2.9", 4)
]]))

  it("looks at this machine's own names first", runs("192.0.2.80\n127.0.0.1\n0\n", PRELUDE .. [[
local asked = name_server.start { ["www.hosts.test"] = { A = { "192.0.2.1" } } }
show(udp.get_address_info("www.hosts.test", 1))
show(udp.get_address_v4_info("localhost", 1)) -- both lines of localhost, once
print(asked["www.hosts.test"])
]]))

  it("raises what the name server says as an error of category resolver", runs(
    [[
resolver EAI_NONAME get_address_info
resolver EAI_AGAIN get_address_info
resolver true get_address_info
resolver EAI_NONAME get_address_v4_info
resolver EAI_AGAIN get_name_info
]], PRELUDE .. [[
name_server.start {
  ["failing.test"] = { code = 2 },
  ["empty.test"] = {},
  ["7.2.0.192.in-addr.arpa"] = { code = 2 },
}
fail(udp.get_address_info, "no-such-host.invalid", 1)
fail(udp.get_address_info, "failing.test", 1)
local ok, err = pcall(udp.get_address_info, "empty.test", 1)
print(err.category .. " " .. tostring(not ok and (err == ip.error.EAI_NODATA or err == ip.error.EAI_NONAME)) .. " " ..
  err.operation)
fail(udp.get_address_v4_info, "www.no-such-host.invalid", 1)
fail(udp.get_name_info, "192.0.2.7", 1)
]]))

  it("agrees with dnsmasq", on_main(function()
    if not network.is_permitted() then return pending("no mount and network namespaces permitted") end
    if not process.exists("dnsmasq") then return pending("dnsmasq is not installed") end
    local output, code = network.run(PRELUDE .. [[
for _ = 1, 100 do -- until it listens
  local ok, err = pcall(udp.get_address_info, "ready.test", 1)
  if ok then break end
  assert(err == ip.error.EAI_AGAIN, tostring(err))
  fiber.sleep(0.02)
end
show(udp.get_address_info("host.test", "4"))
print(udp.get_address_info("alias.test", 1, flag.canonical_name)[1].canonical_name)
print(udp.get_name_info("192.0.2.1", 1)[1].host_name)
fail(udp.get_address_info, "other.test", 1)
]], nil, [[dnsmasq --no-daemon --conf-file=/dev/null --no-hosts --no-resolv --pid-file= --user=root --port=53 \
  --listen-address=127.0.0.1 --bind-interfaces --local=/test/ --host-record=host.test,192.0.2.1,2001:db8::1 \
  --host-record=ready.test,192.0.2.3 --cname=alias.test,host.test >/dev/null 2>&1 &
  server=$!
  (while kill -0 $$ 2>/dev/null; do sleep 0.05; done; kill $server) >/dev/null 2>&1 &]])
    assert.equal("192.0.2.1 2001:db8::1\nhost.test\nhost.test\nresolver EAI_NONAME get_address_info\n", output)
    assert.equal(0, code)
  end, 100))

  it("goes on beside other work: datagrams, timers, and look-ups that are answered", runs("192.0.2.1\nworked\n",
    PRELUDE .. [[
name_server.start { ["slow.test"] = { silent = true }, ["quick.test"] = { A = { "192.0.2.1" } } }
local slow = fiber.spawn(udp.get_address_info, "slow.test", 1)
show(udp.get_address_v4_info("quick.test", 1))
local server, echoes = udp.bind("127.0.0.1", 0), 0
local client = udp.connect("127.0.0.1", server.local_port)
for _ = 1, 200 do
  client:send("x")
  server:receive_string()
  fiber.sleep(0)
  echoes = echoes + 1
end
print(echoes == 200 and slow.status == "waiting" and "worked")
slow:interrupt()
]]))

  it("that is never answered ends by the resolver's own limit", runs("resolver EAI_AGAIN get_address_info\ntrue\n",
    PRELUDE .. [[
name_server.start { ["slow.test"] = { silent = true } }
local start = fiber.now()
fail(udp.get_address_info, "slow.test", 1)
print(fiber.now() - start > 0.9)
]]))
end)

-- Look-ups that get no answer within the program's life.
local SILENT = PRELUDE .. [[
local asked, server = name_server.start {
  ["slow.test"] = { silent = true },
  ["1.2.0.192.in-addr.arpa"] = { silent = true },
}
local function until_asked(name)
  while asked[name or "slow.test"] == 0 do fiber.sleep(0.001) end
end
local function left()
  return require("ip.core").fiber.statistics().operations
end
]]

describe("a look-up that gets no answer", function()
  after_each(process.stop_all)

  it("ends by with_timeout, when the time is over and not when the resolver gives up", runs(
    "system ETIMEDOUT with_timeout\nsystem ETIMEDOUT with_timeout\n", SILENT .. [[
fail(fiber.with_timeout, 0.02, udp.get_address_info, "slow.test", 1)
fail(fiber.with_timeout, 0.02, udp.get_name_info, "192.0.2.1", 1)
]]))

  it("is ended by fiber:interrupt", runs("fiber INTERRUPTED get_address_info\nfiber INTERRUPTED get_name_info\n",
    SILENT .. [[
for _, case in ipairs {
  { "get_address_info", "slow.test" },
  { "get_name_info", "192.0.2.1", "1.2.0.192.in-addr.arpa" },
} do
  local one = fiber.spawn(fail, udp[case[1] ], case[2], 1)
  until_asked(case[3])
  one:interrupt()
  one:join()
end
]]))

  it("is withdrawn by coroutine.close, of a fiber and of any coroutine", runs("closed\ntrue\nclosed\ntrue\n",
    SILENT .. [[
local function ask()
  local guard <close> = setmetatable({}, { __close = function() print("closed") end })
  udp.get_address_info("slow.test", 1)
end
local co = coroutine.create(ask)
coroutine.resume(co)
until_asked()
print(coroutine.close(co))
local thread
local one = fiber.spawn(function()
  thread = coroutine.running()
  ask()
end)
one:detach()
fiber.yield()
coroutine.close(thread)
fiber.yield()
print(left() == 1) -- the name server's receive
]]))

  it("does not stop others from being asked for, more than there are threads", runs(
    "all timed out\n1\n127.0.0.1\ntrue\n", SILENT .. [[
local start, fibers = fiber.now(), {}
for i = 1, 50 do
  fibers[i] = fiber.spawn(pcall, fiber.with_timeout, 0.05, udp.get_address_info, "slow.test", 1)
end
local all = true
for _, each in ipairs(fibers) do
  local ok, err = each:join()
  all = all and not ok and err == ip.error.ETIMEDOUT
end
print(all and "all timed out")
print(left())
show(udp.get_address_v4_info("localhost", 1)) -- waits for a thread; those that queued have been taken back
print(fiber.now() - start < 10)
]]))

  it("is no deadlock where nothing else can end the wait", runs("resolver EAI_AGAIN get_address_info\n", [[
local ip = require "ip"
local ok, err = pcall(ip.udp.get_address_info, "slow.test", 1)
print(err.category .. " " .. err.name .. " " .. err.operation)
]]))

  it("withdrawn, ends nobody else's wait: what remains is a deadlock", runs("system EDEADLK sleep\n", SILENT .. [[
local co = coroutine.create(udp.get_address_info)
coroutine.resume(co, "slow.test", 1)
until_asked()
coroutine.close(co)
server:close()
fail(fiber.sleep, math.huge)
]]))
end)

describe("a state that ends with look-ups pending", function()
  after_each(process.stop_all)

  local endings = {
    ["by the end of the main chunk"] = "",
    ["by os.exit(0, true) on the main thread"] = "os.exit(0, true)",
    ["by os.exit(0, true) in a fiber"] = "fiber.run(function() os.exit(0, true) end)",
    ["by os.exit(0)"] = "os.exit(0)",
  }
  for how, ending in pairs(endings) do
    it(how .. " ends without a crash, and without a leak", runs("asked\n", SILENT .. [[
for _ = 1, 8 do
  fiber.spawn(udp.get_address_info, "slow.test", 1)
  fiber.spawn(udp.get_name_info, "192.0.2.1", 1)
end
local foreign = coroutine.create(udp.get_address_info)
coroutine.resume(foreign, "slow.test", 1)
local abandoned = coroutine.create(udp.get_address_info)
coroutine.resume(abandoned, "slow.test", 1)
coroutine.close(abandoned)
local answered = coroutine.create(udp.get_address_info)
coroutine.resume(answered, "127.0.0.1", 1)
until_asked()
io.write("asked\n")
io.flush()
]] .. ending))
  end

  it("frees a result that has come and that nobody has read", runs("", PRELUDE .. [[
local co = coroutine.create(udp.get_address_info)
coroutine.resume(co, "127.0.0.1", 1)
local other = coroutine.create(udp.get_name_info)
coroutine.resume(other, "127.0.0.1", 1)
]]))

  it("survives look-ups that finalizers begin, close and give up while it ends", runs("", PRELUDE .. [[
kept = {}
for i = 1, 20 do
  local pending = coroutine.create(udp.get_address_info)
  coroutine.resume(pending, "127.0.0.1", i)
  kept[i] = setmetatable({}, { __gc = function()
    local co = coroutine.create(udp.get_address_info)
    coroutine.resume(co, "127.0.0.1", i)
    if i % 2 == 0 then coroutine.close(co) end
    if i % 3 == 0 then coroutine.close(pending) end
    kept[co] = true
  end })
end
]]))

  it("lets objects that are older than the library close a pending look-up afterwards", runs("closed\n", [[
local co
older = setmetatable({}, { __gc = function()
  coroutine.close(co)
  print("closed")
end })
local ip = require "ip"
co = coroutine.create(ip.udp.get_address_info)
coroutine.resume(co, "127.0.0.1", 1)
]]))

  it("on Ctrl-C raises in the call that waits", on_main(function()
    if not network.is_permitted() then return pending("no mount and network namespaces permitted") end
    local started = network.start(SILENT .. [[
fiber.spawn(function()
  until_asked()
  io.write("waiting\n")
  io.flush()
end)
udp.get_address_info("slow.test", 1)
]], { resolv = "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n" })
    local ok, err = pcall(function()
      started:wait_for("waiting\n")
      started:signal("INT")
      started:wait_for("interrupted!")
      assert.equal(1, started:wait())
      assert_contains(started:errors(), "stack traceback")
    end)
    network.stop(started)
    assert.is_true(ok, tostring(err))
  end, 60))
end)
