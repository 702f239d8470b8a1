--- Lua's garbage collector, whose parameters have other names in each version.

local collector = {}

--- Makes the collector incremental, with as many steps as there can be.
function collector.press()
  collectgarbage("incremental", 0, 1000, 0)
  if _VERSION == "Lua 5.4" then return end
  collectgarbage("param", "pause", 0)
  collectgarbage("param", "stepmul", 1000)
  collectgarbage("param", "stepsize", 1)
end

return collector
