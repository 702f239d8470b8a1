#!/bin/sh
# watchdog.sh SECONDS LOG COMMAND...: runs the command, and ends it when LOG has not grown for that many
# seconds. Then it asks for a traceback of Lua with SIGINT, for one of C with SIGABRT, and prints the last
# lines of the log. Exit code: the command's, or 124 for a hang.
set -u
patience=$1 log=$2
shift 2

env ${FUZZ_PRELOAD:+LD_PRELOAD="$FUZZ_PRELOAD"} "$@" </dev/null &
child=$!

size_of() {
  wc -c <"$log" 2>/dev/null || echo 0
}

# alive: has it not ended? A zombie has.
alive() {
  state=$(sed 's/.*) //; s/ .*//' "/proc/$child/stat" 2>/dev/null) || return 1
  [ -n "$state" ] && [ "$state" != Z ]
}

waits() { # SECONDS: until it ends, at most so long
  i=$(($1 * 5))
  while alive && [ "$i" -gt 0 ]; do
    sleep 0.2
    i=$((i - 1))
  done
  ! alive
}

idle=0 last=
while alive; do
  sleep 0.2
  now=$(size_of)
  if [ "$now" = "$last" ]; then idle=$((idle + 1)); else idle=0; fi
  last=$now
  [ "$idle" -ge $((patience * 5)) ] || continue
  echo "HANG: the log has not grown for $patience seconds"
  kill -INT "$child"
  if ! waits 3; then
    kill -ABRT "$child"
    waits 10 || kill -KILL "$child"
  fi
  wait "$child" 2>/dev/null
  exit 124
done
wait "$child"
