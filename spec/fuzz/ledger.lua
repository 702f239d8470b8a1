--- The ledger of the datagrams that are sent to the stable sockets. Each has a number of its own, and bytes
--- that follow from number and length. It is entered before it is sent; each receive is checked against the
--- entry.
---
--- The memory that the outstanding datagrams of a socket take stays below what its receive buffer grants, so
--- that the system never drops one.

local faults = require "spec.fuzz.faults"

local HEADER = 8

local ledger = { HEADER = HEADER }
ledger.__index = ledger

-- Bytes without a short period: a datagram that is shifted, or that has bytes of another one, differs.
local noise
do
  local state, bytes = 12345, {}
  for i = 1, 70000 do
    state = (state * 1103515245 + 12345) & 0x7fffffff
    bytes[i] = string.char(state >> 16 & 255)
  end
  noise = table.concat(bytes)
end

--- `fault(text)` is called for everything that must not be.
function ledger.new(fault)
  return setmetatable({ fault = fault, busy = 0, number = 0, entries = {}, sockets = {}, received_count = 0 }, ledger)
end

--- Adds the socket number `index`; `granted`: the size of its receive buffer.
function ledger:add_socket(index, granted)
  self.sockets[index] = { limit = granted // 3, used = 0, outstanding = 0, anonymous = 0 }
end

-- What the kernel charges for a datagram, generously: the buffer is the next power of two, and has a head.
local function weight(length)
  return 1500 + 2 * length
end

--- Enters a datagram to the socket `index`; returns its number, or nil where there is no space for it.
function ledger:reserve(index, length)
  local socket = self.sockets[index]
  if length < HEADER or socket.used + weight(length) > socket.limit then return nil end
  socket.used = socket.used + weight(length)
  socket.outstanding = socket.outstanding + 1
  self.number = self.number + 1
  self.entries[self.number] = { to = index, length = length, state = "pending", received = false }
  return self.number
end

--- Returns the bytes of an entered datagram.
function ledger:payload(number)
  local length = self.entries[number].length
  local first = 1 + number * 37 % 4001
  return string.pack(">I4I4", number, length) .. noise:sub(first, first + length - HEADER - 1)
end

local function release(self, number, entry)
  local socket = self.sockets[entry.to]
  socket.used = socket.used - weight(entry.length)
  socket.outstanding = socket.outstanding - 1
  self.entries[number] = nil
end

local function expect_pending(self, number, entry, state)
  if entry.state == "pending" then return end
  self.fault(("datagram %d ended twice: %s, then %s"):format(number, entry.state, state))
end

--- The call that sent it has succeeded.
function ledger:sent(number)
  local entry = self.entries[number]
  expect_pending(self, number, entry, "sent")
  entry.state = "sent"
  if entry.received then release(self, number, entry) end
end

--- The call that was to send it has raised an error, or was closed: it must never arrive.
function ledger:failed(number, why)
  local entry = self.entries[number]
  expect_pending(self, number, entry, "failed")
  if entry.received then
    self.fault(("datagram %d arrived though its send failed: %s"):format(number, why))
  end
  release(self, number, entry)
end

--- Nobody can know whether it was sent: it may arrive once.
function ledger:uncertain(number)
  local entry = self.entries[number]
  entry.state = "uncertain"
  if entry.received then release(self, number, entry) end
end

local function check(self, index, text, truncated, size)
  local number, length = string.unpack(">I4I4", text)
  local entry = self.entries[number]
  if entry == nil or entry.received then
    self.fault(("socket %d received a datagram twice or never sent: number %d, %d bytes"):format(
      index, number, #text))
  end
  if entry.to ~= index then
    self.fault(("socket %d received datagram %d, which was sent to socket %d"):format(
      index, number, entry.to))
  end
  if length ~= entry.length or self:payload(number):sub(1, #text) ~= text then
    self.fault(("datagram %d of %d bytes has wrong bytes (%d)"):format(number, entry.length, #text))
  end
  local expected = math.min(entry.length, size)
  if #text ~= expected or truncated ~= (entry.length > size) then
    self.fault(("datagram %d of %d bytes: %d bytes in a buffer of %d, truncated %s"):format(
      number, entry.length, #text, size, truncated))
  end
  return number, entry
end

--- A receive with a buffer of `size` bytes has returned `text` on socket `index`.
function ledger:received(index, text, truncated, size)
  self.received_count = self.received_count + 1
  if #text < HEADER then -- a tiny buffer: nobody can know which one it was
    if not truncated then self.fault(("socket %d received %d bytes, not truncated"):format(index, #text)) end
    self.sockets[index].anonymous = self.sockets[index].anonymous + 1
    return
  end
  local number, entry = check(self, index, text, truncated, size)
  entry.received = true
  if entry.state ~= "pending" then release(self, number, entry) end
end

--- A peek has returned `text`. A hook may have received the datagram since.
function ledger:peeked(index, text, truncated, size)
  if #text < HEADER then return end
  local entry = self.entries[string.unpack(">I4", text)]
  if entry ~= nil and not entry.received then check(self, index, text, truncated, size) end
end

--- How many datagrams the socket is sure to have, in the system or in the library.
function ledger:missing(index)
  local count = 0
  for _, entry in pairs(self.entries) do
    if entry.to == index and entry.state == "sent" and not entry.received then count = count + 1 end
  end
  return count - self.sockets[index].anonymous
end

--- Everything has been received: forgets what is uncertain or was not seen, and reports what is lost. No call
--- that sends is pending.
function ledger:close(index)
  local missing = self:missing(index)
  if missing > 0 and not self.may_lose then
    local numbers = {}
    for number, entry in pairs(self.entries) do
      local is_lost = entry.to == index and entry.state == "sent" and not entry.received
      if is_lost then numbers[#numbers + 1] = number end
    end
    table.sort(numbers)
    self.fault(("socket %d: %d datagrams were lost, of these: %s"):format(
      index, missing, table.concat(numbers, " ")))
  end
  for number, entry in pairs(self.entries) do
    if entry.to == index then
      if entry.state == "pending" and entry.received and not self.may_lose then
        self.fault(("datagram %d arrived though its send was ended"):format(number))
      end
      release(self, number, entry)
    end
  end
  self.sockets[index].anonymous = 0
end

-- While an entry changes, hooks and finalizers of the fuzzer keep still: they use the ledger themselves. Nothing
-- that is injected fails meanwhile.
local function leave(self, ...)
  self.busy = self.busy - 1
  faults.release()
  return ...
end

for _, name in ipairs { "reserve", "payload", "sent", "failed", "uncertain", "received", "peeked", "close" } do
  local change = ledger[name]
  ledger[name] = function(self, ...)
    faults.hold()
    self.busy = self.busy + 1
    return leave(self, change(self, ...))
  end
end

return ledger
