--- Emilua's fiber handles and its `this_fiber`, on top of ip.fiber.
---
--- A handle is not the fiber itself: a detached fiber of Emilua keeps the program alive, and a detached fiber
--- of ip.fiber does not. So `detach` gives up only the handle.

local check = require("ip.check")
local core = require("ip.core").fiber
local errors = require("ip.error")

require("ip.core").own_file()

local lib = {}

-- handle -> { native = ip.fiber, detached = boolean, joining = boolean }
local states = setmetatable({}, { __mode = "k" })

local handle_metatable = { __name = "fiber", __metatable = "fiber" }

local function state_of(handle, method)
  return states[handle] or check.bad_self(method, "fiber", handle)
end

---@class emilua.fiber
---@field joinable boolean neither joined nor detached, and no join waits
---@field interruption_caught boolean after join: the fiber ended because it was interrupted
local methods = {}

local function finish_join(state, ok, ...)
  state.joining = false
  if not ok then error((...), 0) end
  return ...
end

--- Waits for the end of the fiber; returns its results, or raises its error. Returns nothing for an
--- interrupted fiber.
function methods:join()
  local state = state_of(self, "join")
  if state.detached or state.joining then error(errors.EINVAL, 0) end
  state.joining = true
  return finish_join(state, pcall(state.native.join, state.native))
end

--- Gives up the handle: the fiber can no longer be joined or interrupted. The program still waits for its
--- end.
function methods:detach()
  local state = state_of(self, "detach")
  if state.detached or state.joining or not state.native.joinable then error(errors.EINVAL, 0) end
  state.detached = true
end

--- Makes the fiber's pending or next suspending call raise INTERRUPTED. Does nothing if the fiber was joined
--- or detached.
function methods:interrupt()
  local state = state_of(self, "interrupt")
  if not state.detached then state.native:interrupt() end
end

local properties = {}

function properties.joinable(state)
  return state.native.joinable and not state.detached and not state.joining
end

function properties.interruption_caught(state)
  if state.native.joinable then error(errors.EINVAL, 0) end
  return state.native.interruption_caught
end

-- Later releases of Emilua use "cancel" for "interrupt".
methods.cancel = methods.interrupt
properties.cancellation_caught = properties.interruption_caught

function handle_metatable:__index(name)
  if methods[name] then return methods[name] end
  local property = properties[name]
  if property == nil then error(("fiber has no property '%s'"):format(tostring(name)), 2) end
  return property(states[self])
end

function handle_metatable.__newindex(_, name)
  error(("property '%s' of a fiber cannot be written"):format(tostring(name)), 2)
end

--- Starts fn() when the running fiber next suspends.
---@param fn function
---@return emilua.fiber
function lib.spawn(fn)
  check.type(1, "spawn", "function", fn)
  local handle = setmetatable({}, handle_metatable)
  states[handle] = { native = core.spawn(fn), detached = false, joining = false }
  return handle
end

-- The state of each fiber. The main body runs on the main thread, which is not a fiber of the library.
local MAIN = {}
local storages = setmetatable({}, { __mode = "k" })
local shields = setmetatable({}, { __mode = "k" })

local function current()
  return core.current() or MAIN
end

local function own(tables)
  local key = current()
  local found = tables[key]
  if not found then
    found = {}
    tables[key] = found
  end
  return found
end

local functions = { yield = core.yield }

--- Holds interruption back until restore_interruption has been called as often as this function.
function functions.disable_interruption()
  local held = own(shields)
  held[#held + 1] = core.shield()
end

function functions.restore_interruption()
  local held = own(shields)
  local shield <close> = held[#held] -- the end of its scope restores interruption
  if shield == nil then error("restore_interruption without disable_interruption", 2) end
  held[#held] = nil
end

functions.disable_cancellation = functions.disable_interruption
functions.restore_cancellation = functions.restore_interruption

local attributes = {}

function attributes.local_()
  return own(storages)
end

function attributes.is_main()
  return current() == MAIN
end

function attributes.id()
  return ("%p"):format(current())
end

---@class emilua.this_fiber
---@field yield fun() suspends; every other ready fiber runs once
---@field disable_interruption fun() interruption is held back
---@field restore_interruption fun() ends the last disable_interruption
---@field local_ table with the fiber's own storage
---@field is_main boolean true in the script's main body
---@field id string for debugging
lib.this_fiber = setmetatable({}, {
  __name = "this_fiber",
  __metatable = "this_fiber",
  __index = function(_, name)
    if functions[name] then return functions[name] end
    if attributes[name] then return attributes[name]() end
    error(("this_fiber has no property '%s'"):format(tostring(name)), 2)
  end,
  __newindex = function(_, name)
    error(("property '%s' of this_fiber cannot be written"):format(tostring(name)), 2)
  end,
})

return lib
