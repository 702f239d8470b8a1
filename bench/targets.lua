-- What is aimed at: workload, contender, the one that it is compared with, and the ratio: at most, or with
-- `least` at least. `why`: what the page says where it is not met.

return {
  { "echo", "lua-ip", "floor-a", 1.05, what = "echo, one datagram per call" },
  { "echo", "lua-ip coalesce", "floor-a", 0.85, what = "the same in `coalesce` mode" },
  { "ping-pong", "lua-ip", "floor-a", 1.03, what = "ping-pong on one core",
    why = "one system call less than the floor (3 instead of 4), and 3,200 user instructions more: 540 libuv's "
      .. "turn, with three looks at the clock; 1,230 Lua's, for resuming, yielding, the program itself and the "
      .. "calls that look at its values; 150 the C library's; 1,300 ours, in some thirty functions of which none "
      .. "takes more than 125. They run with cold caches, as the process has just slept." },
  { "sockets", "lua-ip", "floor-a", 1.08, what = "64 sockets, 64 fibers" },
  { "receive", "lua-ip", "floor-a", 1.10, what = "receive only" },
  { "receive-one-core", "lua-ip", "floor-a", 1.10, what = "receive only, on one core",
    why = "a receive alone costs the system a third of a microsecond here; the thousand instructions of one "
      .. "turn of a `for` loop in Lua take a tenth." },
  { "send", "lua-ip", "floor-a-poll", 1.06, what = "send only",
    why = "920 user instructions a send: 270 the program in Lua's virtual machine, 350 the calls that look at "
      .. "its five arguments (three classes, a number, a length), 300 ours and the C library's. They take a "
      .. "tenth of a microsecond, where the system's part is 1.1." },
  { "connected", "lua-ip", "floor-a-conn", 1.00, what = "connected echo",
    why = "about 1,500 user instructions an echo: 500 the program in Lua's virtual machine, 360 the calls that "
      .. "look at its values, 590 ours. That it leaves epoll while it is busy, and the floor does not, makes "
      .. "up for a part." },
  { "echo", "lua-ip batch", "floor-b", 1.02, what = "batch echo" },
  { "echo", "lua-ip batch (every entry read)", "floor-b", 1.05, what = "batch echo, every entry read in Lua" },
  { "echo", "lua-ip GSO/GRO", "floor-c", 1.05, what = "GSO/GRO echo",
    why = "about 5,400 user instructions a message: 2,100 receiving and 1,900 sending, of which 1,800 are for "
      .. "the sixteen fields of the `info` table that are written or looked at, and 1,400 the program. A "
      .. "message of 16 datagrams costs the floor about 11 µs; this is 0.6." },
  { "echo-one-core", "lua-ip", "floor-a", 1.05, what = "echo, one datagram per call, 32 at a time on one core",
    why = "1,600 user instructions, as in the echo between two cores, where the system's part costs half as much "
      .. "again." },
  { "echo-one-core", "lua-ip coalesce", "floor-a", 0.85, what = "likewise in `coalesce` mode" },
  { "echo-one-core", "lua-ip batch", "floor-b", 1.02, what = "likewise with batches" },
  { "echo-one-core", "lua-ip batch (every entry read)", "floor-b", 1.05, what = "likewise, every entry read in Lua" },
  { "echo-one-core", "lua-ip GSO/GRO", "floor-c", 1.05, what = "likewise with GSO/GRO",
    why = "the same 5,400 instructions, where a message costs the floor 7.5 µs." },
  { "bulk", "lua-ip GSO/GRO", "floor-c", 0.95, least = true, what = "GSO/GRO bulk rate" },
  { "many", "lua-ip, 10000 sockets", "lua-ip, 64 sockets", 1.15, what = "10,000 sockets, cost per datagram",
    why = "a datagram touches 31 lines of memory that belong to its own socket, fiber and coroutine (libuv's "
      .. "handle, the socket, the operation, Lua's thread with its stack and call records, the loop, the buffer). "
      .. "Up to about 2,000 sockets they stay in a second-level cache of 2 MiB, and the ratio is 1.06; beyond that"
      .. " none does. The floor, which keeps nothing per socket, is at 1.13. Asking the processor for them ahead "
      .. "of time gained 2 %." },
  { "latency", "lua-ip spin", "floor-a-spin", 1.30, what = "round trip with `loop.spin`, against a server that spins" },
  { "latency", "lua-ip spin", "floor-a", 0.33, what = "round trip with `loop.spin`, against one that sleeps" },
}
