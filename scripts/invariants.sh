#!/bin/sh
# invariants.sh: counts the calls and includes that the architecture allows only in few places
# (docs/design/architecture.md), and fails when there are more. scripts/test.sh runs it.
set -eu
cd "$(dirname -- "$0")/.."

failed=0
fail() {
  echo "invariant broken: $*" >&2
  failed=1
}

# code FILE...: prints the code without comments, each line after the name of its file.
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

# count PATTERN: prints the number of lines of code that match.
count() {
  printf '%s\n' "$all" | grep -cE "$1" || true
}

# exactly N PATTERN WHAT: fails with the text WHAT unless N lines of code match.
exactly() {
  found=$(count "$2")
  [ "$found" = "$1" ] || fail "$3: $found times instead of $1"
}

exactly 1 '[^a-z_]lua_resume\(' "lua_resume is called by the dispatcher alone"
exactly 1 '[^a-z_]lua_yieldk\(' "lua_yieldk is called by ip_operation_suspend alone"
exactly 0 '[^a-z_]lua_yield\(' "lua_yield"
exactly 5 '[^a-z_]lua_callk\(' "lua_callk: the start of a task, the calls of serve, on_error of datagrams"
exactly 2 '[^a-z_]uv_run\(' "uv_run: one iteration, and the end of the loop"
exactly 1 '[^a-z_]uv_close\(' "uv_close"
exactly 0 'uv_default_loop' "uv_default_loop"
exactly 0 '[^a-z_](printf|fprintf|puts|abort|exit|assert)\(' "printing and ending the process are the host's"

# compat.h alone tests the versions of Lua and libuv, and fills the gaps of a platform. Any file may leave out
# a feature that a platform lacks.
found=$(printf '%s\n' "$all" | grep -E '#\s*if.*(LUA_VERSION|UV_VERSION)' | grep -vc '^src/base/compat.h' || true)
[ "$found" = 0 ] || fail "version #if outside compat.h: $found"

# The folder is the layer: a file includes only from its own folder or from folders below it. `value` and
# `loop` do not include each other.
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

# The files that work on a channel include neither Lua nor the loop: spec/host/channel_paths.c links them
# without both.
channel_files="association channel datagram_queue error_queue parts read_ahead buffer_pool receive_path send_path send_queue session_table"
for name in $channel_files; do
  for file in src/udp/$name.[ch]; do
    [ -f "$file" ] || continue
    for header in $(sed -n 's/^#include "\(.*\)"/\1/p' "$file"); do
      case $header in
      base/util.h | base/queue.h | net/*) continue ;;
      udp/*) case " $channel_files " in *" $(basename "$header" .h) "*) continue ;; esac ;;
      esac
      fail "$file knows no Lua and no loop, but includes $header"
    done
  done
done

# There is no circle between files, neither of includes nor of calls. In loop/ the dispatcher, operations,
# tasks and watchers are one mechanism (src/loop/operation.c says so), and count as one file.
file_of() {
  case $1 in
  loop/*) echo loop ;;
  *) echo "${1%.[cho]}" ;;
  esac
}

# check_circles WHAT FILE: fails if the edges in FILE, one per line, from one source file to another, form a
# circle.
check_circles() {
  circle=$(tsort "$2" 2>&1 >/dev/null) || fail "a circle of $1: $(printf '%s' "$circle" | sed 's/^tsort: //' | tr '\n' ' ')"
}

edges=$(mktemp)
trap 'rm -f "$edges" "$edges.symbols"' EXIT
for file in $sources; do
  path=${file#src/}
  for header in $(sed -n 's/^#include "\(.*\)"/\1/p' "$file"); do
    own=$(file_of "$path") other=$(file_of "$header")
    [ "$own" = "$other" ] || echo "$own $other"
  done
done | sort -u >"$edges"
check_circles includes "$edges"

# The symbols of the built objects show each call to another file.
objects=${LUA_IP_BUILD:-build}/CMakeFiles/ip_core.dir/src
if [ -d "$objects" ] && command -v nm >/dev/null 2>&1; then
  for file in $(find src -name '*.c'); do
    path=${file#src/}
    nm "$objects/$path.o" 2>/dev/null | awk -v own="$(file_of "$path")" '
      $(NF - 1) == "U" && $NF ~ /^ip_/ { print "U", $NF, own }
      $(NF - 1) ~ /^[TDRB]$/ && $NF ~ /^ip_/ { print "T", $NF, own }'
  done >"$edges.symbols"
  awk '$1 == "T" { owner[$2] = $3; next } { user[NR] = $3; symbol[NR] = $2 }
    END { for (i in user) if (symbol[i] in owner && owner[symbol[i]] != user[i]) print user[i], owner[symbol[i]] }' \
    "$edges.symbols" | sort -u >"$edges"
  check_circles calls "$edges"
fi

# Callbacks of libuv do not call Lua: none of them has a parameter of type lua_State.
found=$(printf '%s\n' "$all" | grep -E '[ *]on_[a-z_]+\(' | grep -c lua_State || true)
[ "$found" = 0 ] || fail "an on_ callback takes a lua_State"

# The module exports only the functions that a loader or a host looks up, and is not linked with liblua.
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
