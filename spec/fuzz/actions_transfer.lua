--- Sends and receives of the stable sockets, in every form. Each datagram goes through the ledger.

local ip = require "ip"
local api = require "spec.fuzz.api"
local faults = require "spec.fuzz.faults"
local world = require "spec.fuzz.world"

local S = api.socket
local LARGEST = 60000

local actions = {}

-- --- sending ---

local function length_of(r)
  local kind = r:int(1, 10)
  if kind == 1 then return 8 end
  if kind == 2 then return r:int(1400, 1500) end
  if kind == 3 then return r:int(2000, 9000) end
  if kind == 4 and r:one_in(4) then return r:int(9000, LARGEST) end
  return r:int(8, 300)
end

-- The bytes as a string, a span, or parts.
local function data_of(r, text)
  local kind = r:int(1, 4)
  if kind == 1 then return ip.byte_span.append(text) end
  if kind == 2 then
    local cut = r:int(1, #text)
    return { text:sub(1, cut), ip.byte_span.append(text:sub(cut + 1)), "" }
  end
  return text
end

-- Runs a send of one datagram, and tells the ledger how it ended.
local function settle(number, length, ok, n, err)
  local book = world.ledger
  if ok and n ~= nil then
    if n ~= length then world.fault(("a send of %d bytes returned %s"):format(length, tostring(n))) end
    book:sent(number)
  else
    if ok and err ~= ip.error.EAGAIN then world.fault("a try_ call returned nil and " .. tostring(err)) end
    book:failed(number, ok and err or n)
  end
end

-- A sender to a stable socket, which is now and then a wild one that is used for this send alone.
local function route(r)
  local from, to, address = world.route(r)
  if address == "127.0.0.1" and r:one_in(3) then address = "::ffff:127.0.0.1" end -- the same to v4 and v6 sockets
  if to.peer or not r:one_in(4) then return from, to, address end
  local family = to.address == "::1" and "::1" or "127.0.0.1"
  local options = { coalesce = r:one_in(3) }
  local connected = r:one_in(2)
  local ok, sock
  if connected then
    ok, sock = world.try("ip.udp.connect", api.udp.connect, to.address, to.port, options)
  else
    ok, sock = world.try("ip.udp.bind", api.udp.bind, family, 0, options)
  end
  if not ok then return from, to, address end
  if r:one_in(2) then world.keep(world.holders, sock) end -- else it is closed by the collector
  return sock, to, not connected and to.address or nil
end

local function fill_with(text)
  return function(span) span:copy(text) end
end

local forms = {}

function forms.send(sock, to, address, data)
  if address == nil then return "send", S.send, sock, data end
  return "send_to", S.send_to, sock, data, address, to.port
end

function forms.try_send(sock, to, address, data)
  if address == nil then return "try_send", S.try_send, sock, data end
  return "try_send_to", S.try_send_to, sock, data, address, to.port
end

function forms.send_with(sock, to, address, _, text)
  if address == nil then return "send_with", S.send_with, sock, #text, fill_with(text) end
  return "send_to_with", S.send_to_with, sock, #text, fill_with(text), address, to.port
end

function forms.send_message(sock, to, address, data)
  local info = address and { address = address, port = to.port, hops = 5, ecn = 1 } or {}
  return "send_message", S.send_message, sock, data, info
end

function forms.try_send_message(sock, to, address, data)
  local info = address and { address = address, port = to.port } or {}
  return "try_send_message", S.try_send_message, sock, data, info
end

function forms.reply_message(sock, to, address, data)
  local info = { address = ip.address.new(address or to.address), port = to.port }
  return "reply_message", S.reply_message, sock, data, info
end

function forms.send_with_flags(sock, to, address, data)
  local flags = ip.message_flag.confirm
  if address == nil then return "send", S.send, sock, data, flags end
  return "send_to", S.send_to, sock, data, address, to.port, flags
end

local form_names = {
  "send", "send", "try_send", "send_with", "send_message", "try_send_message", "reply_message", "send_with_flags",
}

function actions.send(r)
  local sock, to, address = route(r)
  local length = length_of(r)
  local number = world.ledger:reserve(to.index, length)
  if number == nil then return end
  local text = world.ledger:payload(number)
  world.log("datagram %d of %d bytes to %d", number, length, to.index)
  settle(number, length, world.try(forms[r:pick(form_names)](sock, to, address, data_of(r, text), text)))
end

local function hold_again(...)
  faults.hold()
  return ...
end

-- Between `faults.hold` and `faults.release`: faults are played in the call alone.
local function try_with_faults(name, fn, ...)
  return world.try(name, function(...)
    faults.release()
    return select(2, assert(hold_again(pcall(fn, ...))))
  end, ...)
end

-- Several datagrams of one size, which segmentation makes of one block.
local function reserve_segments(to, count, size)
  local numbers, texts = {}, {}
  for i = 1, count do
    numbers[i] = world.ledger:reserve(to.index, size)
    if numbers[i] == nil then break end
    texts[i] = world.ledger:payload(numbers[i])
  end
  return numbers, table.concat(texts)
end

-- The first `done` have been sent, the others have not.
local function settle_several(numbers, done, why)
  for i, number in ipairs(numbers) do
    if i <= done then world.ledger:sent(number) else world.ledger:failed(number, why) end
  end
end

local function settle_segments(numbers, size, ok, n, err)
  if ok and n ~= nil then
    settle_several(numbers, n // size, "not sent")
  elseif not ok and faults.may_lose() then -- one of several system calls has failed: docs/reference/message.md
    for _, number in ipairs(numbers) do world.ledger:uncertain(number) end
  else
    settle_several(numbers, 0, ok and err or n)
  end
end

function actions.send_segments(r)
  local sock, to, address = world.route(r)
  local size = r:int(8, 1200)
  local numbers, text = reserve_segments(to, r:int(1, r:one_in(8) and 70 or 12), size)
  if #numbers == 0 then return end
  world.log("datagrams %d.. (%d of %d bytes) to %d", numbers[1], #numbers, size, to.index)
  if r:one_in(2) then
    local info = { address = address, port = address and to.port, segment_size = size }
    settle_segments(numbers, size, world.try("send_message", S.send_message, sock, data_of(r, text), info))
    return
  end
  -- for another send, of a hook or a finalizer, the option would do harm
  faults.hold()
  world.ledger.busy = world.ledger.busy + 1
  S.set_option(sock, "segment_size", size)
  local name, fn = "try_send", S.try_send
  if address ~= nil then name, fn = "try_send_to", S.try_send_to end
  local ok, err = pcall(function()
    settle_segments(numbers, size, try_with_faults(name, fn, sock, text, address, to.port))
  end)
  S.set_option(sock, "segment_size", 0)
  world.ledger.busy = world.ledger.busy - 1
  faults.release()
  if not ok then error(err, 0) end
end

function actions.send_many(r)
  local sock, to, address = world.route(r)
  local count = r:int(1, 24)
  local batch = api.udp.new_batch(count, 2000)
  local numbers = {}
  for i = 1, count do
    numbers[i] = world.ledger:reserve(to.index, r:int(8, r:one_in(3) and 1500 or 100))
    if numbers[i] == nil then break end
    local info = r:one_in(8) and { hops = 3 } or nil
    api.batch.set(batch, i, data_of(r, world.ledger:payload(numbers[i])), address, address and to.port, info)
  end
  if #numbers == 0 then return end
  world.log("datagrams %d.. (%d, a batch) to %d", numbers[1], #numbers, to.index)
  local name = r:one_in(3) and "try_send_many" or "send_many"
  local ok, n = world.try(name, S[name], sock, batch, 1, #numbers)
  if ok and name == "try_send_many" then
    settle_several(numbers, n or 0, "not sent")
  elseif ok then
    if n ~= #numbers then world.fault(("send_many sent %s of %d"):format(tostring(n), #numbers)) end
    settle_several(numbers, n)
  elseif getmetatable(n) ~= "ip.error" then -- Lua's own errors (too many nested C calls) tell no number
    for _, number in ipairs(numbers) do world.ledger:uncertain(number) end
  else
    settle_several(numbers, n.sent or 0, n)
  end
end

function actions.flush(r)
  world.try("flush", S.flush, r:pick(world.stable).sock)
end

-- --- receiving ---

local function size_of(r)
  local kind = r:int(1, 6)
  if kind == 1 then return 65535 end
  if kind == 2 then return r:int(0, 7) end
  if kind == 3 then return r:int(8, 100) end
  return 2000
end

local function note(entry, ok, text, truncated, size, peeks)
  if not ok or text == nil then return end
  if peeks then
    world.ledger:peeked(entry.index, text, truncated, size)
  else
    world.ledger:received(entry.index, text, truncated, size)
  end
end

-- Receives into a span have their truncation in another place each.
local function receive_into(name, at)
  return function(r, entry, flags)
    local span = ip.byte_span.new(size_of(r), r:one_in(3) and 65535 or nil)
    local size = #span
    local results = table.pack(world.try(name, S[name], entry.sock, span, flags))
    local ok, n = results[1], results[2]
    if ok and n == nil and results[3] ~= ip.error.EAGAIN then
      world.fault(name .. " returned nil and " .. tostring(results[3]))
    end
    note(entry, ok, ok and n and span:sub(1, n), results[at], size, flags ~= nil)
  end
end

local receives = {
  receive_into("receive", 3), receive_into("receive_from", 5), receive_into("try_receive", 3),
  receive_into("try_receive_from", 5),
}

receives[#receives + 1] = function(r, entry, flags)
  local size = r:one_in(2) and size_of(r) or nil
  local name = r:one_in(3) and "try_receive_string" or "receive_string"
  local ok, text, _, _, truncated = world.try(name, S[name], entry.sock, size, flags)
  note(entry, ok, text, truncated, size or 65535, flags ~= nil)
end

-- A joined buffer holds several datagrams of one size.
local function note_message(entry, ok, n, info, span, peeks)
  if not ok or n == nil then return end
  local text = span:sub(1, n)
  local size = info.segment_size
  if not size then return note(entry, ok, text, info.truncated, #span, peeks) end
  for first = 1, #text, size do
    note(entry, true, text:sub(first, first + size - 1), false, 65535, peeks)
  end
end

receives[#receives + 1] = function(r, entry, flags)
  local span = ip.byte_span.new(65535)
  local info = r:one_in(2) and {} or nil
  local name = r:one_in(3) and "try_receive_message" or "receive_message"
  local ok, n, got = world.try(name, S[name], entry.sock, span, info, flags)
  note_message(entry, ok, n, got, span, flags ~= nil)
end

local function peek_of(r)
  return r:one_in(8) and ip.message_flag.peek or nil
end

function actions.receive(r)
  for _ = 1, r:int(1, 4) do
    r:pick(receives)(r, r:pick(world.stable), peek_of(r))
  end
end

function actions.receive_many(r)
  local entry, flags = r:pick(world.stable), peek_of(r)
  local size = r:pick { 2000, 65535, 100, 8, 3 }
  local batch = api.udp.new_batch(r:int(1, size > 2000 and 4 or 40), size)
  if r:one_in(3) then batch.max_ready = r:int(1, 5) end
  local name = r:one_in(3) and "try_receive_many" or "receive_many"
  local ok, count = world.try(name, S[name], entry.sock, batch, flags)
  if not ok or count == nil then return end
  for i = 1, count do
    local span, _, _, truncated = api.batch.get(batch, i)
    note(entry, true, tostring(span), truncated, size, flags ~= nil)
    api.batch.info(batch, i)
  end
end

-- An on_error: it may wait, and raise. It hears of what the network or the system has done alone.
local function note_error(r)
  return function(err)
    if err == ip.error.EBADF or err == ip.error.ECANCELED or err == ip.error.INTERRUPTED
      or err.operation == "with_timeout" then
      world.fault("on_error was asked about " .. tostring(err))
    end
    if r:one_in(6) then error("fuzz error: of an on_error") end
    if r:one_in(4) then world.try("yield", api.fiber.yield) end
    return r:one_in(2)
  end
end

local function loop_config(r)
  local config = { capacity = r:pick { 2000, 65535, 100 } }
  if r:one_in(3) then config.on_error = note_error(r) end
  if r:one_in(3) then config.max_ready = r:int(1, 5) end
  if r:one_in(4) then config.stop = function() return r:one_in(5) end end
  if r:one_in(4) and #world.handles > 0 then config.stop = r:pick(world.handles) end
  return config
end

function actions.datagrams(r)
  local entry, config = r:pick(world.stable), loop_config(r)
  world.try("datagrams", function()
    for data, _, _, truncated in S.datagrams(entry.sock, config) do
      note(entry, true, tostring(data), truncated, config.capacity, false)
      if r:one_in(6) then break end
    end
  end)
end

function actions.receive_loop(r)
  local entry, config = r:pick(world.stable), loop_config(r)
  world.try("receive_loop", S.receive_loop, entry.sock, function(span, _, _, truncated)
    note(entry, true, tostring(span), truncated, config.capacity, false)
    if r:one_in(6) then error("fuzz error: out of the loop") end
    if r:one_in(3) then return ip.byte_span.new(config.capacity) end
  end, config)
end

-- Returns the stable socket that a datagram came from, or nil.
local function stable_sender(port)
  for _, entry in ipairs(world.stable) do
    if entry.port == port then return entry end
  end
end

-- The answer to a stable socket is entered in the ledger; nobody can know whether serve has sent it.
local function answer_to(r, port)
  local to = stable_sender(port)
  if to == nil then return data_of(r, "to a wild socket") end
  local number = world.ledger:reserve(to.index, r:int(8, 300))
  if number == nil then return nil end
  local text = world.ledger:payload(number)
  world.ledger:uncertain(number)
  return data_of(r, text)
end

local function server_of(r, entry, config)
  return function(span, _, port, truncated)
    note(entry, true, tostring(span), truncated, config.capacity, false)
    local kind = r:int(1, 12)
    if kind == 1 then error("fuzz error: out of the server") end
    if kind == 2 then return r:pick { 17, true, { "x", {} }, { x = 1 } } end
    if kind <= 4 then world.try("sleep", api.fiber.sleep, r:int(0, 1000) / 1e6) end
    if kind <= 8 then return answer_to(r, port) end
  end
end

function actions.serve(r)
  local entry, config = r:pick(world.stable), loop_config(r)
  if r:one_in(3) then config.workers = r:int(1, 4) end
  world.try("serve", S.serve, entry.sock, server_of(r, entry, config), config)
end

-- --- what else may be done to a stable socket at any time ---

local toggles = {
  "coalesce", "receive_offload", "receive_errors", "receive_packet_info", "receive_hops",
  "receive_traffic_class",
  "receive_timestamp", "receive_dropped", "broadcast", "free_bind",
}

function actions.toggle(r)
  local entry = r:pick(world.stable)
  local name = r:pick(toggles)
  world.try("set_option", S.set_option, entry.sock, name, r:one_in(2))
  world.try("get_option", S.get_option, entry.sock, name)
  world.try("receive_error", S.receive_error, entry.sock, ip.byte_span.new(20))
end

function actions.timeouts(r)
  local sock = r:pick(world.stable).sock
  local name = r:one_in(2) and "receive_timeout" or "send_timeout"
  local value
  if r:one_in(2) then value = r:pick { 0, 0.001, 0.01, math.huge, 1e-9 } end
  sock[name] = value
  if api.get("socket", sock, name) ~= value then world.fault(name .. " keeps another value") end
end

function actions.look(r)
  local sock = r:pick(world.stable).sock
  for _, name in ipairs(api.properties.socket) do world.try(name, api.get, "socket", sock, name) end
  world.try("io_control", S.io_control, sock, "bytes_readable")
  if #tostring(sock) == 0 then world.fault("a socket without text") end
end

function actions.cancel(r)
  world.try("cancel", S.cancel, r:pick(world.stable).sock)
end

local function release(r, entry)
  local ok, fd = try_with_faults("release", S.release, entry.sock)
  if not ok then return end
  if r:one_in(2) then
    local done, twin = try_with_faults("dup", api.fd.dup, fd)
    if done then
      world.try("close", api.fd.close, fd)
      fd = twin
    end
  end
  return r:one_in(3) and api.fd.release(fd) or fd
end

-- A descriptor that was not taken is still the caller's. `...`: the family, or nothing.
local function assign(entry, fd, ...)
  local arguments = table.pack(...)
  arguments[arguments.n + 1] = fd
  local function take(try) return try("assign", S.assign, entry.sock, table.unpack(arguments, 1, arguments.n + 1)) end
  local taken = take(try_with_faults) or faults.active and take(world.try)
  if taken and entry.sock.family == entry.family then return end
  world.fault("a stable socket did not get its descriptor back")
end

-- The descriptor leaves the socket and comes back, perhaps as a duplicate; what waited in it stays.
function actions.release_and_assign(r)
  local entry = r:pick(world.stable)
  faults.hold()
  local ok, err = pcall(function()
    local fd = release(r, entry)
    if not fd then return end
    if r:one_in(2) then assign(entry, fd) else assign(entry, fd, entry.family) end
  end)
  faults.release()
  if not ok then error(err, 0) end
end

return actions
