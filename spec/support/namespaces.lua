--- Networks for specs: namespaces that are joined by veth pairs, and a Lua process in each. Linux, as root.

local busted = require "busted"
local netns = require "spec.support.netns"
local platform = require "spec.support.platform"

local network = {}
network.__index = network

local agent = {}
agent.__index = agent

--- May this process make namespaces and veth pairs?
network.is_permitted = netns.is_permitted

-- agents --------------------------------------------------------------------------------------------------------------

local function start_agent(machine)
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkfifo " .. path))
  local program = assert(package.searchpath("spec.support.agent", package.path))
  local interpreter = os.getenv("LUA_IP_LUA") or "lua5.4"
  local answers = assert(io.popen(("exec timeout 300 %s %s %s <%s"):format(
    machine:inside(), interpreter, program, path)))
  local chunks = assert(io.open(path, "w"))
  os.remove(path)
  return setmetatable({ chunks = chunks, answers = answers }, agent)
end

local function read_frame(file)
  local length = file:read("n")
  if length == nil then error("the agent has ended", 0) end
  file:read(1)
  return length == 0 and "" or file:read(length) -- read(0) waits for what comes after
end

--- Runs `source` in the agent with the given strings and numbers as `...`; returns its results as one string, separated
--- by spaces. Raises what it raises, as text.
function agent:run(source, ...)
  local values = table.pack(...)
  for i = 1, values.n do
    values[i] = ("%q"):format(values[i])
  end
  local chunk = ("return (function(...) %s\nend)(%s)"):format(source, table.concat(values, ", "))
  self.chunks:write(#chunk, "\n", chunk)
  self.chunks:flush()
  local status = read_frame(self.answers)
  local text = read_frame(self.answers)
  if status ~= "ok" then error(text, 2) end
  return text
end

--- Ends the process, and fails when that was not well (a leak, say).
function agent:close()
  self.chunks:write("end\n") -- agents that were started later hold the pipe open, too
  self.chunks:close()
  local ok, how, code = self.answers:close()
  if not ok then error(("the agent has ended with %s %d"):format(how, code), 2) end
end

-- networks ------------------------------------------------------------------------------------------------------------

--- A network of namespaces with these short names; nothing but `lo`, which is up, is in them.
function network.new(...)
  local self = setmetatable({ machines = {}, agents = {} }, network)
  for _, name in ipairs { ... } do
    self.machines[name] = assert(netns.new(), "no namespace")
    self:system(name, "net.ipv6.conf.default.accept_dad", 0) -- addresses may be used at once
  end
  return self
end

--- Runs `ip <words>` in a namespace.
function network:ip(name, words)
  return self.machines[name]:run("ip " .. words)
end

--- Sets a kernel parameter in a namespace.
function network:system(name, parameter, value)
  self.machines[name]:system(parameter, value)
end

--- Joins two namespaces by a veth pair, whose ends are called `link` on both sides, and gives the ends addresses
--- (text with a prefix length).
function network:join(link, left, left_addresses, right, right_addresses)
  self.machines[left]:pair(link, self.machines[right], link)
  for name, addresses in pairs { [left] = left_addresses, [right] = right_addresses } do
    for _, address in ipairs(addresses) do
      self:ip(name, ("address add %s dev %s%s"):format(address, link, address:find(":") and " nodad" or ""))
    end
    self:ip(name, ("link set %s up"):format(link))
  end
  self:await(left, link)
  self:await(right, link)
end

--- Waits until a link that is up carries traffic of both families: the kernel notices a carrier with some delay, and
--- makes the link-local address then.
function network:await(name, link)
  local deadline = os.time() + 10
  repeat
    local up = self:ip(name, "-o link show dev " .. link):find("state UP")
    local addresses = self:ip(name, "-6 -o address show dev " .. link)
    if up and addresses:find("fe80:") and not addresses:find("tentative") then return end
    os.execute("sleep 0.02")
  until os.time() > deadline
  error(("%s does not come up in %s"):format(link, name), 2)
end

--- Closes the sockets that the agents have kept.
function network:clean()
  for _, each in pairs(self.agents) do
    each:run "clean()"
  end
end

--- The agent of a namespace, started when first asked for.
function network:agent(name)
  self.agents[name] = self.agents[name] or start_agent(self.machines[name])
  return self.agents[name]
end

--- Ends the agents and removes the namespaces, and with them all that is in them.
function network:close()
  local problem
  for _, each in pairs(self.agents) do
    local ok, err = pcall(each.close, each)
    if not ok then problem = err end
  end
  self.agents = {}
  for _, machine in pairs(self.machines) do
    machine:close()
  end
  if problem then error(problem, 2) end
end

network.__close = network.close

-- networks of specs ---------------------------------------------------------------------------------------------------

local function has_both_families()
  return platform.is_linux and platform.has_v6 and netns.is_permitted()
end

--- `it` for specs that need such a network, with both families.
function network.it_wire()
  return platform.it_where(has_both_families(), "network namespaces")
end

--- Gives the specs of a `describe` a network of namespaces with these names, which prepare(network) finishes.
function network.for_specs(names, prepare)
  local net

  busted.lazy_setup(function()
    if not has_both_families() then return end
    net = network.new(table.unpack(names))
    prepare(net)
  end)

  busted.after_each(function()
    if net then net:clean() end
  end)

  busted.lazy_teardown(function()
    if net then net:close() end
  end)
end

return network
