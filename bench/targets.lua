-- What is aimed at: workload, contender, the one that it is compared with, and the ratio: at most, or with `least` at
-- least.

return {
  { "echo", "lua-ip", "floor-a", 1.05, what = "echo, one datagram per call" },
  { "echo", "lua-ip coalesce", "floor-a", 0.85, what = "the same in `coalesce` mode" },
  { "ping-pong", "lua-ip", "floor-a", 1.03, what = "ping-pong on one core" },
  { "sockets", "lua-ip", "floor-a", 1.08, what = "64 sockets, 64 fibers" },
  { "receive", "lua-ip", "floor-a", 1.10, what = "receive only" },
  { "receive-one-core", "lua-ip", "floor-a", 1.10, what = "receive only, on one core" },
  { "send", "lua-ip", "floor-a-poll", 1.06, what = "send only" },
  { "connected", "lua-ip", "floor-a-conn", 1.00, what = "connected echo" },
  { "echo", "lua-ip batch", "floor-b", 1.02, what = "batch echo" },
  { "echo", "lua-ip batch (every entry read)", "floor-b", 1.05, what = "batch echo, every entry read in Lua" },
  { "echo", "lua-ip GSO/GRO", "floor-c", 1.05, what = "GSO/GRO echo" },
  { "echo-one-core", "lua-ip", "floor-a", 1.05, what = "echo, one datagram per call, 32 at a time on one core" },
  { "echo-one-core", "lua-ip coalesce", "floor-a", 0.85, what = "likewise in `coalesce` mode" },
  { "echo-one-core", "lua-ip batch", "floor-b", 1.02, what = "likewise with batches" },
  { "echo-one-core", "lua-ip batch (every entry read)", "floor-b", 1.05, what = "likewise, every entry read in Lua" },
  { "echo-one-core", "lua-ip GSO/GRO", "floor-c", 1.05, what = "likewise with GSO/GRO" },
  { "bulk", "lua-ip GSO/GRO", "floor-c", 0.95, least = true, what = "GSO/GRO bulk rate" },
  { "many", "lua-ip, 10000 sockets", "lua-ip, 64 sockets", 1.15, what = "10,000 sockets, cost per datagram" },
}
