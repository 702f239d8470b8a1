--- Emilua's module `condition_variable`, on a condition.

local check = require("ip.check")
local fiber = require("ip.fiber")
local mutexes = require("ip.emilua.mutex")

require("ip.core").own_file()

local lib = {}

-- condition_variable -> ip.fiber.condition
local conditions = setmetatable({}, { __mode = "k" })

local function condition_of(variable, method)
  return conditions[variable] or check.bad_self(method, "condition_variable", variable)
end

local function can_suspend()
  local _, is_main = coroutine.running()
  return is_main or coroutine.isyieldable()
end

---@class emilua.condition_variable
local methods = {}

--- Unlocks the mutex, waits for a notification, and locks the mutex again, also if the wait is interrupted or a
--- deadline ends it. No other fiber runs between the unlocking and the wait.
---@param mutex emilua.mutex
function methods:wait(mutex)
  local condition = condition_of(self, "wait")
  local semaphore = mutexes.semaphore_of(mutex, "wait")
  if not can_suspend() then return condition:wait() end -- which refuses, with the mutex still locked
  semaphore:release()
  local ok, err = pcall(condition.wait, condition)
  mutexes.lock_again(semaphore)
  if not ok then error(err, 0) end
end

--- Wakes the fiber that has waited longest.
function methods:notify_one()
  condition_of(self, "notify_one"):notify_one()
end

--- Wakes all fibers that wait now.
function methods:notify_all()
  condition_of(self, "notify_all"):notify_all()
end

local metatable = { __name = "condition_variable", __metatable = "condition_variable" }

function metatable.__index(_, name)
  return methods[name] or error(("condition_variable has no property '%s'"):format(tostring(name)), 2)
end

function metatable.__newindex(_, name)
  error(("property '%s' of a condition_variable cannot be written"):format(tostring(name)), 2)
end

---@return emilua.condition_variable
function lib.new()
  local variable = setmetatable({}, metatable)
  conditions[variable] = fiber.condition()
  return variable
end

return lib
