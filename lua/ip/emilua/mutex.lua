--- Emilua's module `mutex`, on a semaphore with one permit.

local check = require("ip.check")
local core = require("ip.core").fiber
local errors = require("ip.error")
local fiber = require("ip.fiber")
local text_of = require("ip.core").value_text

require("ip.core").own_file()

local lib = {}

-- mutex -> ip.fiber.semaphore
local semaphores = setmetatable({}, { __mode = "k" })

local function semaphore_of(mutex, method)
  return semaphores[mutex] or check.bad_self(method, "mutex", mutex)
end

--- The semaphore of a locked mutex that is the argument of `method`.
function lib.semaphore_of(mutex, method)
  local semaphore = semaphores[mutex]
  if semaphore == nil then check.fail(1, method, "mutex expected, got " .. text_of(mutex)) end
  if semaphore.permits > 0 then error(errors.EPERM:togeneric(), 0) end -- nobody has locked it
  return semaphore
end

--- Takes the permit of a semaphore; interruption is held back.
function lib.lock(semaphore)
  fiber.shield(semaphore.acquire, semaphore)
end

--- Takes the permit whatever ends other waits: interruption is held back, and where the deadline of a
--- with_timeout is over, which ends every wait of this fiber, a fiber without a deadline waits in its place.
function lib.lock_again(semaphore)
  local ok, err = pcall(lib.lock, semaphore)
  if ok then return end
  if err ~= errors.ETIMEDOUT then error(err, 0) end
  core.wait_for_end(core.spawn(semaphore.acquire, semaphore))
end

---@class emilua.mutex
local methods = {}

--- Locks the mutex, or waits until it can. Interruption does not end the wait.
function methods:lock()
  lib.lock(semaphore_of(self, "lock"))
end

--- Locks the mutex if nobody has locked it; returns whether it did.
function methods:try_lock()
  return semaphore_of(self, "try_lock"):try_acquire()
end

--- Unlocks the mutex; the fiber that has waited longest locks it at once.
function methods:unlock()
  local semaphore = semaphore_of(self, "unlock")
  if semaphore.permits > 0 then error(errors.EPERM:togeneric(), 0) end
  semaphore:release()
end

local metatable = { __name = "mutex", __metatable = "mutex" }

function metatable.__index(_, name)
  return methods[name] or error(("mutex has no property '%s'"):format(tostring(name)), 2)
end

function metatable.__newindex(_, name)
  error(("property '%s' of a mutex cannot be written"):format(tostring(name)), 2)
end

--- The module that scripts require.
lib.module = {}

---@return emilua.mutex
function lib.module.new()
  local mutex = setmetatable({}, metatable)
  semaphores[mutex] = fiber.semaphore(1)
  return mutex
end

return lib
