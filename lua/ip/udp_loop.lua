--- datagrams and receive_loop: receive one datagram after another into one buffer. They are written in Lua,
--- because the functions that they call may wait.

local core = require("ip.core")
local check = require("ip.check")
local check_loop, new_loop, receive = core.check_loop, core.new_loop, core.loop_receive
local new_iterator = core.loop_iterator
local new_span = core.byte_span.new

require("ip.core").own_file()

---@class ip.udp.loop_config
---@field capacity integer? largest size of a datagram in bytes; default ip.udp.default_capacity
---@field buffer byte_span? buffer for datagrams, instead of a new one
---@field stop (ip.fiber|fun(): any)? its end, or a true result after a datagram, ends the loop
---@field max_ready integer? consecutive datagrams before other fibers run; default 12

local udp_loop = { default_capacity = 1472 }

local LARGEST_CAPACITY = 1 << 30
local DEFAULT_MAX_READY = 12

-- A test for each option: a function from the value to a description of the problem, or nil.
local problems = {}

local function is_integer(value, low, high)
  local integer = type(value) == "number" and math.tointeger(value)
  return integer and integer >= low and integer <= high
end

function problems.capacity(value)
  if is_integer(value, 0, LARGEST_CAPACITY) then return nil end
  return ("integer in 0..%d expected"):format(LARGEST_CAPACITY)
end

function problems.max_ready(value)
  if is_integer(value, 1, math.maxinteger) then return nil end
  return "integer of at least 1 expected"
end

function problems.buffer(value)
  if getmetatable(value) ~= "byte_span" then return "byte_span expected" end
end

function problems.stop(value)
  if type(value) ~= "function" and getmetatable(value) ~= "ip.fiber" then return "ip.fiber or function expected" end
end

-- Returns a description of the first problem in the table of options, or nil.
local function find_problem(config)
  for name, value in pairs(config) do
    local test = problems[name]
    if test == nil then return ("unknown option '%s'"):format(tostring(name)) end
    local problem = test(value)
    if problem ~= nil then
      return ("option '%s': %s, got %s"):format(name, problem, core.value_text(value))
    end
  end
  local buffer, capacity = config.buffer, config.capacity
  if buffer ~= nil and capacity ~= nil and capacity > buffer.capacity then
    return "option 'capacity': more than the buffer's"
  end
end

-- Returns how many bytes of a span a loop uses: the capacity of the loop, limited by that of the span, or the
-- length of the span if it is larger. So a span that was shortened to an earlier datagram is usable again,
-- and a slice of a larger block does not grow into the block.
local function room_of(span, capacity)
  return math.max(#span, math.min(capacity, span.capacity))
end

local function new_buffer(config)
  local buffer, capacity = config.buffer, config.capacity
  if buffer == nil then
    capacity = math.tointeger(capacity or udp_loop.default_capacity)
    return new_span(capacity), capacity, capacity
  end
  if capacity ~= nil then
    capacity = math.tointeger(capacity)
    return buffer, capacity, capacity
  end
  capacity = #buffer > 0 and #buffer or udp_loop.default_capacity
  return buffer, room_of(buffer, capacity), capacity
end

-- Returns the function that decides whether to stop, and the fiber whose end stops the loop; one of them is
-- nil.
local function split_stop(stop)
  if type(stop) == "function" then return stop, nil end
  return nil, stop
end

local no_config = {}

-- Returns the iterator of a loop with a stop function, which may wait.
local function asking(asks, receive_next)
  return function(_, previous)
    if previous ~= nil and asks() then return nil end
    return receive_next()
  end
end

--- For `for data, address, port, truncated in sock:datagrams(config) do`: `data` is one span, which contains
--- the current datagram. The loop ends when the socket is closed or config.stop stops it. It suspends in each
--- iteration that has to wait.
---@param config ip.udp.loop_config?
function udp_loop.datagrams(sock, config)
  check.socket("datagrams", sock)
  check_loop(sock, "datagrams")
  if config ~= nil then
    check.type(1, "datagrams", "table", config)
    local problem = find_problem(config)
    if problem ~= nil then check.fail(1, "datagrams", problem, 2) end
  end
  config = config or no_config
  local loop = new_loop(sock, "datagrams", config.max_ready or DEFAULT_MAX_READY)
  local span, room = new_buffer(config)
  local asks, fiber = split_stop(config.stop)
  local receive_next = new_iterator(sock, loop, span, room, fiber)
  return asks ~= nil and asking(asks, receive_next) or receive_next
end

--- Calls callback(span, address, port, truncated) for each datagram until the socket is closed or config.stop
--- stops the loop. A span that the callback returns becomes the buffer, and the callback keeps the old one.
--- Suspends.
---@param callback fun(span: byte_span, address: ip.address, port: integer, truncated: boolean): byte_span?
---@param config ip.udp.loop_config?
---@return "closed"|"stopped"
function udp_loop.receive_loop(sock, callback, config)
  check.socket("receive_loop", sock)
  check_loop(sock, "receive_loop")
  check.type(1, "receive_loop", "function", callback)
  if config ~= nil then
    check.type(2, "receive_loop", "table", config)
    local problem = find_problem(config)
    if problem ~= nil then check.fail(2, "receive_loop", problem, 2) end
  end
  config = config or no_config
  local loop = new_loop(sock, "receive_loop", config.max_ready or DEFAULT_MAX_READY)
  local span, room, capacity = new_buffer(config)
  local asks, fiber = split_stop(config.stop)
  while true do
    local data, address, port, truncated = receive(sock, loop, span, room, fiber)
    if data == nil then return address end -- the reason: "closed" or "stopped"
    local replacement = callback(data, address, port, truncated)
    if replacement ~= nil then
      if getmetatable(replacement) ~= "byte_span" then
        error(("receive_loop: its callback may return a byte_span or nil, not %s"):format(type(replacement)), 2)
      end
      span, room = replacement, room_of(replacement, capacity)
    end
    if asks ~= nil and asks() then return "stopped" end
  end
end

return udp_loop
