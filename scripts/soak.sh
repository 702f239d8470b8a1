#!/bin/sh
# soak.sh [MINUTES]: mixed traffic for so long (default 10): echoes, batches, coalescing, messages, sockets that
# come and go, deadlines, cancelled waits, look-ups and processes that fork, while system calls are interrupted
# and cut short (spec/host/faulty_system.c, soft faults). A ledger counts each datagram. Prints a line of progress
# now and then, and a summary. Exit code 0: nothing was lost, and memory, descriptors and operations stayed flat.

. "$(dirname -- "$0")/lib.sh"
ensure_packages build
build build -DIP_WARNINGS_AS_ERRORS=ON -DIP_HOST_PROGRAMS=ON
export LUA_CPATH="$LUA_IP_BUILD/faulty/?.so;;"
exec env LD_PRELOAD="$LUA_IP_BUILD/faulty_system.so" "$LUA_IP_BUILD/fuzz_host" spec/fuzz/soak.lua "${1:-10}"
