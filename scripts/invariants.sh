#!/bin/sh
# invariants.sh: counts what architecture allows only in few places (docs/design/architecture.md), and fails when
# there is more. Run by scripts/test.sh.
set -eu
cd "$(dirname -- "$0")/.."

failed=0
fail() {
  echo "invariant broken: $*" >&2
  failed=1
}

# strip_comments FILE...: the code alone, each line behind its file's name.
code() {
  for file in "$@"; do
    sed -e 's://.*$::' "$file" | awk -v name="$file" '
      { line = $0; out = ""
        while (length(line)) {
          if (inside) { i = index(line, "*/"); if (!i) { line = ""; break } line = substr(line, i + 2); inside = 0 }
          else { i = index(line, "/*"); if (!i) { out = out line; break } out = out substr(line, 1, i - 1); line = substr(line, i + 2); inside = 1 }
        }
        print name ": " out }'
  done
}

sources=$(find src -name "*.[ch]" | sort)
all=$(code $sources)

# count PATTERN: how often the code calls it.
count() {
  printf '%s\n' "$all" | grep -cE "$1" || true
}

# exactly N PATTERN WHAT
exactly() {
  found=$(count "$2")
  [ "$found" = "$1" ] || fail "$3: $found times instead of $1"
}

exactly 1 '[^a-z_]lua_resume\(' "lua_resume is called by the dispatcher alone"
exactly 1 '[^a-z_]lua_yieldk\(' "lua_yieldk is called by ip_operation_suspend alone"
exactly 0 '[^a-z_]lua_yield\(' "lua_yield"
exactly 2 '[^a-z_]uv_run\(' "uv_run: one turn, and the end of the loop"
exactly 1 '[^a-z_]uv_close\(' "uv_close"
exactly 0 'uv_default_loop' "uv_default_loop"
exactly 0 '[^a-z_](printf|fprintf|puts|abort|exit|assert)\(' "printing and ending the process are the host's"

# Lua's and libuv's versions and the platform's gaps are looked at in compat.h; a file may leave out what a platform lacks.
found=$(printf '%s\n' "$all" | grep -E '#\s*if.*(LUA_VERSION|UV_VERSION)' | grep -vc '^src/base/compat.h' || true)
[ "$found" = 0 ] || fail "version #if outside compat.h: $found"

# The folder is the layer: a file includes only from its own folder or from folders below it. Values know no loop, and
# the loop knows no values.
below() {
  case $1 in
  base) echo base ;;
  net) echo base net ;;
  binding) echo base net binding ;;
  value) echo base net binding value ;;
  loop) echo base net binding loop ;;
  fiber) echo base net binding value loop fiber ;;
  resolve) echo base net binding value loop resolve ;;
  udp) echo base net binding value loop fiber udp ;;
  esac
}

for file in $sources; do
  path=${file#src/}
  [ "$path" != module.c ] || continue
  folder=${path%%/*}
  allowed=" $(below "$folder") "
  [ "$allowed" != "  " ] || { fail "$file is in no layer"; continue; }
  for header in $(sed -n 's/^#include "\(.*\)"/\1/p' "$file"); do
    case $allowed in
    *" ${header%%/*} "*) ;;
    *) fail "$file includes $header, which is not below it" ;;
    esac
  done
  if [ "$folder" = net ] && grep -qE '#include <(lua|lauxlib)' "$file"; then fail "$file: net knows no Lua"; fi
done

# Callbacks of libuv contain no Lua: none of them has a lua_State to call it with.
found=$(printf '%s\n' "$all" | grep -E '[ *]on_[a-z_]+\(' | grep -c lua_State || true)
[ "$found" = 0 ] || fail "an on_ callback takes a lua_State"

# Only what the loader looks up is exported, and liblua is not linked.
core=${LUA_IP_BUILD:-build}/ip/core.so
if [ -f "$core" ] && command -v nm >/dev/null 2>&1; then
  exported=$(nm -D --defined-only "$core" | awk '$2 == "T" {print $3}' | grep -v '^_' | grep -vE '^(__asan|__ubsan|__gcov|mangle_path)' | sort | tr '\n' ' ')
  [ "$exported" = "lua_ip_use_loop luaopen_ip_core " ] || fail "exported: $exported"
fi
if [ -f "$core" ] && command -v readelf >/dev/null 2>&1; then
  if readelf -d "$core" | grep -q 'NEEDED.*liblua'; then fail "liblua is linked"; fi
fi

[ "$failed" = 0 ] || exit 1
echo "invariants hold"
