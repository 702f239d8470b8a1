--- Generators that wait in a socket, and the three places where they may be resumed.

local ip = require "ip"
local busted = require "busted"
local support = require "spec.support"

local fiber = ip.fiber
local co = fiber.coroutine

local generators = {}

--- Sends a text to a port of loopback.
function generators.send(sock, port, text)
  sock:send_to(text, "127.0.0.1", port)
end

--- A generator of the texts that come to a socket, made `depth` generators deep.
function generators.texts_of(sock, depth)
  return co.wrap(function()
    if depth and depth > 1 then
      for text in generators.texts_of(sock, depth - 1) do co.yield(text) end
      return
    end
    while true do
      local text = sock:receive_string()
      if text == "end" then return end
      co.yield(text)
    end
  end)
end

--- Three specs that run `check`: in a fiber, on the main thread, and in a coroutine made by others.
function generators.in_three_places(name, check)
  busted.it(name .. ", in a fiber", support.with_loop(check))
  busted.it(name .. ", on the main thread", support.on_main(check))
  busted.it(name .. ", in a coroutine made by others", support.on_main(function()
    local ok, err
    coroutine.wrap(function() ok, err = pcall(check) end)()
    support.wait_until(function() return ok ~= nil end)
    if not ok then error(err, 0) end
  end))
end

return generators
