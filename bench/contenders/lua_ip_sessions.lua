--- lua-ip, one fiber for each peer: lua_ip_sessions.lua [--coalesce] ROLE PEER_PORT SOCKETS

local byte_span = require "byte_span"
local ip = require "ip"
local fiber = ip.fiber

local CAPACITY = 2048

local coalesce = arg[1] == "--coalesce"
if coalesce then table.remove(arg, 1) end
if arg[1] ~= "echo" or not ip.udp.listen then
  print("unavailable: sessions echo, in versions that have them")
  os.exit(0, true)
end

local function echo(session)
  local buf = byte_span.new(CAPACITY)
  while true do
    session:send(buf:resize(session:receive(buf:resize(CAPACITY))))
  end
end

local listener = ip.udp.listen("127.0.0.1", 0, { coalesce = coalesce, session_capacity = 1000 })
print("port " .. listener.local_port)
print "ready"
io.stdout:flush()
fiber.run(function()
  for session in listener:sessions() do fiber.spawn(echo, session) end
end)
