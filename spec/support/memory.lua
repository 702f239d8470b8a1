--- The memory that Lua code takes.

local memory = {}

local RESTART = setmetatable({}, { __close = function() collectgarbage("restart") end })

--- For a <close> variable: collects, and stops the collector until the variable goes, also when the spec fails.
function memory.without_collector()
  collectgarbage()
  collectgarbage("stop")
  return RESTART
end

--- The bytes that `count` calls of round() leave with the collector stopped. `before` calls come first; they may
--- allocate what is kept for later ones.
function memory.garbage_of(round, count, before)
  for _ = 1, before do round() end
  local stopped <close> = memory.without_collector() -- luacheck: ignore stopped
  local start = collectgarbage("count")
  for _ = 1, count do round() end
  return (collectgarbage("count") - start) * 1024
end

--- The KiB in use after a full collection.
function memory.used()
  collectgarbage()
  collectgarbage()
  return collectgarbage("count")
end

return memory
