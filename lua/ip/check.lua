--- Argument checks of the library's Lua functions. The messages are those of the C functions, with the place in
--- the program that called the public function.

local core = require("ip.core")

core.own_file()

local text_of, raise = core.value_text, core.raise_text

local check = {}

--- Raises a bad-argument error.
function check.fail(position, name, problem)
  raise(("bad argument #%d to '%s' (%s)"):format(position, name, problem))
end

local fail = check.fail

-- Raises for a value that is not what is expected.
local function bad_type(position, name, expected, value)
  fail(position, name, ("%s expected, got %s"):format(expected, text_of(value)))
end

--- Raises unless `value` is of the Lua type `expected`.
function check.type(position, name, expected, value)
  if type(value) ~= expected then bad_type(position, name, expected, value) end
end

--- Raises unless `value` is a number that can be a time.
function check.seconds(position, name, value)
  if type(value) ~= "number" then bad_type(position, name, "number", value) end
  if value ~= value then fail(position, name, "seconds expected, got NaN") end
end

--- Returns `value` as an integer; raises unless it is an integer within low..high. Strings are not converted.
function check.integer(position, name, value, low, high)
  local integer = type(value) == "number" and math.tointeger(value)
  if not integer then bad_type(position, name, "integer", value) end
  if integer < low or integer > high then
    fail(position, name, ("%d is outside %d..%d"):format(integer, low, high))
  end
  return integer
end

--- Raises for a method that was called on something else. The positions of its other arguments do not count
--- `self`, as in calls with a colon.
function check.bad_self(name, class, self)
  raise(("calling '%s' on bad self (%s expected, got %s)"):format(name, class, text_of(self)))
end

--- Raises unless `self` is of the class.
function check.self(name, class, self)
  if getmetatable(self) ~= class then check.bad_self(name, class, self) end
end

--- Raises unless `value` is a socket.
function check.socket(name, value)
  check.self(name, "ip.udp.socket", value)
end

--- Returns the ip.address of an addr argument (an ip.address or text).
function check.address(position, name, value)
  if type(value) == "string" then
    local address, problem = core.address.parse(value)
    if address == nil then fail(position, name, problem) end
    return address
  end
  if getmetatable(value) == "ip.address" then return value end
  bad_type(position, name, "ip.address or string", value)
end

return check
