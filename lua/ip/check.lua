--- Argument checks of the library's Lua functions. The messages are those of the C functions, with the
--- position of the caller of the public function. The error levels assume that the public function itself
--- calls the check.

local core = require("ip.core")

core.own_file()

local text_of = core.value_text

local check = {}

local function bad_argument(position, name, problem, level)
  error(("bad argument #%d to '%s' (%s)"):format(position, name, problem), level + 1)
end

-- Raises for a value that is not what is expected.
local function bad_type(position, name, expected, value, level)
  bad_argument(position, name, ("%s expected, got %s"):format(expected, text_of(value)), level + 1)
end

--- Raises unless `value` is of the Lua type `expected`.
function check.type(position, name, expected, value)
  if type(value) ~= expected then bad_type(position, name, expected, value, 3) end
end

--- Raises unless `value` is a number that can be a time.
function check.seconds(position, name, value)
  if type(value) ~= "number" then bad_type(position, name, "number", value, 3) end
  if value ~= value then bad_argument(position, name, "seconds expected, got NaN", 3) end
end

--- Returns `value` as an integer; raises unless it is an integer within low..high. Strings are not converted.
function check.integer(position, name, value, low, high)
  local integer = type(value) == "number" and math.tointeger(value)
  if not integer then bad_type(position, name, "integer", value, 3) end
  if integer < low or integer > high then
    bad_argument(position, name, ("%d is outside %d..%d"):format(integer, low, high), 3)
  end
  return integer
end

--- Raises unless `value` is a socket. The positions of the other arguments do not count it, as in calls with
--- a colon.
function check.socket(name, value)
  if getmetatable(value) == "ip.udp.socket" then return end
  error(("calling '%s' on bad self (ip.udp.socket expected, got %s)"):format(name, text_of(value)), 3)
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
  if getmetatable(value) == "ip.address" then return value end
  bad_type(position, name, "ip.address or string", value, 3)
end

--- Raises `err`, an error of the core with a position in the library, with the position `level` calls up
--- instead.
function check.raise(err, level)
  if type(err) == "string" then err = err:gsub("^[^\n]-:%d+: ", "", 1) end
  error(err, level + 1)
end

return check
