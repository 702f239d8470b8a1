-- The workloads, in the order in which they run. `driver`: the arguments of the driver (driver/main.c).
-- `baseline`: the contender to which the ratios refer; "self" means the same contender with the first of the
-- `variants`, which are numbers of sockets. `figure`: the figure to compare, "cpu" (the default: the server's
-- nanoseconds per datagram), "rate" or "round_trip". `noise`: one contender under its two names. `one_core`:
-- client and server share a core. `warm_up`: the least number of seconds.

return {
  { id = "echo", title = "Echo, saturated", baseline = "floor-a", noise = { "floor-a again", "floor-a" },
    about = "32 datagrams of 64 bytes are in flight.",
    driver = "echo --in-flight 32 --size 64" },
  { id = "echo-one-core", title = "Echo of 32 at a time, on one core", baseline = "floor-a",
    noise = { "floor-a again", "floor-a" },
    about = "32 datagrams of 64 bytes are in flight; client and server share a core. Whatever its speed, the "
      .. "server finds all 32, sends them back and sleeps.",
    driver = "echo --in-flight 32 --size 64 --client-core 0", one_core = true },
  { id = "ping-pong", title = "Ping-pong on one core", baseline = "floor-a",
    noise = { "floor-a again", "floor-a" },
    about = "One datagram of 64 bytes is in flight; client and server share a core. The server sleeps before "
      .. "each datagram. The client polls and yields (sched_yield).",
    driver = "echo --in-flight 1 --size 64 --client-core 0", one_core = true },
  { id = "sockets", title = "64 sockets", baseline = "floor-a", noise = { "floor-a again", "floor-a" },
    about = "An echo server with 64 sockets; one datagram of 64 bytes is in flight to each of them. lua-ip "
      .. "has one fiber for each socket.",
    driver = "echo --in-flight 64 --size 64 --sockets 64" },
  { id = "many", title = "10,000 sockets", baseline = "self",
    about = "64 datagrams in flight go to 10,000 sockets in rotation; the ratio is to the same server with "
      .. "64 sockets.",
    driver = "echo --in-flight 64 --size 64", variants = { 64, 10000 }, warm_up = 0.2 },
  { id = "receive", title = "Receive only", baseline = "floor-a", noise = { "floor-a again", "floor-a" },
    about = "The client floods the server with 64-byte datagrams from another core. Datagrams that the "
      .. "system drops are not counted. A server that is faster than the client sleeps from time to time, "
      .. "and its wake-ups cost CPU time: read the rates too.",
    driver = "receive --size 64" },
  { id = "receive-one-core", title = "Receive only, on one core", baseline = "floor-a",
    noise = { "floor-a again", "floor-a" },
    about = "64 datagrams of 64 bytes at a time; client and server share a core. The server finds all 64, "
      .. "receives them and sleeps. No datagram is dropped, and no other core uses the socket.",
    driver = "receive --size 64 --client-core 0", one_core = true },
  { id = "send", title = "Send only", baseline = "floor-a-poll", noise = { "floor-a again", "floor-a" },
    about = "The server sends 64-byte datagrams to one peer, which discards them.",
    driver = "send --size 64" },
  { id = "connected", title = "Connected echo", baseline = "floor-a-conn",
    noise = { "floor-a-conn again", "floor-a-conn" },
    about = "The saturated echo, with the server's socket connected to the client.",
    driver = "connected --in-flight 32 --size 64" },
  { id = "bulk", title = "Bulk", baseline = "floor-c", noise = { "floor-c again", "floor-c" },
    figure = "rate", size = 1200,
    about = "The contender sends 1200-byte datagrams to itself at full speed; sender and receiver have a "
      .. "core each. The rate is that of the datagrams that arrived, in Gbit/s. More is better, also for "
      .. "the ratio.",
    driver = "bulk --size 1200" },
  { id = "latency", title = "Round trip between two cores", baseline = "floor-a",
    noise = { "floor-a again", "floor-a" }, figure = "round_trip",
    about = "One datagram of 64 bytes is in flight; client and server have a core each. The figure is the "
      .. "median round-trip time.",
    driver = "echo --in-flight 1 --size 64 --latency 1" },
}
