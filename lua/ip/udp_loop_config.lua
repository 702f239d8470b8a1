--- The configuration of the loops over datagrams: `datagrams`, receive_loop, serve.

local core = require("ip.core")
local check = require("ip.check")
local new_span = core.byte_span.new

core.own_file()

---@class ip.udp.loop_config
---@field capacity integer? largest size of a datagram in bytes; default ip.udp.default_capacity
---@field buffer byte_span? buffer for datagrams, instead of a new one
---@field stop (ip.fiber|fun(): any)? its end, or a true result after a datagram, ends the loop
---@field max_ready integer? consecutive datagrams before other fibers run; default 12
---@field on_error (fun(err: ip.error.value): any)? asked about an error of a receive; true: the loop goes on

local loop_config = { default_capacity = 1472 }

local LARGEST_CAPACITY = 1 << 30
local DEFAULT_MAX_READY = 12

-- A test for each option of all loops: a function from the value to a description of the problem, or nil.
local problems = {}
loop_config.problems = problems

local function is_integer(value, low, high)
  local integer = type(value) == "number" and math.tointeger(value)
  return integer and integer >= low and integer <= high
end

--- Returns the test of an option that is a count.
function loop_config.count(value)
  if is_integer(value, 1, math.maxinteger) then return nil end
  return "integer of at least 1 expected"
end

function problems.capacity(value)
  if is_integer(value, 0, LARGEST_CAPACITY) then return nil end
  return ("integer in 0..%d expected"):format(LARGEST_CAPACITY)
end

problems.max_ready = loop_config.count

function problems.buffer(value)
  if getmetatable(value) ~= "byte_span" then return "byte_span expected" end
end

function problems.stop(value)
  if type(value) ~= "function" and getmetatable(value) ~= "ip.fiber" then return "ip.fiber or function expected" end
end

function problems.on_error(value)
  if type(value) ~= "function" then return "function expected" end
end

-- Returns a description of the first problem in the table of options, or nil.
local function find_problem(config, tests)
  for name, value in pairs(config) do
    local test = tests[name]
    if test == nil then return ("unknown option '%s'"):format(tostring(name)) end
    local problem = test(value)
    if problem ~= nil then
      return ("option '%s': %s, got %s"):format(name, problem, core.value_text(value))
    end
  end
  local buffer, capacity = config.buffer, config.capacity
  if buffer ~= nil and capacity ~= nil and capacity > buffer.capacity then
    return ("option 'capacity': at most the buffer's %d expected, got %d"):format(buffer.capacity, capacity)
  end
end

local no_config = {}

--- Returns the configuration, a table, for an argument that may be nil; raises a bad argument of the public
--- function that calls this.
---@param tests table<string, function> the test of each option
function loop_config.read(position, name, config, tests)
  if config == nil then return no_config end
  if type(config) ~= "table" then check.fail(position, name, "table expected, got " .. core.value_text(config)) end
  local problem = find_problem(config, tests)
  if problem ~= nil then check.fail(position, name, problem) end
  return config
end

function loop_config.max_ready(config)
  return config.max_ready or DEFAULT_MAX_READY
end

--- Returns how many bytes of a span a loop uses: the capacity of the loop, limited by that of the span, or the
--- length of the span if it is larger. So a span that was shortened to an earlier datagram is usable again,
--- and a slice of a larger block does not grow into the block.
function loop_config.usable(span, capacity)
  return math.max(#span, math.min(capacity, span.capacity))
end

--- Returns the buffer, how many bytes of it the loop uses, and the capacity of the loop.
function loop_config.new_buffer(config)
  local buffer, capacity = config.buffer, config.capacity
  if buffer == nil then
    capacity = math.tointeger(capacity or loop_config.default_capacity)
    return new_span(capacity), capacity, capacity
  end
  if capacity ~= nil then
    capacity = math.tointeger(capacity)
    return buffer, capacity, capacity
  end
  capacity = #buffer > 0 and #buffer or loop_config.default_capacity
  return buffer, loop_config.usable(buffer, capacity), capacity
end

--- Returns the function that decides whether to stop, and the fiber whose end stops the loop; one of them is
--- nil.
function loop_config.split_stop(config)
  local stop = config.stop
  if type(stop) == "function" then return stop, nil end
  return nil, stop
end

return loop_config
