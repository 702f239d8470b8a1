--- Lua modules of others.

local support = require "spec.support"

local modules = {}

-- Where Debian's packages for other versions of Lua have modules that Lua 5.4 can run.
local elsewhere = { copas = "/usr/share/lua/5.2/?.lua" }

--- Is there such a module, and does it load beside this library, whose libuv may be another? Asked in a process of
--- its own: busted forgets modules between files, and luv 1.44 crashes in a Lua state that loads it a second time.
function modules.exists(name)
  local path = elsewhere[name] and ("package.path = package.path .. %q "):format(";" .. elsewhere[name]) or ""
  local _, code = support.run_program(("%srequire 'ip' require %q"):format(path, name))
  return code == 0
end

return modules
