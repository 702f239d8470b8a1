--- Fibers: coroutines that the library resumes. The functions that call user functions are written in Lua,
--- because user functions may suspend; the rest is in the core.

local core = require("ip.core").fiber
local check = require("ip.check")
local check_type = check.type

require("ip.core").own_file()

---@class ip.fiber
---@field joinable boolean until joined or detached
---@field status "ready"|"running"|"waiting"|"done"|"failed"|"interrupted"
---@field interruption_caught boolean the fiber ended because it was interrupted
---@field join fun(self: ip.fiber): ... waits for its end; returns its results, or raises its error
---@field interrupt fun(self: ip.fiber) its pending or next suspending call raises INTERRUPTED
---@field detach fun(self: ip.fiber)

---@class ip.fiber.module
local fiber = {
  ---@type fun(seconds: number) suspends; zero or less is a yield
  sleep = core.sleep,
  ---@type fun() suspends; every other ready fiber runs once
  yield = core.yield,
  ---@type fun(): ip.fiber?
  current = core.current,
  ---@type fun(): number seconds of a monotonic clock
  now = core.now,
  ---@type fun(): integer nanoseconds since the epoch
  time = core.time,
  ---@type fun(fn: function, ...): ip.fiber
  spawn = core.spawn,
}

-- An error may be any value, even one whose __tostring fails.
local function describe(err)
  local ok, text = pcall(tostring, err)
  return ok and text or ("(an error object of type %s)"):format(type(err))
end

local function default_handler(err, traceback)
  io.stderr:write("error in a fiber: ", describe(err), "\n", traceback, "\n")
end

local handler = default_handler

core.set_reporter(function(err, traceback, failed)
  local ok, problem = pcall(handler, err, traceback, failed)
  if ok then return end
  io.stderr:write("error in the on_error handler: ", describe(problem), "\n")
  default_handler(err, traceback)
end)

--- Sets the handler that is called immediately with (err, traceback, fiber) for an error that leaves a fiber
--- while no join waits for it; nil restores the default, which writes both to stderr. `fiber` is nil for a
--- coroutine that is not a fiber.
---@param new_handler (fun(err: any, traceback: string, fiber: ip.fiber?))|nil
function fiber.on_error(new_handler)
  if new_handler ~= nil then check_type(1, "on_error", "function", new_handler) end
  handler = new_handler or default_handler
end

--- On the main thread: drives the loop until no fiber is left. With a function: spawns it, drives the loop
--- until it ends, and returns its results or raises its error.
function fiber.run(fn, ...)
  core.check_main()
  if fn == nil then return core.run_all() end
  check_type(1, "run", "function", fn)
  return core.spawn(fn, ...):join()
end

local function finish(scope, ...)
  core.scope_finish(scope)
  return ...
end

--- Runs fn(...) in the current fiber; when `seconds` are over, the call in which it is suspended raises
--- ETIMEDOUT.
---@param seconds number
---@param fn function
function fiber.with_timeout(seconds, fn, ...)
  check.seconds(1, "with_timeout", seconds)
  check_type(2, "with_timeout", "function", fn)
  local scope <close> = core.scope(seconds)
  return finish(scope, fn(...))
end

local function pass(...)
  return ...
end

--- Runs fn(...) with interruption held back, for clean-up code that has to wait.
---@param fn function
function fiber.shield(fn, ...)
  check_type(1, "shield", "function", fn)
  local guard <close> = core.shield() -- luacheck: ignore guard
  return pass(fn(...))
end

--- The interface through which another event loop drives this one; a pollable object for cqueues.
---@class ip.fiber.loop
---@field pollfd integer descriptor that is readable when the loop has work to do
---@field events "r"
---@field spin number seconds that the loop polls without sleeping before it blocks; default 0
---@field timeout fun(self: ip.fiber.loop): number? seconds until the next step is due; nil: none is due
---@field step fun(self: ip.fiber.loop, seconds: number?): boolean true while there is something to wait for
local loop = { events = "r" }

function loop:timeout() -- luacheck: ignore self
  return core.loop_timeout()
end

function loop:step(seconds) -- luacheck: ignore self
  if seconds ~= nil then check.seconds(1, "step", seconds) end
  return core.loop_step(seconds)
end

local function unknown(name)
  error(("ip.fiber.loop has no property '%s'"):format(tostring(name)), 3)
end

fiber.loop = setmetatable({}, {
  __name = "ip.fiber.loop",
  __metatable = "ip.fiber.loop",
  __index = function(_, name)
    if name == "pollfd" then return core.loop_pollfd() end
    if name == "spin" then return core.loop_get_spin() end
    if loop[name] == nil then unknown(name) end
    return loop[name]
  end,
  __newindex = function(_, name, value)
    if name == "spin" then
      local problem = core.loop_set_spin(value)
      if problem ~= nil then
        error(("property 'spin' of ip.fiber.loop: %s, got %s"):format(problem, tostring(value)), 2)
      end
      return
    end
    if name == "pollfd" or loop[name] ~= nil then
      error(("property '%s' of ip.fiber.loop cannot be written"):format(name), 2)
    end
    unknown(name)
  end,
})

fiber.wait_fd = core.wait_fd
fiber.wait_signal = core.wait_signal
fiber.coroutine = require("ip.coroutine")

return fiber
