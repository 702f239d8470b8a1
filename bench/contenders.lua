-- The contenders: name, file with its arguments, and the workloads (workloads.lua) that it takes part in. A new one is a file
-- that answers as README.md says, and a line here. `.c` is compiled and linked with libuv, `.lua`, `.js` and `.py` are run by
-- Lua, Node and Python. The first column of docs/benchmarks.md is in this order.

return {
  { "floor-a", "floors/floor_a.c epoll", "echo ping-pong sockets many receive send bulk latency" },
  { "floor-a again", "floors/floor_a.c epoll", "echo ping-pong sockets receive send latency" },
  { "floor-a-poll", "floors/floor_a.c poll", "echo ping-pong receive send" },
  { "floor-a-conn", "floors/floor_a.c connected", "echo ping-pong receive send connected" },
  { "floor-a-conn again", "floors/floor_a.c connected", "connected" },
  { "floor-a-spin", "floors/floor_a.c spin", "latency" },
  { "floor-b", "floors/floor_b.c", "echo ping-pong receive send bulk" },
  { "floor-c", "floors/floor_c.c", "echo ping-pong receive send bulk" },
  { "lua-ip", "contenders/lua_ip.lua", "echo ping-pong sockets many receive send connected bulk latency" },
  { "lua-ip coalesce", "contenders/lua_ip.lua --coalesce", "echo ping-pong sockets receive send" },
  { "lua-ip batch", "contenders/lua_ip_batch.lua", "echo ping-pong receive send bulk" },
  { "lua-ip batch, every entry read", "contenders/lua_ip_batch.lua --read", "echo" },
  { "lua-ip GSO/GRO", "contenders/lua_ip_offload.lua", "echo ping-pong receive send bulk" },
  { "lua-ip spin", "contenders/lua_ip.lua --spin 0.1", "latency" },
}
