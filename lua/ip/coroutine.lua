--- A replacement for Lua's `coroutine` table. If a coroutine that it made or resumed inside a fiber suspends
--- in the library, the fiber suspends, too, so a generator may do I/O: the library resumes the fiber, which
--- resumes the generator.

local core = require("ip.core").fiber

require("ip.core").own_file()

local raw = coroutine

-- Raises as Lua's own function does, whose messages do not show values.
local function check_type(name, expected, value)
  if type(value) == expected then return end
  local got = value == nil and "no value" or type(value)
  error(("bad argument #1 to '%s' (%s expected, got %s)"):format(name, expected, got), 3)
end

local resume_inside

-- Handles the results of a resume: if the coroutine waits in a call of the library, waits and then resumes it
-- again.
local function continue(co, ok, ...)
  if not ok then return ok, ... end
  if core.wait_inside(co) == nil then return ok, ... end
  return resume_inside(co)
end

local function leave(co, entered, ...)
  if entered then core.leave(co) end
  return continue(co, ...)
end

function resume_inside(co, ...)
  local entered = core.enter(co)
  return leave(co, entered, raw.resume(co, ...))
end

local lib = {}
for name, value in pairs(raw) do lib[name] = value end

function lib.resume(co, ...)
  check_type("resume", "thread", co)
  return resume_inside(co, ...)
end

-- Like Lua's own wrap: an error closes the coroutine, and a string error gets the position of the caller.
local function unwrap(co, ok, ...)
  if ok then return ... end
  local err = ...
  if raw.status(co) == "dead" then
    local closed, problem = raw.close(co)
    if not closed then err = problem end
  end
  error(err, 2) -- after the tail call, level 2 is the caller of the wrapped function
end

function lib.wrap(fn)
  check_type("wrap", "function", fn)
  local co = raw.create(fn)
  return function(...)
    return unwrap(co, resume_inside(co, ...))
  end
end

return lib
