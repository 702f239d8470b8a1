#!/bin/sh
# test.sh [--quick] [--sanitize | --valgrind | --coverage] [SPEC...]: installs what is missing, builds with warnings as
# errors, runs luacheck, the source invariants and all specs (or those named), and ends with a line
# `N passed, N failed, N skipped`.
#   --quick      without the slow specs, those tagged #slow
#   --sanitize   the same under AddressSanitizer and UndefinedBehaviorSanitizer
#   --valgrind   the same under valgrind
#   --coverage   and prints which lines of C the specs have run (needs gcov)

usage() {
  echo "usage: sh scripts/test.sh [--quick] [--sanitize | --valgrind | --coverage] [SPEC...]" >&2
  exit 2
}

mode=plain
quick=
while :; do
  case ${1:-} in
  --quick) quick=1 ;;
  --sanitize | --valgrind | --coverage)
    [ "$mode" = plain ] || usage
    mode=${1#--}
    ;;
  -*) usage ;;
  *) break ;;
  esac
  shift
done

. "$(dirname -- "$0")/lib.sh"
ensure_packages test
ensure_chronyd

case $mode in
plain) build build -DIP_WARNINGS_AS_ERRORS=ON -DIP_HOST_PROGRAMS=ON ;;
sanitize) build build-sanitize -DIP_WARNINGS_AS_ERRORS=ON -DIP_HOST_PROGRAMS=ON -DIP_SANITIZE=ON ;;
valgrind) build build-valgrind -DIP_WARNINGS_AS_ERRORS=ON -DIP_HOST_PROGRAMS=ON -DCMAKE_BUILD_TYPE=Debug ;;
coverage) build build-coverage -DIP_WARNINGS_AS_ERRORS=ON -DIP_HOST_PROGRAMS=ON -DIP_COVERAGE=ON -DCMAKE_BUILD_TYPE=Debug ;;
esac

say "luacheck"
luacheck -q lua spec examples bench
say "invariants"
sh scripts/invariants.sh
if [ "$mode" = plain ]; then sh scripts/lint.sh; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# show COMMAND...: runs it, prints what it prints while it runs, keeps that in $work/report, and sets `status` to its
# exit code. A process that it has left behind may hold the pipe open: nobody waits for that one.
show() {
  status=0
  mkfifo "$work/pipe"
  tee "$work/report" <"$work/pipe" &
  reader=$!
  "$@" >"$work/pipe" 2>&1 || status=$?
  (sleep 5 && kill "$reader") >/dev/null 2>&1 &
  watchdog=$!
  wait "$reader" 2>/dev/null || true
  kill "$watchdog" 2>/dev/null || true
}

# Runs busted; sets `summary` to the line `N passed, N failed, N skipped`, and `failed` to the second number.
run_specs() {
  show "$@"
  counts=$(sed 's/\x1b\[[0-9;]*m//g' "$work/report" | grep -E '^[0-9]+ success(es)? / ' | tail -n 1)
  if [ -z "$counts" ]; then
    echo
    echo "busted did not finish (exit code $status)" >&2
    failed=1
    summary="0 passed, 1 failed, 0 skipped"
    return
  fi
  # "157 successes / 0 failures / 0 errors / 0 pending : 1.29 seconds"
  set -- $(echo "$counts" | tr -cd '0-9 \n')
  failed=$(($2 + $3))
  [ "$status" = 0 ] || [ "$failed" -gt 0 ] || failed=1
  summary="$1 passed, $failed failed, $4 skipped"
}

set -- ${quick:+--run=quick} "$@"
export LUA_IP_MODE="$mode"
say "specs ($mode${quick:+, quick})"
case $mode in
sanitize)
  # The interpreter is not instrumented, so the sanitizer's library has to come first. Lua itself closes its state in
  # every case that the specs do not break on purpose, so what is reported as leaked is a leak.
  LD_PRELOAD="$(cc -print-file-name=libasan.so) $(cc -print-file-name=libubsan.so)"
  ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:exitcode=99"
  UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
  run_specs env LD_PRELOAD="$LD_PRELOAD" ASAN_OPTIONS="$ASAN_OPTIONS" \
    UBSAN_OPTIONS="$UBSAN_OPTIONS" busted --lua="$(command -v "$LUA_IP_LUA")" "$@"
  ;;
valgrind)
  run_specs busted --lua="$project/scripts/valgrind-lua.sh" "$@"
  ;;
*)
  run_specs busted --lua="$(command -v "$LUA_IP_LUA")" "$@"
  ;;
esac

if [ "$mode" = coverage ]; then
  say "coverage (lines of C run by the specs)"
  (cd build-coverage && gcov -n $(find . -name '*.gcda') 2>/dev/null | grep -A1 "File '.*/src/" | grep -v '^--') || true
fi

echo "$summary"
[ "$failed" = 0 ]
