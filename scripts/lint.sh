#!/bin/sh
# lint.sh: checks the C code without running it: its form by clang-format, and its meaning by clang-tidy,
# cppcheck and gcc -fanalyzer. Installs missing tools (Debian). Exit code 0: no tool has found anything.
#
# Different versions of a tool find different problems. The code is clean under the versions below. Another
# version of clang-format is skipped, because it formats differently; the findings of another version of the
# other tools are printed, but are no failure.

. "$(dirname -- "$0")/lib.sh"
ensure_packages lint

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
failed=

# major TOOL: the major version of a tool of LLVM.
major() {
  "$1" --version | sed -n 's/.*version \([0-9]*\)\..*/\1/p'
}

# run NAME DECISIVE ACTUAL COMMAND [ARGUMENT...]: runs a tool and prints its findings, which are a failure if
# the actual version is the decisive one.
run() {
  name=$1 decisive=$2 actual=$3
  shift 3
  say "$name $actual"
  if "$@" >"$work/output" 2>&1; then return 0; fi
  grep -vE '^([0-9]+ warnings? generated|\[ *[0-9]+%\]|g?make)' "$work/output" >&2 || true
  if [ "$actual" = "$decisive" ]; then
    failed="$failed $name"
  else
    echo "$name: version $decisive decides, this is version $actual: no failure" >&2
  fi
}

c_files() {
  find "$@" -name '*.c' | sort
}

check_format() {
  find src include spec/host bench -name '*.[ch]' | sort | xargs clang-format --dry-run -Werror
}

check_with_clang_tidy() {
  cmake -S . -B build-lint -DIP_HOST_PROGRAMS=ON -DCMAKE_EXPORT_COMPILE_COMMANDS=ON >/dev/null &&
    c_files src spec/host | xargs -P 2 -n 4 clang-tidy -p build-lint --quiet
}

# cppcheck cannot parse Lua's headers, so it does not get them; compat.h needs two of their macros.
check_with_cppcheck() {
  cppcheck -q -j 2 --std=c11 --enable=warning,style,performance,portability --inconclusive --inline-suppr \
    --library=posix --library=gnu --error-exitcode=1 -D_GNU_SOURCE -D__GNUC__ -D__linux__ \
    -DLUA_VERSION_NUM=504 -DLUA_VERSION_RELEASE_NUM=50406 -Isrc -Iinclude src include spec/host
}

# Two warnings are disabled. -Wanalyzer-use-of-uninitialized-value: gcc 12 takes structs that functions return
# for uninitialized, and clang-tidy finds the same mistake. -Wanalyzer-malloc-leak: gcc 12 loses track of
# memory that is linked into an intrusive list, and LeakSanitizer finds leaks in every spec.
check_with_gcc() {
  ignored=-Wno-analyzer-use-of-uninitialized-value
  cmake -S . -B build-analyzer -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=None -DIP_WARNINGS_AS_ERRORS=ON \
    -DCMAKE_C_FLAGS="-O2 -fanalyzer $ignored -Wno-analyzer-malloc-leak" >/dev/null &&
    cmake --build build-analyzer -j 2 -- -k
}

if ! has clang-format; then
  echo "clang-format is missing: skipped" >&2
elif [ "$(major clang-format)" != 14 ]; then
  echo "clang-format: version 14 decides, this is version $(major clang-format): skipped" >&2
else
  run clang-format 14 14 check_format
fi

if has cppcheck; then
  run cppcheck 2.10 "$(cppcheck --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/')" check_with_cppcheck
else
  echo "cppcheck is missing: skipped" >&2
fi

# On macOS gcc is another name of clang.
if has gcc && gcc -fanalyzer -fsyntax-only -x c /dev/null 2>/dev/null; then
  run "gcc -fanalyzer" 12 "$(gcc -dumpversion | sed 's/\..*//')" check_with_gcc
else
  echo "gcc -fanalyzer is missing: skipped" >&2
fi

if has clang-tidy; then
  run clang-tidy 14 "$(major clang-tidy)" check_with_clang_tidy
else
  echo "clang-tidy is missing: skipped" >&2
fi

if [ -n "$failed" ]; then
  echo "lint failed:$failed" >&2
  exit 1
fi
echo "lint found nothing"
