#!/bin/sh
# valgrind-lua.sh: runs the interpreter under valgrind, for `test.sh --valgrind`. Exit code 99: an error or a
# leak.
exec valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect \
  --errors-for-leak-kinds=definite,indirect \
  "$(command -v lua5.4 || command -v lua)" "$@"
