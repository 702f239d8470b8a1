--- datagrams and receive_loop: receive one datagram after another into one buffer. They are written in Lua,
--- because the functions that they call may wait.

local core = require("ip.core")
local check = require("ip.check")
local loop_config = require("ip.udp_loop_config")
local check_loop, new_loop, receive = core.check_loop, core.new_loop, core.loop_receive
local new_iterator, text_of = core.loop_iterator, core.value_text

core.own_file()

local udp_loop = {}

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
  config = loop_config.read(1, "datagrams", config, loop_config.problems)
  local on_error = config.on_error
  local loop = new_loop(sock, "datagrams", loop_config.max_ready(config), on_error ~= nil)
  local span, usable = loop_config.new_buffer(config)
  local asks, fiber = loop_config.split_stop(config)
  local receive_next = new_iterator(sock, loop, span, usable, fiber, on_error)
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
  config = loop_config.read(2, "receive_loop", config, loop_config.problems)
  local on_error = config.on_error
  local loop = new_loop(sock, "receive_loop", loop_config.max_ready(config), on_error ~= nil)
  local span, usable, capacity = loop_config.new_buffer(config)
  local asks, fiber = loop_config.split_stop(config)
  while true do
    local data, address, port, truncated = receive(sock, loop, span, usable, fiber)
    if data then
      local replacement = callback(data, address, port, truncated)
      if replacement ~= nil then
        if getmetatable(replacement) ~= "byte_span" then
          error(("receive_loop: its callback may return a byte_span or nil, not %s"):format(text_of(replacement)), 2)
        end
        span, usable = replacement, loop_config.usable(replacement, capacity)
      end
      if asks ~= nil and asks() then return "stopped" end
    elseif data == nil then
      return address -- the reason: "closed" or "stopped"
    elseif not on_error(address) then
      error(address, 0) -- what the receive would have raised
    end
  end
end

return udp_loop
