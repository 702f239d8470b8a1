#!/bin/sh
# test.sh [--sanitize | --valgrind | --coverage] [SPEC...]: installs what is missing, builds with warnings as errors,
# runs luacheck, the source invariants and all specs (or those named), and ends with a line `N passed, N failed`.
#   --sanitize   the same under AddressSanitizer and UndefinedBehaviorSanitizer
#   --valgrind   the same under valgrind
#   --coverage   and prints which lines of C the specs have run (needs gcov)

mode=plain
case ${1:-} in
--sanitize | --valgrind | --coverage)
  mode=${1#--}
  shift
  ;;
--*)
  echo "usage: sh scripts/test.sh [--sanitize | --valgrind | --coverage] [SPEC...]" >&2
  exit 2
  ;;
esac

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

# Runs busted; prints what it prints and, last, the line `N passed, N failed`.
run_specs() {
  report=$(mktemp)
  status=0
  "$@" >"$report" 2>&1 || status=$?
  cat "$report"
  summary=$(sed 's/\x1b\[[0-9;]*m//g' "$report" | grep -E '^[0-9]+ success(es)? / ' | tail -n 1)
  rm -f "$report"
  if [ -z "$summary" ]; then
    echo "busted did not finish (exit code $status)" >&2
    echo "0 passed, 1 failed"
    exit 1
  fi
  # "157 successes / 0 failures / 0 errors / 0 pending : 1.29 seconds"
  set -- $(echo "$summary" | tr -cd '0-9 \n')
  failed=$(($2 + $3))
  [ "$status" = 0 ] || [ "$failed" -gt 0 ] || failed=1
  echo "$1 passed, $failed failed, $4 skipped"
  [ "$failed" = 0 ]
}

export LUA_IP_MODE="$mode"
say "specs ($mode)"
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
  (cd build-coverage && gcov -n $(find . -name '*.gcda') 2>/dev/null | grep -A1 "File '.*/src/" | grep -v '^--')
fi
