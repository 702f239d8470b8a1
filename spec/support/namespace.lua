--- Network namespaces for specs: a client and a server with a router between them. Everything is made by the spec and
--- removed by it; nothing outside is touched.

local process = require "spec.support.process"

local namespace = {}

local function run(command)
  return os.execute(("(unset LD_PRELOAD; %s) >/dev/null 2>&1"):format(command)) == true
end

local function remove(name)
  for _, part in ipairs { "c", "r", "s" } do run(("ip netns del %s%s"):format(name, part)) end
end

local setup = [[
set -e
ip netns add Nc; ip netns add Nr; ip netns add Ns
ip -n Nc link add eth0 type veth peer name left netns Nr
ip -n Ns link add eth0 type veth peer name right netns Nr
for n in Nc Nr Ns; do ip -n $n link set lo up; done
ip -n Nc addr add 10.77.1.2/24 dev eth0
ip -n Nr addr add 10.77.1.1/24 dev left
ip -n Nr addr add 10.77.2.1/24 dev right
ip -n Ns addr add 10.77.2.2/24 dev eth0
ip -n Nc addr add fd77:1::2/64 dev eth0 nodad
ip -n Nc addr add fe80::77/64 dev eth0 nodad
ip -n Nr addr add fd77:1::1/64 dev left nodad
ip -n Nr addr add fd77:2::1/64 dev right nodad
ip -n Ns addr add fd77:2::2/64 dev eth0 nodad
ip -n Nr link set right mtu 1300
ip -n Ns link set eth0 mtu 1300
ip -n Nc link set eth0 up; ip -n Ns link set eth0 up; ip -n Nr link set left up; ip -n Nr link set right up
ip netns exec Nr sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
ip netns exec Nr sh -c 'echo 0 >/proc/sys/net/ipv4/icmp_ratelimit; echo 0 >/proc/sys/net/ipv6/icmp/ratelimit'
ip -n Nc route add default via 10.77.1.1
ip -n Ns route add default via 10.77.2.1
ip -n Nc -6 route add default via fd77:1::1
ip -n Ns -6 route add default via fd77:2::1
]]

--- Makes client (10.77.1.2, fd77:1::2, fe80::77), router (…:1::1 and …:2::1) and server (10.77.2.2, fd77:2::2);
--- the link to the server has an MTU of 1300.
--- Returns the name of the client's namespace and a function that removes all of it, or nil
--- where that is not permitted.
function namespace.routed()
  local name = ("luaip%d"):format(math.random(100000, 999999))
  local script = setup:gsub("N([crs])", name .. "%1")
  if run(script) then return name .. "c", function() remove(name) end end
  remove(name)
  return nil
end

--- Makes one namespace whose loopback interface takes a second for a kilobyte. Returns its name and a function that
--- removes it, or nil where that is not permitted.
function namespace.slow()
  local name = ("luaip%d"):format(math.random(100000, 999999))
  local made = run(("ip netns add %s && ip -n %s link set lo up && ip netns exec %s "
    .. "tc qdisc add dev lo root tbf rate 8kbit burst 2000 limit 1000000"):format(name, name, name))
  local function remove_it() run("ip netns del " .. name) end
  if made then return name, remove_it end
  remove_it()
  return nil
end

--- Runs a Lua program in a namespace; returns its output and exit code.
function namespace.run_program(name, program)
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write(program)
  file:close()
  local output, errors, code = process.run(process.foreign("ip", "netns", "exec", name, "env",
    "LD_PRELOAD=" .. (os.getenv("LD_PRELOAD") or ""), table.unpack(process.lua(path))))
  os.remove(path)
  return output .. errors, code
end

return namespace
