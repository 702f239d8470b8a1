--- Generators that wait in a socket.

local ip = require "ip"

local co = ip.fiber.coroutine

local generators = {}

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

return generators
