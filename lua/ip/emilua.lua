--- Compatibility with Emilua: defines the globals and modules that its UDP scripts expect.
--- `lua5.4 -l ip.emilua script.lua` runs such a script unmodified. The reference is docs/reference/emilua.md.
---
--- No other module of this library sets globals.

local errors = require("ip.error")
local emilua_fiber = require("ip.emilua.fiber")
local fiber = require("ip.fiber")
local program = require("ip.emilua.program")

require("ip.core").own_file()

local emilua = {
  byte_span = require("byte_span"),
  coroutine = fiber.coroutine,
  sleep = fiber.sleep,
  spawn = emilua_fiber.spawn,
  this_fiber = emilua_fiber.this_fiber,
}

for name, value in pairs(emilua) do
  _G[name] = value
end

--- Returns a new error value of the category "generic" for each name.
local generic_error = setmetatable({}, {
  __name = "generic_error",
  __metatable = "generic_error",
  __index = function(_, name)
    local known, err = pcall(function() return errors[name] end)
    if not known or type(name) ~= "string" or err.category ~= "system" then
      error(("generic_error has no error '%s'"):format(tostring(name)), 2)
    end
    return err:togeneric()
  end,
  __newindex = function()
    error("generic_error cannot be written", 2)
  end,
})

package.preload.condition_variable = function() return require("ip.emilua.condition_variable") end
package.preload.mutex = function() return require("ip.emilua.mutex").module end
package.preload.generic_error = function() return generic_error end
package.preload.time = function() return { sleep = fiber.sleep } end

local NAME = ...
local interpreter, late = program.loaded_by_option(NAME, arg)
if interpreter then
  if late then
    error(("-l %s runs the script, and %s comes after it: give -l %s last"):format(NAME, late, NAME), 0)
  end
  -- A script that requires the module gets this table, and does not run itself again.
  package.loaded[NAME] = emilua
  program.run(interpreter, arg)
end

return emilua
