#!/bin/sh
# fuzz.sh [--plain] [--faults] [SECONDS [SEED]]: plays random programs against the whole API (spec/fuzz) until the
# seconds are over (default 60), each run in a process of its own with the next seed (default: the time),
# built with AddressSanitizer and UndefinedBehaviorSanitizer. Prints what each run has done, and a summary.
# Exit code 0: no fault was found.
#   --plain            without the sanitizers
#   --faults           while system calls and allocations fail (spec/host/faulty_system.c says which, and how); Linux
#   FAULTS_TRACE=1     prints each fault when it happens
#   FUZZ_STEPS=1500    steps of a run
#   FUZZ_WITHOUT=a,b   leaves out actions by name (`lua5.4 spec/fuzz/run.lua --list` prints the names)
#   FUZZ_ONLY=a,b      plays these actions alone
#   FUZZ_KEEP_GOING=1  goes on after a fault, to count them

mode=sanitize faults=
while :; do
  case ${1:-} in
  --plain) mode=plain ;;
  --faults) faults=1 ;;
  *) break ;;
  esac
  shift
done
seconds=${1:-60}
seed=${2:-$(date +%s)}

. "$(dirname -- "$0")/lib.sh"
ensure_packages build

case $mode in
plain) build build -DIP_WARNINGS_AS_ERRORS=ON -DIP_HOST_PROGRAMS=ON ;;
sanitize)
  build build-sanitize -DIP_WARNINGS_AS_ERRORS=ON -DIP_HOST_PROGRAMS=ON -DIP_SANITIZE=ON
  # The interpreter is not instrumented, so the sanitizer's library has to come first: in the run, not in the
  # watchdog.
  FUZZ_PRELOAD="$(cc -print-file-name=libasan.so) $(cc -print-file-name=libubsan.so)"
  export FUZZ_PRELOAD
  export ASAN_OPTIONS="detect_leaks=1:handle_abort=1:exitcode=99:allocator_may_return_null=1"
  export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
  ;;
esac

host=$LUA_IP_LUA
if [ -n "$faults" ]; then
  host=$LUA_IP_BUILD/fuzz_host
  FUZZ_PRELOAD="${FUZZ_PRELOAD:-} $LUA_IP_BUILD/faulty_system.so"
  export FUZZ_PRELOAD LUA_CPATH="$LUA_IP_BUILD/faulty/?.so;;"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Few descriptors make their shortage cheap to bring about (spec/fuzz/actions_descriptor.lua).
ulimit -n 200
# A fault of the interpreter leaves no file behind.
ulimit -c 0

first=$seed runs=0 steps=0 calls=0 failures=0 failed=0 system=0 short=0 allocations=0
end=$(($(date +%s) + seconds))
while [ "$(date +%s)" -lt "$end" ]; do
  : >"$work/log"
  status=0
  set -- "$host" spec/fuzz/run.lua "$seed" "${FUZZ_STEPS:-1500}" "$work/log"
  sh spec/fuzz/watchdog.sh 20 "$work/log" "$@" >"$work/output" 2>&1 || status=$?
  runs=$((runs + 1))
  set -- $(sed -n 's/^seed [0-9]*: \([0-9]*\) steps, \([0-9]*\) calls.*/\1 \2/p' "$work/output") 0 0
  steps=$((steps + $1)) calls=$((calls + $2))
  set -- $(sed -n 's/^faults: \([0-9]*\) of \([0-9]*\) system.*; \([0-9]*\) of \([0-9]*\) allocations.*/\1 \2 \3 \4/p' \
    "$work/output") 0 0 0 0
  failed=$((failed + $1)) system=$((system + $2)) short=$((short + $3)) allocations=$((allocations + $4))
  grep -aE '^(seed|calls|faults)' "$work/output" || true
  if [ "$status" != 0 ]; then
    failures=$((failures + 1))
    echo "== seed $seed: exit code $status (again: sh scripts/fuzz.sh${faults:+ --faults} 1 $seed); its last steps:"
    tail -n 30 "$work/log"
    echo "== seed $seed: its output:"
    tail -n 80 "$work/output"
    [ -n "${FUZZ_KEEP_GOING:-}" ] || break
  fi
  seed=$((seed + 1))
done

last=$((first + runs - 1))
if [ -n "$faults" ]; then
  echo "fuzz: $failed of $system system calls and $short of $allocations allocations failed"
fi
if [ "$failures" != 0 ]; then
  echo "fuzz: $runs runs, $steps steps, $calls calls, seeds $first..$last, $failures faults"
  exit 1
fi
echo "fuzz: $runs runs, $steps steps, $calls calls, seeds $first..$last, no fault"
