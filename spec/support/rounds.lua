--- For programs of a server with many peers: runs four rounds, and prints the numbers of the table `counts`, and by how
--- many bytes Lua's memory (garbage) and the process (growth) grew after the first round.

local resident = require "spec.support.resident"

local function used()
  collectgarbage()
  collectgarbage()
  return math.tointeger(collectgarbage("count") * 1024)
end

return function(round, counts)
  round(1)
  local first_bytes, first_resident = used(), resident()
  local last_bytes
  for number = 2, 4 do
    round(number)
    last_bytes = used()
  end
  for name, value in pairs(counts) do print(("%s=%d"):format(name, value)) end
  print(("garbage=%d"):format(last_bytes - first_bytes))
  if first_resident then print(("growth=%d"):format(resident() - first_resident)) end
end
