--- Listeners and sessions. Each datagram of a peer has the peer's port and a number of its own: it may be lost, for
--- limits are small and sessions are closed, but it never arrives twice, nor at another session.

local ip = require "ip"
local api = require "spec.fuzz.api"
local world = require "spec.fuzz.world"

local L, S = api.listener, api.session

local MOST_LISTENERS, MOST_PEERS, MOST_SESSIONS = 3, 5, 20

local actions = {}

-- --- listeners and their peers ---

local function accept_function(r)
  return function(address, port, data)
    if getmetatable(address) ~= "ip.address" or math.type(port) ~= "integer" or type(data) ~= "string" then
      world.fault("wrong arguments of an accept function")
    end
    local kind = r:int(1, 12)
    if kind == 1 then error("fuzz error: in accept") end
    if kind == 2 then return nil end
    if kind == 3 then world.try("sleep", api.fiber.sleep, 0.001) end
    if kind == 4 and #world.sessions > 0 then
      local entry = r:pick(world.sessions)
      world.try("close", S.close, entry.session)
    end
    if kind == 5 and #world.listeners > 0 then
      world.try("try_accept", L.try_accept, r:pick(world.listeners).listener)
    end
    if kind == 6 and r:one_in(10) and #world.listeners > 0 then
      world.try("close", L.close, r:pick(world.listeners).listener)
    end
    if kind == 7 then collectgarbage("step") end
    return true
  end
end

local function open(r)
  local options = { coalesce = r:one_in(3), receive_errors = r:one_in(4) }
  if r:one_in(2) then options.accept = accept_function(r) end
  if r:one_in(2) then options.max_sessions = r:int(1, 4) end
  if r:one_in(2) then options.session_capacity = r:int(1, 5) end
  if r:one_in(2) then options.idle_timeout = r:pick { 1e-6, 0.001, 0.01, 10 } end
  if r:one_in(3) then options.receive_timeout = r:pick { 0, 0.001, 0.01 } end
  local ok, listener = world.try("ip.udp.listen", api.udp.listen, r:pick { "127.0.0.1", "0.0.0.0" }, 0, options)
  if not ok then return nil end
  world.all_listeners[listener] = true
  local list = world.listeners
  if #list >= MOST_LISTENERS then table.remove(list, r:int(1, #list)) end -- collected, at some time
  list[#list + 1] = { listener = listener, port = listener.local_port, peers = {}, seen = {} }
  return list[#list]
end

local function some_listener(r)
  if #world.listeners == 0 or r:one_in(12) then return open(r) end
  return r:pick(world.listeners)
end

local function some_peer(r, entry)
  local peers = entry.peers
  if #peers > 0 and (#peers == MOST_PEERS or not r:one_in(3)) then return r:pick(peers) end
  local ok, sock = world.try("ip.udp.connect", api.udp.connect, "127.0.0.1", entry.port)
  if not ok then return nil end
  peers[#peers + 1] = { sock = sock, port = sock.local_port, number = 0 }
  return peers[#peers]
end

-- Sends some datagrams of a peer. They are small, so the system never refuses them for long.
function actions.peer_sends(r)
  local entry = some_listener(r)
  local peer = entry and some_peer(r, entry)
  if not peer then return end
  for _ = 1, r:int(1, 6) do
    peer.number = peer.number + 1
    local text = ("%d:%d:"):format(peer.port, peer.number)
    world.try("try_send", api.socket.try_send, peer.sock, text .. ("."):rep(r:int(0, 200)))
  end
  if r:one_in(10) then
    table.remove(entry.peers, 1) -- its port is somebody else's by and by
    entry.seen = {}
    for _, other in ipairs(entry.peers) do other.number = other.number + 1000000 end
  end
end

function actions.peer_receives(r)
  local entry = some_listener(r)
  local peer = entry and some_peer(r, entry)
  if not peer then return end
  world.try("receive_string", api.fiber.with_timeout, 0.001, api.socket.receive_string, peer.sock)
end

-- --- accepting ---

local function keep(entry, session)
  local list = world.sessions
  list[#list + 1] = { session = session, entry = entry, port = session.is_open and session.remote_port }
  if #list > MOST_SESSIONS then table.remove(list, 1) end
end

local accepts = {}

function accepts.accept(entry)
  local ok, session = world.try("accept", L.accept, entry.listener)
  if ok then keep(entry, session) end
end

function accepts.try_accept(entry)
  local ok, session, err = world.try("try_accept", L.try_accept, entry.listener)
  if not ok then return end
  if session == nil and err ~= ip.error.EAGAIN then world.fault("try_accept returned nil and " .. tostring(err)) end
  if session then keep(entry, session) end
end

function accepts.sessions(entry, r)
  world.try("sessions", function()
    for session in L.sessions(entry.listener) do
      keep(entry, session)
      if r:one_in(2) then break end
    end
  end)
end

function actions.accept(r)
  local entry = some_listener(r)
  if not entry then return end
  if r:one_in(2) then actions.peer_sends(r) end
  accepts[r:pick { "accept", "try_accept", "try_accept", "sessions" }](entry, r)
end

function actions.listener_property(r)
  local entry = some_listener(r)
  if not entry then return end
  for _, name in ipairs(api.properties.listener) do world.try(name, api.get, "listener", entry.listener, name) end
  if tostring(entry.listener) == "" then world.fault("a listener without text") end
end

function actions.listener_close(r)
  if #world.listeners == 0 then return end
  local entry = table.remove(world.listeners, r:int(1, #world.listeners))
  world.try("close", L.close, entry.listener)
  if entry.listener.is_open then world.fault("a listener is open after close") end
end

-- --- sessions ---

local function some_session(r)
  if #world.sessions == 0 then return nil end
  return r:pick(world.sessions)
end

-- A short buffer cuts what tells the datagrams apart.
local function note(entry, text, peeks)
  local port, number = text:match("^(%d+):(%d+):")
  if port == nil then return end
  if entry.port and tonumber(port) ~= entry.port then
    world.fault(("a session of port %d received a datagram of port %s"):format(entry.port, port))
  end
  if peeks then return end
  local key = port .. ":" .. number
  if entry.entry.seen[key] then world.fault("a session received a datagram twice: " .. key) end
  entry.entry.seen[key] = true
end

local receives = {}

for _, name in ipairs { "receive", "try_receive" } do
  receives[name] = function(r, entry, flags)
    local span = ip.byte_span.new(r:pick { 0, 3, 30, 2000 })
    local ok, n = world.try(name, S[name], entry.session, span, flags)
    if ok and n then note(entry, span:sub(1, n), flags ~= nil) end
  end
end

for _, name in ipairs { "receive_string", "try_receive_string" } do
  receives[name] = function(r, entry, flags)
    local ok, text = world.try(name, S[name], entry.session, r:pick { 0, 30, 70000 }, flags)
    if ok and text then note(entry, text, flags ~= nil) end
  end
end

local receive_names = { "receive", "try_receive", "receive_string", "try_receive_string" }

function actions.session_receive(r)
  local entry = some_session(r)
  if not entry then return end
  for _ = 1, r:int(1, 4) do
    receives[r:pick(receive_names)](r, entry, r:one_in(8) and ip.message_flag.peek or nil)
  end
end

local sends = {}

function sends.send(r) return r:pick { "", "answer", { "a", "b" }, ("z"):rep(66000), 7 } end
function sends.try_send(r) return r:pick { "", "answer", ip.byte_span.new(20) } end

function sends.send_with(r)
  local kind = r:int(1, 4)
  return r:int(0, 100), function()
    if kind == 1 then error("fuzz error: in fill") end
    if kind == 2 then api.fiber.sleep(0.001) end
    if kind == 3 and #world.sessions > 0 then S.close(r:pick(world.sessions).session) end
  end
end

local send_names = { "send", "try_send", "send_with" }

function actions.session_send(r)
  local entry = some_session(r)
  if not entry then return end
  local name = r:pick(send_names)
  world.try(name, S[name], entry.session, sends[name](r))
end

function actions.session_property(r)
  local entry = some_session(r)
  if not entry then return end
  for _, name in ipairs(api.properties.session) do world.try(name, api.get, "session", entry.session, name) end
  if r:one_in(3) then
    world.try("receive_timeout", function() entry.session.receive_timeout = r:pick { 0, 0.001, 1 } end)
  end
  if tostring(entry.session) == "" then world.fault("a session without text") end
end

function actions.session_close(r)
  if #world.sessions == 0 then return end
  local entry = table.remove(world.sessions, r:int(1, #world.sessions))
  if r:one_in(2) then return end -- else the collector closes it
  world.try("close", S.close, entry.session)
  if entry.session.is_open then world.fault("a session is open after close") end
end

return actions
