-- The workloads, in the order in which they run. `driver` is what the driver is told (driver/main.c).
-- `baseline` is the contender that the ratios are to, "self" the same one with the first of the `variants`,
-- numbers of sockets. `figure` is what counts: "cpu" (the default: nanoseconds of the server per datagram),
-- "rate" or "round_trip". `noise` is one contender under its two names. `one_core`: client and server share a
-- core. `warm_up`: seconds, at least.

return {
  { id = "echo", title = "Echo, saturated", baseline = "floor-a", noise = { "floor-a again", "floor-a" },
    about = "32 datagrams of 64 bytes on their way.",
    driver = "echo --in-flight 32 --size 64" },
  { id = "echo-one-core", title = "Echo of 32 at a time, on one core", baseline = "floor-a",
    noise = { "floor-a again", "floor-a" },
    about = "32 datagrams of 64 bytes on their way, client and server on the same core: the server finds all 32, sends "
      .. "them back and sleeps, however fast it is.",
    driver = "echo --in-flight 32 --size 64 --client-core 0", one_core = true },
  { id = "ping-pong", title = "Ping-pong on one core", baseline = "floor-a", noise = { "floor-a again", "floor-a" },
    about = "One datagram of 64 bytes on its way, client and server on the same core: the server sleeps before each. "
      .. "The client polls and gives way (sched_yield).",
    driver = "echo --in-flight 1 --size 64 --client-core 0", one_core = true },
  { id = "sockets", title = "64 sockets", baseline = "floor-a", noise = { "floor-a again", "floor-a" },
    about = "An echo on 64 sockets of one server, one datagram of 64 bytes on its way to each; ours has a fiber "
      .. "for each.",
    driver = "echo --in-flight 64 --size 64 --sockets 64" },
  { id = "many", title = "10,000 sockets", baseline = "self",
    about = "64 datagrams on their way go round 10,000 sockets; the ratio is to the same server with 64 sockets.",
    driver = "echo --in-flight 64 --size 64", variants = { 64, 10000 }, warm_up = 0.2 },
  { id = "receive", title = "Receive only", baseline = "floor-a", noise = { "floor-a again", "floor-a" },
    about = "The client floods the server with 64-byte datagrams from another core; what the system drops is not "
      .. "counted. A server that keeps up sleeps now and then, and waking up costs: read the rates too.",
    driver = "receive --size 64" },
  { id = "receive-one-core", title = "Receive only, on one core", baseline = "floor-a",
    noise = { "floor-a again", "floor-a" },
    about = "64 datagrams of 64 bytes at a time, client and server on the same core: the server finds all 64, takes "
      .. "them and sleeps. Nothing is dropped, and nobody on another core disturbs the socket.",
    driver = "receive --size 64 --client-core 0", one_core = true },
  { id = "send", title = "Send only", baseline = "floor-a-poll", noise = { "floor-a again", "floor-a" },
    about = "The server sends 64-byte datagrams to one peer, which discards them.",
    driver = "send --size 64" },
  { id = "connected", title = "Connected echo", baseline = "floor-a-conn",
    noise = { "floor-a-conn again", "floor-a-conn" },
    about = "As the saturated echo, the server's socket connected to the client.",
    driver = "connected --in-flight 32 --size 64" },
  { id = "bulk", title = "Bulk", baseline = "floor-c", noise = { "floor-c again", "floor-c" },
    figure = "rate", size = 1200,
    about = "1200-byte datagrams as fast as they go, sender and receiver both the contender, on a core each; what "
      .. "arrived, in Gbit/s. More is better, also for the ratio.",
    driver = "bulk --size 1200" },
  { id = "latency", title = "Round trip between two cores", baseline = "floor-a",
    noise = { "floor-a again", "floor-a" }, figure = "round_trip",
    about = "One datagram of 64 bytes on its way, client and server on different cores; the median round trip's "
      .. "time.",
    driver = "echo --in-flight 1 --size 64 --latency 1" },
}
