#!/bin/sh
# threads.sh [--quick] [ROUNDS [THREADS]]: many states of Lua in many threads, under ThreadSanitizer, with SIGINT and
# fork in between (spec/host/threads_host.c). Exit code 0: no data race was found, and all has succeeded.
#   --quick  a bounded form for continuous integration: few states, and less than a minute with its build. Where
#            ThreadSanitizer does not work, it says so and succeeds.

quick=
if [ "${1:-}" = --quick ]; then
  quick=1
  shift
fi

. "$(dirname -- "$0")/lib.sh"
ensure_packages build

# can_watch_threads: does ThreadSanitizer work here? Its runtime may be missing, or refuse the kernel's layout of
# addresses (vm.mmap_rnd_bits).
can_watch_threads() {
  probe=$(mktemp)
  worked=
  if echo 'int main(void) { return 0; }' | cc -x c -fsanitize=thread -o "$probe" - 2>/dev/null && "$probe" 2>/dev/null
  then
    worked=1
  fi
  rm -f "$probe"
  [ -n "$worked" ]
}

if [ -n "$quick" ] && ! can_watch_threads; then
  echo "ThreadSanitizer does not work here: the threads are left out"
  exit 0
fi

BUILD_TARGETS="ip_core threads_host"
build build-threads -DIP_HOST_PROGRAMS=ON -DIP_SANITIZE_THREADS=ON -DIP_WARNINGS_AS_ERRORS=ON
# The threads of the parent are no leak of the child.
export TSAN_OPTIONS="exitcode=66:die_after_fork=0:report_thread_leaks=0:suppressions=$project/spec/host/threads.suppressions"
if [ -n "$quick" ]; then set -- 2 4; fi
timeout 600 build-threads/threads_host spec/programs/one_of_many_states.lua "${1:-20}" "${2:-8}"
