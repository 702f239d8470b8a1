-- A socket without a local port gets one by its first send or connect. Where no port is free, that raises EADDRINUSE at
-- once, in every form: it never waits for one.
local support = require "spec.support"
local network = require "spec.support.network"

local with_loop = support.with_loop

local permitted = io.open("/proc/self/fdinfo/0") ~= nil and network.is_permitted()
local it_permitted = permitted and it or pending

local PROGRAM = [[
local ip = require "ip"

local held = {}
for i = 1, 4 do held[i] = ip.udp.bind("::", 0, { v6_only = false }) end -- all ports there are
assert(select(2, pcall(ip.udp.bind, "0.0.0.0", 0)) == ip.error.EADDRINUSE)

local function batch_to(address, entries, size)
  local batch = ip.udp.batch.new(entries, size)
  for i = 1, entries do batch:set(i, ("x"):rep(size), address, 9) end
  return batch
end

local calls = {
  send_to = function(sock, address) sock:send_to("x", address, 9) end,
  try_send_to = function(sock, address) sock:try_send_to("x", address, 9) end,
  send_to_with = function(sock, address) sock:send_to_with(1, function() return 1 end, address, 9) end,
  send_message = function(sock, address) sock:send_message("x", { address = address, port = 9, hops = 3 }) end,
  segments = function(sock, address) sock:send_message("xxxx", { address = address, port = 9, segment_size = 2 }) end,
  send_many = function(sock, address) sock:send_many(batch_to(address, 1, 1)) end,
  train = function(sock, address) sock:send_many(batch_to(address, 2, 1)) end,
  connect = function(sock, address) sock:connect(address, 9) end,
}
local options = { "none", "coalesce", "receive_errors", "segment_size" }

local function check(name, call, family, option)
  local sock <close> = ip.udp.socket.new()
  sock:open(family)
  sock.send_timeout = 1
  if option == "segment_size" then sock:set_option(option, 2)
  elseif option ~= "none" then sock:set_option(option, true) end
  local start, cpu = ip.fiber.now(), os.clock()
  local ok, err = pcall(call, sock, family == "v4" and "127.0.0.1" or "::1")
  local seconds = ip.fiber.now() - start
  if ok or err ~= ip.error.EADDRINUSE or seconds > 0.5 then
    print(name, family, option, ok, err, seconds, os.clock() - cpu)
  end
  return sock
end

for name, call in pairs(calls) do
  for _, family in ipairs { "v4", "v6" } do
    for _, option in ipairs(options) do check(name, call, family, option) end
  end
end

-- one port becomes free
local sock = ip.udp.socket.new()
sock:open("v4")
assert(not pcall(sock.send_to, sock, "x", "127.0.0.1", held[1].local_port))
held[4]:close()
sock:send_to("now", "127.0.0.1", held[1].local_port)
print(held[1]:receive_string())
]]

it_permitted("without a free port every send of an unbound socket, and connect, raises EADDRINUSE at once", with_loop(
  function()
    local output = network.run(PROGRAM, nil, "echo '40000 40003' >/proc/sys/net/ipv4/ip_local_port_range", 30)
    assert.truthy(output:find("^now\t::ffff:127.0.0.1\t%d+\tfalse\n$"), output)
  end, 60))
