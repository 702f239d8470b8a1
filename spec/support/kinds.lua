--- The three kinds of sockets that much is promised for: v4, v6, and dual-stack with a v4 peer.

local ip = require "ip"

local kinds = {}

---@class kind
---@field name string
---@field family "v4"|"v6" of the socket
---@field peer_family "v4"|"v6"
---@field any string the address that it is bound to
---@field loopback string the address that its datagrams are sent to
---@field seen string that address as the socket's own family has it
---@field largest integer the most bytes of a datagram
---@field icmp string the origin of errors that the network reports

---@type kind[]
kinds.all = {
  { name = "v4", family = "v4", peer_family = "v4", any = "0.0.0.0", loopback = "127.0.0.1", seen = "127.0.0.1",
    largest = 65507, icmp = "icmp" },
  { name = "v6", family = "v6", peer_family = "v6", any = "::", loopback = "::1", seen = "::1",
    largest = 65527, icmp = "icmp6" },
  { name = "dual-stack with a v4 peer", family = "v6", peer_family = "v4", any = "::", loopback = "127.0.0.1",
    seen = "::ffff:127.0.0.1", largest = 65507, icmp = "icmp" },
}

--- A socket of a kind with these options, bound to a port that the system chose, and that port.
---@param kind kind
---@param options table<string, any>?
function kinds.open(kind, options)
  local sock = ip.udp.socket.new()
  sock:open(kind.family)
  if kind.family == "v6" then sock:set_option("v6_only", false) end
  for name, value in pairs(options or {}) do sock:set_option(name, value) end
  sock:bind(kind.any, 0)
  sock.receive_timeout = 2
  return sock, sock.local_port
end

--- The same with the option coalesce on.
function kinds.coalescing(kind, options)
  local all = { coalesce = true }
  for name, value in pairs(options or {}) do all[name] = value end
  return kinds.open(kind, all)
end

--- `count` texts of `size` bytes, each different, the last one shorter; and all of them joined.
function kinds.segments(count, size)
  local list = {}
  for i = 1, count do list[i] = ("%04d"):format(i) .. ("abcdefgh"):rep(size):sub(1, size - 4) end
  list[count] = list[count]:sub(1, size - 1)
  return list, table.concat(list)
end

return kinds
