--- send_with and send_to_with: the caller writes the datagram straight into the outgoing buffer. They are
--- written in Lua, because `fill` may wait, or send datagrams itself.

local core = require("ip.core")
local check = require("ip.check")
local prepare, send_filled, send_to_filled = core.prepare_fill, core.send_filled, core.send_to_filled
local prepare_session, session_send_filled = core.prepare_session_fill, core.session_send_filled
local new_span = core.byte_span.new

require("ip.core").own_file()

local udp_fill = {}

local LARGEST = 65535
local KEPT = 16 -- unused buffers of each size that are kept for reuse

-- Most datagrams fit into an Ethernet frame, and need only a small buffer.
local small = { capacity = 2048, count = 0 }
local large = { capacity = LARGEST, count = 0 }

-- A buffer has two spans on the same memory: `fill` gets one, and the other is sent. So a span that `fill`
-- has kept can change only the bytes of a later datagram, not its length. A buffer in use is in no list:
-- after an error it becomes garbage, and a call inside `fill` uses another buffer.
local function take(length)
  local list = length <= small.capacity and small or large
  local count = list.count
  local buffer = list[count]
  if count == 0 then
    local sent = new_span(list.capacity)
    buffer = { list = list, sent = sent, given = sent:slice() }
  else
    list[count] = nil
    list.count = count - 1
  end
  buffer.given:resize(length):fill(0) -- not to send bytes of an earlier datagram
  return buffer
end

local function give_back(buffer)
  local list = buffer.list
  local count = list.count + 1
  if count > KEPT then return end
  list[count] = buffer
  list.count = count
end

-- Returns the result of send(sender, span, addr, port); fill(span) writes the datagram.
local function send_buffer(length, fill, send, sender, addr, port)
  local buffer = take(length)
  fill(buffer.given)
  local n = send(sender, buffer.sent:resize(length), addr, port)
  give_back(buffer)
  return n
end

--- Sends one datagram of exactly `length` bytes to the connected peer; fill(span) writes it. Suspends.
---@param length integer 0..65535
---@param fill fun(span: byte_span) may use the span until it returns
---@return integer n bytes sent
function udp_fill.send_with(sock, length, fill)
  check.socket("send_with", sock)
  local connected = prepare(sock)
  length = check.integer(1, "send_with", length, 0, LARGEST)
  check.type(2, "send_with", "function", fill)
  if not connected then return send_filled(sock, "") end -- which raises the error
  local n = send_buffer(length, fill, send_filled, sock)
  return n
end

--- send_with of a session. Suspends.
---@param length integer 0..65535
---@param fill fun(span: byte_span)
---@return integer n bytes sent
function udp_fill.session_send_with(session, length, fill)
  check.self("send_with", "ip.udp.session", session)
  prepare_session(session)
  length = check.integer(1, "send_with", length, 0, LARGEST)
  check.type(2, "send_with", "function", fill)
  local n = send_buffer(length, fill, session_send_filled, session)
  return n
end

--- Like send_with, but sends to an endpoint. Suspends.
---@param length integer 0..65535
---@param fill fun(span: byte_span)
---@param addr ip.addr
---@param port integer
---@return integer n bytes sent
function udp_fill.send_to_with(sock, length, fill, addr, port)
  check.socket("send_to_with", sock)
  local _, problem = prepare(sock, addr)
  length = check.integer(1, "send_to_with", length, 0, LARGEST)
  check.type(2, "send_to_with", "function", fill)
  if problem ~= nil then check.fail(3, "send_to_with", problem) end
  if type(addr) ~= "string" then check.address(3, "send_to_with", addr) end
  port = check.integer(4, "send_to_with", port, 0, 65535)
  local n = send_buffer(length, fill, send_to_filled, sock, addr, port)
  return n
end

return udp_fill
