-- What is promised about look-ups that a name server answers, in a network of the program's own.
local support = require "spec.support"
local network = require "spec.support.network"
local process = require "spec.support.process"
local programs = require "spec.support.resolver_programs"

local on_main = support.on_main
local PRELUDE, it_network, prints = programs.PRELUDE, programs.it_network, programs.prints

describe("a look-up that needs a name server", function()
  after_each(process.stop_all)

  it_network("leaves the loop to others: the server may be a fiber of the same program", prints([[
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

  it_network("gives the canonical name with every entry", prints(
    "real.test 192.0.2.1\nreal.test 192.0.2.2\nnil\n", PRELUDE .. [[
name_server.start { ["alias.test"] = { CNAME = "real.test" }, ["real.test"] = { A = { "192.0.2.1", "192.0.2.2" } } }
local list = udp.get_address_v4_info("alias.test", 1, flag.canonical_name)
table.sort(list, function(a, b) return a.address < b.address end)
for _, entry in ipairs(list) do print(entry.canonical_name .. " " .. tostring(entry.address)) end
print(udp.get_address_v4_info("alias.test", 1)[1].canonical_name)
]]))

  it_network("asks for the ASCII form of an international name", prints("192.0.2.1\n1\n", PRELUDE .. [[
local asked = name_server.start { ["xn--bcher-kva.test"] = { A = { "192.0.2.1" } } }
show(udp.get_address_v4_info("bücher.test", 1))
print(asked["xn--bcher-kva.test"])
]]))

  it_network("finds the name of an address", prints(
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

  it_network("looks at this machine's own names first", prints("192.0.2.80\n127.0.0.1\n0\n", PRELUDE .. [[
local asked = name_server.start { ["www.hosts.test"] = { A = { "192.0.2.1" } } }
show(udp.get_address_info("www.hosts.test", 1))
show(udp.get_address_v4_info("localhost", 1)) -- both lines of localhost, once
print(asked["www.hosts.test"])
]]))

  it_network("raises what the name server says as an error of category resolver", prints(
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

  it_network("agrees with dnsmasq", on_main(function()
    if not process.exists("dnsmasq") then return pending("dnsmasq is not installed") end
    local output, code = network.run(PRELUDE .. [[
for _ = 1, 1000 do -- until it listens
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

  it_network("goes on beside other work: datagrams, timers, and look-ups that are answered", prints(
    "192.0.2.1\nworked\n", PRELUDE .. [[
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

  it_network("that is never answered ends by the resolver's own limit", prints(
    "resolver EAI_AGAIN get_address_info\ntrue\n", PRELUDE .. [[
name_server.start { ["slow.test"] = { silent = true } }
local start = fiber.now()
fail(udp.get_address_info, "slow.test", 1)
print(fiber.now() - start > 0.9)
]]))
end)
