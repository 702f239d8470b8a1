--- Argument checks of the library's Lua functions. The messages are Lua's own, with the position of the
--- caller of the public function. The error levels assume that the public function itself calls the check.

local core = require("ip.core")

require("ip.core").own_file()

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

--- Returns `value` as an integer; raises unless it is an integer within low..high. Strings are not converted.
function check.integer(position, name, value, low, high)
  if type(value) ~= "number" then
    local got = value == nil and "no value" or type(value)
    bad_argument(position, name, "integer expected, got " .. got, 3)
  end
  local integer = math.tointeger(value)
  if integer == nil then bad_argument(position, name, "number has no integer representation", 3) end
  if integer < low or integer > high then
    bad_argument(position, name, ("%d is outside %d..%d"):format(integer, low, high), 3)
  end
  return integer
end

--- Raises unless `value` is a socket. The positions of the other arguments do not count it, as in calls with
--- a colon.
function check.socket(name, value)
  local class = getmetatable(value)
  if class == "ip.udp.socket" then return end
  local got = type(class) == "string" and class or type(value)
  error(("calling '%s' on bad self (ip.udp.socket expected, got %s)"):format(name, got), 3)
end

--- Raises a bad-argument error with the position `level` calls up.
function check.fail(position, name, problem, level)
  bad_argument(position, name, problem, level + 1)
end

--- Returns the ip.address of an addr argument (an ip.address or text).
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

--- Raises `err`, an error of the core with a position in the library, with the position `level` calls up
--- instead.
function check.raise(err, level)
  if type(err) == "string" then err = err:gsub("^[^\n]-:%d+: ", "", 1) end
  error(err, level + 1)
end

return check
