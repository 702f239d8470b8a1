--- Writes spec/expected/mistakes.txt anew. Read the difference before you commit it.

local ip = require "ip"
local mistakes = require "spec.support.mistakes"

local file <close> = assert(io.open("spec/expected/mistakes.txt", "w"))
ip.fiber.run(function() file:write(mistakes.text()) end)
