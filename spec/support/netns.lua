--- A network namespace that lives as long as a process of this one's: it has no name outside, so that nothing is left
--- when a spec fails or this process is killed. Linux, as root.
---
--- Entered by nsenter(1) and not by `ip netns exec`, which would also change how / is mounted: that is refused where /
--- is no mount point, as in a chroot.

local netns = {}
netns.__index = netns

-- What is preloaded into this process for the library is not for the tools.
local TOOL = "env LD_PRELOAD= "

-- The holder of the namespace tells its process id. It is killed with the process that started it.
local HOLD = "exec 2>/dev/null; exec " .. TOOL ..
  "setpriv --pdeathsig KILL unshare --net sh -c 'echo $$; exec sleep infinity'"

--- Makes a namespace, with nothing but `lo`, which is up; nil where that is not permitted. Close it.
function netns.new()
  local holder = assert(io.popen(HOLD))
  local pid = holder:read("n")
  if pid == nil then
    holder:close()
    return nil
  end
  local self = setmetatable({ holder = holder, pid = pid }, netns)
  if self:try("ip link set lo up") then return self end
  self:close()
  return nil
end

--- The words of a command that runs the command after them inside; a string for the shell.
function netns:inside()
  return ("nsenter --net=/proc/%d/ns/net"):format(self.pid)
end

--- Runs a shell command inside; returns whether it succeeded.
function netns:try(command)
  return os.execute(("exec >/dev/null 2>&1; %s%s %s"):format(TOOL, self:inside(), command)) == true
end

--- Runs a shell command inside; returns its output, or raises it.
function netns:run(command)
  local pipe = assert(io.popen(("%s%s %s 2>&1"):format(TOOL, self:inside(), command)))
  local output = pipe:read("a")
  if not pipe:close() then error(("%s: %s"):format(command, output), 2) end
  return output
end

--- Sets a kernel parameter inside.
function netns:system(parameter, value)
  self:run(("sh -c 'echo %s >/proc/sys/%s'"):format(value, (parameter:gsub("%.", "/"))))
end

--- Makes a veth pair: `name` here, `peer_name` in the namespace `peer`.
function netns:pair(name, peer, peer_name)
  self:run(("ip link add %s type veth peer name %s netns %d"):format(name, peer_name, peer.pid))
end

--- The words of a shell command (a string) that runs a program with this library inside.
function netns:program(command)
  return ("%s%s env LD_PRELOAD='%s' %s"):format(TOOL, self:inside(), os.getenv("LD_PRELOAD") or "", command)
end

--- Ends the namespace; the system removes what is in it. May be called again.
function netns:close()
  if not self.holder then return end
  os.execute(("kill -KILL %d"):format(self.pid))
  self.holder:close()
  self.holder = nil
end

netns.__close = netns.close

local permitted

--- May this process make namespaces and veth pairs? The first answer is kept.
function netns.is_permitted()
  if permitted == nil then
    local one <close> = netns.new()
    permitted = one ~= nil and one:try("ip link add one type veth peer name two")
  end
  return permitted
end

return netns
