--- Lua modules of others.

local support = require "spec.support"

local modules = {}

--- Is there such a module? Asked in a process of its own: busted forgets modules between files, and luv 1.44
--- crashes in a Lua state that loads it a second time.
function modules.exists(name)
  local _, code = support.run_program(("require %q"):format(name))
  return code == 0
end

return modules
