-- The targets: workload, contender, baseline, and the largest ratio of the two (with `least`, the smallest).
-- `what` names the target on the page. `why` explains a target that is not met.

return {
  { "echo", "lua-ip", "floor-a", 1.05, what = "echo, one datagram per call" },
  { "echo", "lua-ip coalesce", "floor-a", 0.85, what = "the same in `coalesce` mode" },
  { "echo", "lua-ip sessions", "lua-ip", 1.50, what = "echo through a session of `ip.udp.listen`" },
  { "ping-pong", "lua-ip sessions", "lua-ip", 1.50, what = "the same, one in flight, on one core" },
  { "ping-pong", "lua-ip", "floor-a", 1.03, what = "ping-pong on one core",
    why = "lua-ip makes one system call less than the floor (3 instead of 4), and spends 3,200 more user "
      .. "instructions: 540 in an iteration of libuv's loop, with three reads of the clock; 1,230 in Lua, "
      .. "for resuming, yielding, the program itself and the calls that read its values; 150 in the C "
      .. "library; 1,300 in lua-ip, in some thirty functions, none of which takes more than 125. They run "
      .. "with cold caches, because the process has just slept." },
  { "sockets", "lua-ip", "floor-a", 1.08, what = "64 sockets, 64 fibers" },
  { "receive", "lua-ip", "floor-a", 1.10, what = "receive only",
    why = "one iteration of a `for` loop in Lua takes a thousand user instructions: 0.23 µs on an AMD EPYC, "
      .. "where the system takes 1.5 µs for a receive." },
  { "receive-one-core", "lua-ip", "floor-a", 1.10, what = "receive only, on one core",
    why = "the same thousand user instructions take 0.6 µs there, because the client runs on the core, and "
      .. "uses its caches, in between." },
  { "send", "lua-ip", "floor-a-poll", 1.06, what = "send only",
    why = "a send takes 920 user instructions: 270 for the program in Lua's virtual machine, 350 for the "
      .. "calls that check its five arguments (three classes, a number, a length), 300 in lua-ip and the C "
      .. "library. On an Intel Xeon they take 0.1 µs, and the system 1.1; on an AMD EPYC 0.5 and 4.2." },
  { "connected", "lua-ip", "floor-a-conn", 1.00, what = "connected echo",
    why = "an echo takes about 1,500 user instructions: 500 for the program in Lua's virtual machine, 360 "
      .. "for the calls that read its values, 590 in lua-ip. Unlike the floor, lua-ip removes a busy socket "
      .. "from epoll, which compensates for a part." },
  { "echo", "lua-ip batch", "floor-b", 1.02, what = "batch echo" },
  { "echo", "lua-ip batch (every entry read)", "floor-b", 1.05,
    what = "batch echo, every entry read in Lua" },
  { "echo", "lua-ip GSO/GRO", "floor-c", 1.05, what = "GSO/GRO echo",
    why = "a message takes about 5,400 user instructions: 2,100 for receiving and 1,900 for sending, of "
      .. "which 1,800 read or write the sixteen fields of the `info` table, and 1,400 for the program. The "
      .. "floor takes about 11 µs for a message of 16 datagrams; these instructions take 0.6." },
  { "echo-one-core", "lua-ip", "floor-a", 1.05,
    what = "echo, one datagram per call, 32 at a time on one core",
    why = "an echo takes 1,600 user instructions, as between two cores, where the system's part takes half "
      .. "as much time again." },
  { "echo-one-core", "lua-ip coalesce", "floor-a", 0.85,
    what = "`coalesce` mode, 32 at a time on one core" },
  { "echo-one-core", "lua-ip batch", "floor-b", 1.02, what = "batch echo, 32 at a time on one core" },
  { "echo-one-core", "lua-ip batch (every entry read)", "floor-b", 1.05,
    what = "batch echo, every entry read in Lua, 32 at a time on one core" },
  { "echo-one-core", "lua-ip GSO/GRO", "floor-c", 1.05, what = "GSO/GRO echo, 32 at a time on one core",
    why = "a message takes the same 5,400 instructions, and only 7.5 µs in the floor." },
  { "bulk", "lua-ip GSO/GRO", "floor-c", 0.95, least = true, what = "GSO/GRO bulk rate" },
  { "many", "lua-ip, 10000 sockets", "lua-ip, 64 sockets", 1.15, what = "10,000 sockets, cost per datagram",
    why = "a datagram touches 31 cache lines that belong to its own socket, fiber and coroutine (libuv's "
      .. "handle, the socket, the operation, Lua's thread with its stack and call records, the loop, the "
      .. "buffer). Up to about 2,000 sockets these lines stay in a second-level cache of 2 MiB, and the "
      .. "ratio is 1.06; with more sockets they do not. The floor, which has no state per socket, is at "
      .. "1.13. Prefetching the lines gained 2 %." },
  { "latency", "lua-ip spin", "floor-a-spin", 1.30,
    what = "round trip with `loop.spin`, against a server that spins" },
  { "latency", "lua-ip spin", "floor-a", 0.33,
    what = "round trip with `loop.spin`, against a server that sleeps",
    why = "how much a spinning server saves is a matter of the machine: the C server that spins "
      .. "(floor-a-spin), which is the limit for lua-ip, was at 0.18 of the one that sleeps on an Intel Xeon, and "
      .. "is at 0.47 on an AMD EPYC." },
}
