--- Fibers: coroutines that the library resumes. The functions that call user functions are written in Lua,
--- because user functions may suspend; the rest is in the core.

local core = require("ip.core").fiber
local check = require("ip.check")
local check_type = check.type
local text_of = require("ip.core").value_text

require("ip.core").own_file()

---@class ip.fiber
---@field joinable boolean until joined or detached
---@field status "ready"|"running"|"waiting"|"done"|"failed"|"interrupted"
---@field interruption_caught boolean the fiber ended because it was interrupted
---@field join fun(self: ip.fiber): ... waits for its end; returns its results, or raises its error
---@field interrupt fun(self: ip.fiber) its pending or next suspending call raises INTERRUPTED
---@field detach fun(self: ip.fiber)
---@field name string what reports call it; "fiber N" until it is set
---@field traceback fun(self: ip.fiber): string where it waits, or where it has failed

--- A queue of any values but nil, first in, first out.
---@class ip.fiber.queue
---@field capacity integer? nil: unbounded
---@field is_closed boolean
---@field put fun(self: ip.fiber.queue, value: any) waits while the queue is full
---@field get fun(self: ip.fiber.queue): any waits while the queue is empty; nil: closed and empty
---@field try_put fun(self: ip.fiber.queue, value: any): true?, ip.error?
---@field try_get fun(self: ip.fiber.queue): any, ip.error?
---@field close fun(self: ip.fiber.queue)
---@field values fun(self: ip.fiber.queue): function, ip.fiber.queue

---@class ip.fiber.condition
---@field wait fun(self: ip.fiber.condition) suspends until a notification
---@field notify_one fun(self: ip.fiber.condition): integer how many were woken
---@field notify_all fun(self: ip.fiber.condition): integer

---@class ip.fiber.semaphore
---@field permits integer free permits
---@field acquire fun(self: ip.fiber.semaphore) waits while no permit is free
---@field try_acquire fun(self: ip.fiber.semaphore): boolean
---@field release fun(self: ip.fiber.semaphore)
---@field hold fun(self: ip.fiber.semaphore): any acquires; a to-be-closed value that releases

--- Fibers that belong together; a to-be-closed value.
---@class ip.fiber.group
---@field size integer members that have not ended
---@field spawn fun(self: ip.fiber.group, fn: function, ...): ip.fiber
---@field join fun(self: ip.fiber.group) waits for the end of all; raises the first error of a member
---@field interrupt fun(self: ip.fiber.group)

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
  ---@type fun(): ip.fiber[] the fibers that have not ended, in the order of spawning
  list = function()
    local fibers = core.list()
    table.sort(fibers, function(one, other) return core.number_of(one) < core.number_of(other) end)
    return fibers
  end,
  ---@type fun(capacity: integer?): ip.fiber.queue
  queue = core.queue,
  ---@type fun(): ip.fiber.condition
  condition = core.condition,
  ---@type fun(permits: integer): ip.fiber.semaphore
  semaphore = core.semaphore,
  ---@type fun(): ip.fiber.group
  group = core.group,
}

-- An error may be any value, even one whose __tostring fails.
local function describe(err)
  local ok, text = pcall(tostring, err)
  return ok and text or ("(an error object of type %s)"):format(type(err))
end

local function default_handler(err, traceback, failed)
  local name = failed and failed.name or "a coroutine"
  io.stderr:write("error in ", name, ": ", describe(err), "\n", traceback, "\n")
end

local handler = default_handler

core.set_reporter(function(err, traceback, failed)
  local ok, problem = pcall(handler, err, traceback, failed)
  if ok then return end
  io.stderr:write("error in the on_error handler: ", describe(problem), "\n")
  default_handler(err, traceback, failed)
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

local MOST_TICKS = 2.0 ^ 62 -- of a period that is shorter than any clock can tell

--- For `for count, late in fiber.every(seconds) do`: an iteration once in each period, the first one after the
--- first period. The ticks do not drift. Those that were missed are skipped, and `count` has them all the same;
--- `late` is how long ago the tick was due. Suspends in each iteration.
---@param seconds number
---@return fun(): integer, number
function fiber.every(seconds)
  check.seconds(1, "every", seconds)
  if seconds <= 0 or seconds == math.huge then
    check.fail(1, "every", ("positive finite seconds expected, got %s"):format(seconds), 2)
  end
  local start, count = core.now(), 0
  return function()
    local now = core.now()
    local due = start + (count + 1) * seconds
    if now < due then
      count = count + 1
      core.sleep(due - now)
    else -- the latest tick that is due; others run in any case
      count = math.max(count + 1, math.tointeger(math.min((now - start) // seconds, MOST_TICKS)))
      due = start + count * seconds
      core.yield()
    end
    return count, math.max(0.0, core.now() - due)
  end
end

--- The interface through which another event loop drives this one; a pollable object for cqueues.
---@class ip.fiber.loop
---@field pollfd integer descriptor that is readable when the loop has work to do
---@field events "r"
---@field spin number seconds that the loop polls without sleeping before it blocks; default 0
---@field timeout fun(self: ip.fiber.loop): number? seconds until the next step is due; nil: none is due
---@field step fun(self: ip.fiber.loop, seconds: number?): boolean true while there is something to wait for
local loop = { events = "r" }

function loop:timeout()
  check.self("timeout", "ip.fiber.loop", self)
  return core.loop_timeout()
end

function loop:step(seconds)
  check.self("step", "ip.fiber.loop", self)
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
        local got = value == nil and "nil" or text_of(value)
        error(("property 'spin' of ip.fiber.loop: %s, got %s"):format(problem, got), 2)
      end
      return
    end
    if name == "pollfd" or loop[name] ~= nil then
      error(("property '%s' of ip.fiber.loop cannot be written"):format(name), 2)
    end
    unknown(name)
  end,
})

---@alias ip.fiber.source
---| ip.udp.socket
---| ip.udp.listener
---| ip.udp.session
---| ip.fiber.queue
---| ip.fiber
---| ip.file_descriptor
---| integer

--- Waits until one of the sources is ready, and takes nothing; the first of those that are ready. With a list
--- instead of the sources themselves, returns its index, too. Suspends.
---@type fun(...: ip.fiber.source|ip.fiber.source[]): ip.fiber.source, integer?
fiber.wait_any = core.wait_any
fiber.wait_fd = core.wait_fd
fiber.wait_signal = core.wait_signal
fiber.coroutine = require("ip.coroutine")

return fiber
