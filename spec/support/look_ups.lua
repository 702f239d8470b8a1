--- For programs that look up names in namespaces of their own (see spec.support.network): what they print, and a name
--- server that does not answer.

local fiber = require "ip".fiber
local core = require "ip.core"
local name_server = require "spec.support.name_server"

local look_ups = {}

--- Prints the addresses of a result, sorted, on one line.
function look_ups.show(list)
  local all = {}
  for i, entry in ipairs(list) do all[i] = tostring(entry.address) end
  table.sort(all)
  print(table.concat(all, " "))
end

--- Prints category, name and operation of the error that call(...) raises.
function look_ups.fail(call, ...)
  local ok, err = pcall(call, ...)
  print(not ok and type(err) ~= "string" and err.category .. " " .. err.name .. " " .. err.operation or err)
end

--- The number of operations that have not ended.
function look_ups.pending()
  return core.fiber.statistics().operations
end

--- Starts a name server that never answers for slow.test and 192.0.2.1; returns how often it was asked for each name,
--- and its socket.
function look_ups.start_silent_server()
  return name_server.start {
    ["slow.test"] = { silent = true },
    ["1.2.0.192.in-addr.arpa"] = { silent = true },
  }
end

--- Waits until the name server was asked for a name, slow.test when none is given.
function look_ups.wait_until_asked(asked, name)
  while asked[name or "slow.test"] == 0 do fiber.sleep(0.001) end
end

return look_ups
