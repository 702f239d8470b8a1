--- Fibers for specs: some that wait, and what they leave.

local fiber = require "ip".fiber

local samples = {}

--- Collects the arguments of each call of on_error. Needs `after_each(samples.restore_on_error)`.
---@return table[]
function samples.collect_errors()
  local seen = {}
  fiber.on_error(function(...)
    seen[#seen + 1] = table.pack(...)
  end)
  return seen
end

--- For after_each: gives on_error its default again.
function samples.restore_on_error()
  fiber.on_error(nil)
end

--- A fiber that waits until it is interrupted.
function samples.sleeper()
  return fiber.spawn(fiber.sleep, math.huge)
end

--- A fiber that waits until the function that comes second is called, and then calls fn(...).
function samples.held(fn, ...)
  local gate = samples.sleeper()
  local one = fiber.spawn(function(...)
    gate:join()
    return fn(...)
  end, ...)
  return one, function() gate:interrupt() end
end

--- Interrupts fibers and joins them.
function samples.stop(...)
  for _, one in ipairs { ... } do
    one:interrupt()
    one:join()
  end
end

--- A value for a <close> variable: calls fn(err) when the variable goes.
function samples.on_close(fn)
  return setmetatable({}, { __close = function(_, err) fn(err) end })
end

--- Collects in another coroutine than the one that runs.
function samples.collect_elsewhere()
  coroutine.wrap(function()
    collectgarbage()
    collectgarbage()
  end)()
end

return samples
