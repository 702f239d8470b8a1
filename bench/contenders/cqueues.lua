--- cqueues: cqueues.lua ROLE PEER_PORT SOCKETS. Its sockets have a single peer, so they are connected in all
--- roles.

local cqueues = require "cqueues"
local socket = require "cqueues.socket"

local role, peer_port, sockets = arg[1], tonumber(arg[2]), tonumber(arg[3])

local LARGEST = -65535 -- negative: a read of at most so many bytes, which is one datagram

local function open()
  local sock = socket.connect { host = "127.0.0.1", port = peer_port, type = socket.SOCK_DGRAM }
  sock:setmode("bn", "bn")
  assert(sock:connect())
  local _, _, port = sock:localname()
  print("port " .. math.tointeger(port))
  return sock
end

local roles = {}

function roles.echo(sock)
  while true do sock:xwrite(sock:xread(LARGEST, "bn"), "bn") end
end
roles.connected = roles.echo
roles.sockets = roles.echo

function roles.receive(sock)
  local total = 0
  while true do
    if #sock:xread(LARGEST, "bn") > 1 then
      total = total + 1
    else
      sock:xwrite(tostring(total), "bn")
      total = 0
    end
  end
end

function roles.send(sock)
  while true do
    local count, size = sock:xread(LARGEST, "bn"):match("^(%d+) (%d+)")
    local payload = ("\0"):rep(tonumber(size))
    for _ = 1, tonumber(count) do sock:xwrite(payload, "bn") end
    sock:xwrite("done", "bn")
  end
end

local loop = cqueues.new()
for _ = 1, role == "sockets" and sockets or 1 do
  local sock = open()
  loop:wrap(function() roles[role](sock) end)
end
print "ready"
io.stdout:flush()
assert(loop:loop())
