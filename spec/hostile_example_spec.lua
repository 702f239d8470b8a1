-- That no packet ends an example with a traceback: every example that receives is attacked on each of its sockets, by
-- spec/programs/attack_example.lua, which says with what. Linux, as root.

local hosts = require "spec.support.hosts"
local netns = require "spec.support.netns"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"

local it_forged = platform.it_where(platform.is_linux and netns.is_permitted() and hosts.path("raw_sender"),
  "network namespaces and raw sockets")

-- Runs the attack in a namespace where loopback carries multicast; fails with what it says.
local function attack(name)
  return support.on_main(function()
    local network <close> = assert(netns.new())
    network:run("ip link set lo multicast on")
    network:run("ip route add 239.0.0.0/8 dev lo")
    local words = process.lua(support.program("attack_example"), name, hosts.path("raw_sender"))
    local output, errors, code = process.run({ "sh", "-c", "exec " .. network:program('"$@"'), "sh",
      table.unpack(words) }, 100)
    assert.equal(0, code, output .. errors)
  end, 110)
end

describe("malformed packets and forged errors #slow", function()
  after_each(process.stop_all)

  for _, name in ipairs { "dns_server", "sntp_server", "echo_server", "workers", "udp_relay", "tftp_server",
    "discovery announce", "bandwidth plain", "bandwidth batch", "bandwidth coalesce", "bandwidth segments" } do
    it_forged(("do not end the server %s, which answers the next right packet"):format(name), attack(name))
  end

  for _, name in ipairs { "dns_lookup", "echo_client", "path_mtu", "traceroute", "bandwidth sender",
    "discovery find" } do
    it_forged(("end the client %s at most with a message and an exit code"):format(name), attack(name))
  end
end)
