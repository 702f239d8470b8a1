--- The memory that Lua code takes.

local memory = {}

--- The bytes that `count` calls of round() leave with the collector stopped. `before` calls come first; they may
--- allocate what is kept for later ones.
function memory.garbage_of(round, count, before)
  for _ = 1, before do round() end
  collectgarbage()
  collectgarbage("stop")
  local start = collectgarbage("count")
  for _ = 1, count do round() end
  local bytes = (collectgarbage("count") - start) * 1024
  collectgarbage("restart")
  return bytes
end

--- The KiB in use after a full collection.
function memory.used()
  collectgarbage()
  collectgarbage()
  return collectgarbage("count")
end

return memory
