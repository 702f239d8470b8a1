#!/bin/sh
# threads.sh [ROUNDS [THREADS]]: many states of Lua in many threads, under ThreadSanitizer, with SIGINT and fork
# in between (spec/host/threads_host.c). Exit code 0: no data race was found, and all has succeeded.

. "$(dirname -- "$0")/lib.sh"
ensure_packages build
build build-threads -DIP_HOST_PROGRAMS=ON -DIP_SANITIZE_THREADS=ON -DIP_WARNINGS_AS_ERRORS=ON
# The threads of the parent are no leak of the child.
export TSAN_OPTIONS="exitcode=66:die_after_fork=0:report_thread_leaks=0:suppressions=$project/spec/host/threads.suppressions"
build-threads/threads_host spec/programs/one_of_many_states.lua "${1:-20}" "${2:-8}"
