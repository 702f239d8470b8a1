--- Argument checks of the library's Lua functions.

local check = {}

--- Raises Lua's own message for a wrong argument, at the line of whoever called the public function.
function check.type(position, name, expected, value)
  if type(value) == expected then return end
  local message = "bad argument #%d to '%s' (%s expected, got %s)"
  error(message:format(position, name, expected, value == nil and "no value" or type(value)), 3)
end

return check
