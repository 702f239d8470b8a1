#!/bin/sh
# run.sh [--quick]: what an echo costs the server, ours against a floor in C on the same machine. Rounds are interleaved;
# the figures are the server's CPU time (user and system, /proc/PID/schedstat), and ratios are medians of the ratios
# within each round. The floor runs under two names: their ratio is the noise. Linux, two cores.

. "$(dirname -- "$0")/../scripts/lib.sh"
ensure_packages build
build build

rounds=11 count=200000
[ "${1:-}" != --quick ] || { rounds=5; count=50000; }

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
cc -O2 -D_GNU_SOURCE -o "$work/floor_echo" bench/floor_echo.c
cc -O2 -D_GNU_SOURCE -o "$work/load" bench/load.c

# cost COMMAND...: starts a server on core 0, loads it from core 1, prints its CPU nanoseconds per echo.
cost() {
  taskset -c 0 "$@" >"$work/output" &
  server=$!
  until grep -q '^listening on' "$work/output"; do sleep 0.05; done
  port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$work/output" | head -n 1)
  taskset -c 1 "$work/load" "$port" "$in_flight" 64 2000 >/dev/null
  before=$(cut -d' ' -f1 "/proc/$server/schedstat")
  taskset -c 1 "$work/load" "$port" "$in_flight" 64 "$count" >"$work/load.output"
  after=$(cut -d' ' -f1 "/proc/$server/schedstat")
  kill "$server"
  wait "$server" 2>/dev/null || true
  server=
  echo $(((after - before) / count))
}

echo "$(uname -sr), $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $("$LUA_IP_LUA" -v 2>&1 | cut -d' ' -f1,2)"
for in_flight in 32 1; do
  : >"$work/rows"
  round=1
  while [ "$round" -le "$rounds" ]; do
    floor=$(cost "$work/floor_echo")
    ours=$(cost "$LUA_IP_LUA" examples/echo_server.lua --port 0)
    again=$(cost "$work/floor_echo")
    echo "$floor $ours $again" >>"$work/rows"
    [ ! -t 2 ] || printf '\rround %d of %d' "$round" "$rounds" >&2
    round=$((round + 1))
  done
  [ ! -t 2 ] || printf '\r\033[K' >&2
  "$LUA_IP_LUA" bench/summary.lua "$in_flight" <"$work/rows"
done
