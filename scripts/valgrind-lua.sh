#!/bin/sh
# The interpreter under valgrind, for `test.sh --valgrind`: an error or a leak is exit code 99.
exec valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect \
  --errors-for-leak-kinds=definite,indirect \
  "$(command -v lua5.4 || command -v lua)" "$@"
