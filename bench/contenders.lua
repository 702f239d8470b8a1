-- The contenders: name, file with its arguments, and the workloads (workloads.lua) that it takes part in. A new one is a file
-- that answers as README.md says, and a line here. `.c` is compiled and linked with libuv, `.lua`, `.js` and `.py` are run by
-- Lua, Node and Python. The first column of docs/benchmarks.md is in this order.

return {
  { "floor-a", "floors/floor_a.c epoll", "echo ping-pong sockets many receive receive-one-core send bulk latency" },
  { "floor-a again", "floors/floor_a.c epoll", "echo ping-pong sockets receive receive-one-core send latency" },
  { "floor-a-poll", "floors/floor_a.c poll", "echo ping-pong receive receive-one-core send" },
  { "floor-a-conn", "floors/floor_a.c connected", "echo ping-pong receive receive-one-core send connected" },
  { "floor-a-conn again", "floors/floor_a.c connected", "connected" },
  { "floor-a-spin", "floors/floor_a.c spin", "latency" },
  { "floor-b", "floors/floor_b.c", "echo ping-pong receive receive-one-core send bulk" },
  { "floor-c", "floors/floor_c.c", "echo ping-pong receive receive-one-core send bulk" },
  { "lua-ip", "contenders/lua_ip.lua", "echo ping-pong sockets many receive receive-one-core send connected bulk latency" },
  { "lua-ip coalesce", "contenders/lua_ip.lua --coalesce", "echo ping-pong sockets receive receive-one-core send" },
  { "lua-ip batch", "contenders/lua_ip_batch.lua", "echo ping-pong receive receive-one-core send bulk" },
  { "lua-ip batch, every entry read", "contenders/lua_ip_batch.lua --read", "echo" },
  { "lua-ip GSO/GRO", "contenders/lua_ip_offload.lua", "echo ping-pong receive receive-one-core send bulk" },
  { "lua-ip spin", "contenders/lua_ip.lua --spin 0.1", "latency" },
  { "libuv (C)", "contenders/libuv.c", "echo ping-pong sockets receive receive-one-core send connected bulk latency" },
  { "luv, callbacks", "contenders/luv.lua", "echo ping-pong sockets receive receive-one-core send connected bulk latency" },
  { "luv, coroutines", "contenders/luv_coroutines.lua", "echo ping-pong sockets receive receive-one-core send connected bulk" },
  { "LuaSocket (blocking)", "contenders/luasocket.lua", "echo ping-pong receive receive-one-core send connected bulk" },
  { "cqueues (connected)", "contenders/cqueues.lua", "echo ping-pong sockets receive receive-one-core send connected" },
  { "Node dgram", "contenders/node.js", "echo ping-pong sockets receive receive-one-core send connected bulk" },
  { "Python asyncio", "contenders/python_asyncio.py", "echo ping-pong sockets receive receive-one-core send connected bulk" },
}
