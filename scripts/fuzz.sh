#!/bin/sh
# fuzz.sh [--plain] [SECONDS [SEED]]: plays random programs against the whole API (spec/fuzz) until the seconds are
# over, each run in a process of its own with the next seed, built with AddressSanitizer and
# UndefinedBehaviorSanitizer. Prints a line for each run and a summary; exit code 0: no fault was found.
#   --plain            without the sanitizers
#   FUZZ_WITHOUT=a,b   leaves out actions by name (`lua5.4 spec/fuzz/run.lua --list` prints them)
#   FUZZ_ONLY=a,b      plays these actions alone

mode=sanitize
if [ "${1:-}" = --plain ]; then
  mode=plain
  shift
fi

. "$(dirname -- "$0")/lib.sh"
ensure_packages build

case $mode in
plain) build build-fuzz-plain -DIP_WARNINGS_AS_ERRORS=ON ;;
sanitize) build build-fuzz -DIP_WARNINGS_AS_ERRORS=ON -DIP_SANITIZE=ON ;;
esac
