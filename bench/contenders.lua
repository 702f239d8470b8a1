-- The contenders, in the order of the tables: name, file with arguments, and workloads (workloads.lua).
-- `warm_up`: seconds before the measurement, if a contender needs more than the default. A new contender is a
-- file as README.md describes it, and a line here. `.c` files are compiled and linked with libuv; Lua, Node
-- and Python run the others.

local USUAL = "echo echo-one-core ping-pong receive receive-one-core send"

return {
  { "floor-a", "floors/floor_a.c epoll", USUAL .. " sockets many bulk latency" },
  { "floor-a again", "floors/floor_a.c epoll", USUAL .. " sockets latency" },
  { "floor-a-poll", "floors/floor_a.c poll", USUAL },
  { "floor-a-conn", "floors/floor_a.c connected", USUAL .. " connected" },
  { "floor-a-conn again", "floors/floor_a.c connected", "connected" },
  { "floor-a-spin", "floors/floor_a.c spin", "latency" },
  { "floor-b", "floors/floor_b.c", USUAL .. " bulk" },
  { "floor-c", "floors/floor_c.c", USUAL .. " bulk" },
  { "floor-c again", "floors/floor_c.c", "bulk" },
  { "lua-ip", "contenders/lua_ip.lua", USUAL .. " sockets many connected bulk latency" },
  { "lua-ip (receive_from)", "contenders/lua_ip.lua --calls", "echo echo-one-core ping-pong connected" },
  { "lua-ip (serve)", "contenders/lua_ip.lua --serve", "echo echo-one-core ping-pong sockets connected" },
  { "lua-ip sessions", "contenders/lua_ip_sessions.lua", "echo echo-one-core ping-pong" },
  { "lua-ip coalesce", "contenders/lua_ip.lua --coalesce", USUAL .. " sockets many" },
  { "lua-ip batch", "contenders/lua_ip_batch.lua", USUAL .. " bulk" },
  { "lua-ip batch (every entry read)", "contenders/lua_ip_batch.lua --read", "echo echo-one-core" },
  { "lua-ip GSO/GRO", "contenders/lua_ip_offload.lua", USUAL .. " bulk" },
  { "lua-ip spin", "contenders/lua_ip.lua --spin 0.1", "latency" },
  { "libuv (C)", "contenders/libuv.c", USUAL .. " sockets connected bulk latency" },
  { "luv, callbacks", "contenders/luv.lua", USUAL .. " sockets connected bulk latency" },
  { "luv, coroutines", "contenders/luv_coroutines.lua", USUAL .. " sockets connected bulk" },
  { "LuaSocket (blocking)", "contenders/luasocket.lua", USUAL .. " connected bulk" },
  { "cqueues (connected)", "contenders/cqueues.lua", USUAL .. " sockets connected" },
  { "Node dgram", "contenders/node.js", USUAL .. " sockets connected bulk", warm_up = 0.5 },
  { "Python asyncio", "contenders/python_asyncio.py", USUAL .. " sockets connected bulk" },
}
