--- Other code closes the descriptor of a socket while calls wait for it, or are about to. It runs where nothing
--- else does: the number is free afterwards, and what opens a descriptor next gets it.

local ip = require "ip"
local world = require "spec.fuzz.world"

local F = ip.fiber

local due = { -- how a call may end; the system tells nothing of a close after the registration
  [ip.error.EBADF] = true, [ip.error.ECANCELED] = true, [ip.error.ETIMEDOUT] = true,
}

local function is_due(err)
  for code in pairs(due) do
    if err == code then return true end
  end
  return false
end

-- Calls that wait for `sock`, which nobody sends to.
local function waits_for(sock)
  local number = sock.native_handle
  return {
    function() sock:receive_string() end,
    function() sock:receive_message(ip.byte_span.new(10)) end,
    function() sock:receive_many(ip.udp.batch.new(2)) end,
    function() for _ in sock:datagrams() do world.fault("a datagram from nowhere") end end,
    function() F.wait_fd(number, "r") end,
  }
end

local function start(r, sock)
  local fibers = {}
  for i = 1, r:int(1, 3) do
    fibers[i] = F.spawn(pcall, F.with_timeout, 0.002, r:pick(waits_for(sock)))
  end
  return fibers
end

-- Before the calls begin, in the turn in which they do, or later.
local function close(r, number)
  local when = r:int(1, 3)
  local function by_others() ip.file_descriptor.new(number):close() end
  if when == 1 then return by_others() end
  if when == 3 then F.yield() end
  F.spawn(by_others):join()
end

-- A new socket gets the number, as a rule, and nothing of the old one's watch is left.
local function receive_with_new_socket()
  local sock <close> = ip.udp.bind("127.0.0.1", 0)
  local receiving = F.spawn(F.with_timeout, 5, sock.receive_string, sock)
  F.yield()
  sock:send_to("new", "127.0.0.1", sock.local_port)
  if receiving:join() ~= "new" then world.fault("a socket with a number that others closed receives nothing") end
end

return function(r)
  local sock = ip.udp.bind("127.0.0.1", 0)
  local fibers = start(r, sock)
  close(r, sock.native_handle)
  for _, fiber in ipairs(fibers) do
    local ok, err = fiber:join()
    if not ok and not is_due(err) then world.fault("closed by others: " .. tostring(err)) end
  end
  pcall(sock.close, sock)
  receive_with_new_socket()
end
