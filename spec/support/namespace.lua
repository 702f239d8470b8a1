--- Networks for specs that run one program there: a client and a server with a router between them, or a slow
--- loopback.

local netns = require "spec.support.netns"
local process = require "spec.support.process"
local support = require "spec.support"

local namespace = {}

-- The rate is what the kernel's 32 bits of ticks allow: at 80 bit/s the burst takes 200 seconds.
local SLOW = "rate 8kbit burst 2000 limit 1000000"
local BLOCKED = "rate 80bit burst 2000 limit 1000000"

local function close_all(all)
  for _, each in pairs(all) do
    each:close()
  end
end

local function make(...)
  local all = {}
  for _, name in ipairs { ... } do
    all[name] = netns.new()
    if all[name] == nil then
      close_all(all)
      return nil
    end
  end
  return all
end

-- Interface, MTU and addresses of each end.
local function connect(all)
  local client, router, server = all.client, all.router, all.server
  client:pair("eth0", router, "left")
  server:pair("eth0", router, "right")
  for _, end_ in ipairs {
    { client, "eth0", 1500, "10.77.1.2/24", "fd77:1::2/64", "fe80::77/64" },
    { router, "left", 1500, "10.77.1.1/24", "fd77:1::1/64" },
    { router, "right", 1300, "10.77.2.1/24", "fd77:2::1/64" },
    { server, "eth0", 1300, "10.77.2.2/24", "fd77:2::2/64" },
  } do
    local machine, link = end_[1], end_[2]
    for i = 4, #end_ do
      machine:run(("ip addr add %s dev %s%s"):format(end_[i], link, end_[i]:find(":") and " nodad" or ""))
    end
    machine:run(("ip link set %s mtu %d up"):format(link, end_[3]))
  end
end

local function route(all)
  for parameter, value in pairs {
    ["net.ipv4.ip_forward"] = 1, ["net.ipv6.conf.all.forwarding"] = 1,
    ["net.ipv4.icmp_ratelimit"] = 0, ["net.ipv6.icmp.ratelimit"] = 0,
  } do
    all.router:system(parameter, value)
  end
  all.client:run("ip route add default via 10.77.1.1")
  all.server:run("ip route add default via 10.77.2.1")
  all.client:run("ip -6 route add default via fd77:1::1")
  all.server:run("ip -6 route add default via fd77:2::1")
end

--- Makes client (10.77.1.2, fd77:1::2, fe80::77), router (…:1::1 and …:2::1) and server (10.77.2.2,
--- fd77:2::2); the link to the server has an MTU of 1300. Returns the client's namespace and a function that
--- removes all of it, or nil where that is not permitted.
function namespace.routed()
  if not netns.is_permitted() then return nil end
  local all = make("client", "router", "server")
  if all == nil then return nil end
  local ok, problem = pcall(function()
    connect(all)
    route(all)
  end)
  if ok then return all.client, function() close_all(all) end end
  close_all(all)
  error(problem, 0)
end

local function limited(filter)
  local self = netns.new()
  if self == nil or self:try("tc qdisc add dev lo root tbf " .. filter) then return self end
  self:close()
  return nil
end

--- Makes one namespace whose loopback interface takes a second for a kilobyte. Returns it (close it), or nil
--- where that is not permitted.
function namespace.slow()
  return limited(SLOW)
end

--- The same with an interface that takes the first kilobyte, and then nothing for longer than a spec lasts.
--- Programs open it by spec/support/blocked_link.lua.
function namespace.blocked()
  return limited(BLOCKED)
end

local can_be_slow

--- May this process make slow and blocked ones? The first answer is kept.
function namespace.can_be_slow()
  if can_be_slow == nil then
    local self <close> = namespace.slow()
    can_be_slow = self ~= nil
  end
  return can_be_slow
end

--- Runs a Lua program in a namespace; returns its output and exit code.
function namespace.run_program(self, program)
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write(program)
  file:close()
  local words = { "sh", "-c", "exec " .. self:program('"$@"'), "sh" }
  local output, errors, code = process.run(table.move(process.lua(path), 1, 2, #words + 1, words))
  os.remove(path)
  return support.without_places(output .. errors, path), code
end

return namespace
