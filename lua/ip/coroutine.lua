--- A drop-in for Lua's `coroutine` table. A coroutine made or resumed by it inside a fiber passes a
--- suspension on to that fiber, so that a generator may do I/O: the library resumes the fiber, which resumes
--- the generator.

local core = require("ip.core").fiber
local check_type = require("ip.check").type

local raw = coroutine

local resume_inside

-- What a resume has brought: when the coroutine waits in one of the library's calls, wait as well, then go on
-- with it.
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
  check_type(1, "resume", "thread", co)
  return resume_inside(co, ...)
end

-- As Lua's own: an error closes the coroutine, and gets the position of the caller when it is a string.
local function unwrap(co, ok, ...)
  if ok then return ... end
  local err = ...
  if raw.status(co) == "dead" then
    local closed, problem = raw.close(co)
    if not closed then err = problem end
  end
  error(err, 2) -- a tail call has brought us here: 2 is who called the wrapped function
end

function lib.wrap(fn)
  check_type(1, "wrap", "function", fn)
  local co = raw.create(fn)
  return function(...)
    return unwrap(co, resume_inside(co, ...))
  end
end

return lib
