--- The three places where a call may wait.

local busted = require "busted"
local support = require "spec.support"

local places = {}

--- Three specs that run `check`: in a fiber, on the main thread, and in a coroutine made by others.
function places.in_three_places(name, check)
  busted.it(name .. ", in a fiber", support.with_loop(check))
  busted.it(name .. ", on the main thread", support.on_main(check))
  busted.it(name .. ", in a coroutine made by others", support.on_main(function()
    local ok, err
    coroutine.wrap(function() ok, err = pcall(check) end)()
    support.wait_until(function() return ok ~= nil end)
    if not ok then error(err, 0) end
  end))
end

return places
