--- Argument checks of the library's Lua functions: Lua's own messages, at the line of whoever called the public
--- function. The functions here are called by that function itself, so the level is theirs.

local core = require("ip.core")

local check = {}

local function bad_argument(position, name, problem, level)
  error(("bad argument #%d to '%s' (%s)"):format(position, name, problem), level + 1)
end

--- Raises unless `value` is of the Lua type `expected`.
function check.type(position, name, expected, value)
  if type(value) == expected then return end
  local got = value == nil and "no value" or type(value)
  bad_argument(position, name, ("%s expected, got %s"):format(expected, got), 3)
end

--- Raises unless `value` is a number that can be a time.
function check.seconds(position, name, value)
  if type(value) ~= "number" then
    local got = value == nil and "no value" or type(value)
    bad_argument(position, name, "number expected, got " .. got, 3)
  end
  if value ~= value then bad_argument(position, name, "seconds expected, got NaN", 3) end
end

--- The ip.address that an addr argument (an ip.address or text) stands for.
function check.address(position, name, value)
  if type(value) == "string" then
    local address, problem = core.address.parse(value)
    if address == nil then bad_argument(position, name, problem, 3) end
    return address
  end
  local class = getmetatable(value)
  if class == "ip.address" then return value end
  local got = value == nil and "no value" or type(class) == "string" and class or type(value)
  bad_argument(position, name, "ip.address or string expected, got " .. got, 3)
end

--- Raises `err`, which the core raised for a line of the library, for the line that is `level` calls up instead.
function check.raise(err, level)
  if type(err) == "string" then err = err:gsub("^[^\n]-:%d+: ", "", 1) end
  error(err, level + 1)
end

return check
