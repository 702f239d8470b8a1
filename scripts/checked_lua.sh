#!/bin/sh
# checked_lua.sh [COMMAND...]: builds the versions of Lua and libuv whose sources are given, and runs the
# specs and the fuzzer on each. Sources are not part of this repository: a checkout of each version, of
# https://github.com/lua/lua (whose C files lie in its top folder) and https://github.com/libuv/libuv.
#
#   LUA_SOURCES=DIRECTORY[:DIRECTORY...]    versions of Lua; without it, the system's Lua
#   LIBUV_SOURCES=DIRECTORY[:DIRECTORY...]  versions of libuv; without it, the system's libuv
#   CHECKED_SECONDS=30                      how long the fuzzer plays on each, plainly and with faults
#   CHECKED_SPECS="spec/a_spec.lua ..."     specs in place of all
#
# Lua is built with its own assertions: LUAI_ASSERT, LUA_USE_APICHECK (each call of the API is checked) and
# HARDSTACKTESTS (stacks move whenever they can). Exit code 0: nothing has failed.

. "$(dirname -- "$0")/lib.sh"
ensure_packages test

seconds=${CHECKED_SECONDS:-30}
root=$project/build-checked
mkdir -p "$root"
failed=

# build_lua SOURCES TARGET: an interpreter with the checks, its headers and a library, in TARGET.
build_lua() {
  [ ! -x "$2/lua" ] || return 0
  say "building Lua from $1"
  mkdir -p "$2"
  objects=
  for file in "$1"/*.c; do
    name=$(basename "$file" .c)
    case $name in lua | luac | onelua | ltests) continue ;; esac
    cc -std=gnu99 -g -O1 -fPIC -DLUA_USE_LINUX -DLUA_COMPAT_5_3 -DLUAI_ASSERT -DLUA_USE_APICHECK -DHARDSTACKTESTS \
      -UNDEBUG -c "$file" -o "$2/$name.o"
    objects="$objects $2/$name.o"
  done
  # shellcheck disable=SC2086
  cc -shared -o "$2/liblua.so" -Wl,-soname,"$2/liblua.so" $objects -lm -ldl
  cc -std=gnu99 -g -O1 -DLUA_USE_LINUX -DLUA_COMPAT_5_3 -o "$2/lua" "$1/lua.c" "$2/liblua.so" -Wl,-E -lm -ldl
  cp "$1"/lua.h "$1"/luaconf.h "$1"/lualib.h "$1"/lauxlib.h "$2"
}

# build_libuv SOURCES TARGET: the shared library and its headers below TARGET.
build_libuv() {
  [ ! -e "$2/include/uv.h" ] || return 0
  say "building libuv from $1"
  rm -rf "$2" # what is left of a build that has failed
  { cmake -S "$1" -B "$2/build" -DCMAKE_BUILD_TYPE=Debug -DBUILD_TESTING=OFF -DLIBUV_BUILD_TESTS=OFF \
    -DCMAKE_INSTALL_PREFIX="$2" -DCMAKE_INSTALL_LIBDIR=lib &&
    cmake --build "$2/build" -j 2 --target install; } >"$2.log" 2>&1 || { cat "$2.log" >&2; exit 1; }
}

# run LUA LIBUV: builds the library on these two (empty: the system's), and plays the fuzzer and the specs.
run() {
  name=$(basename "${1:-system}")-$(basename "${2:-system}")
  directory=build-checked/ip-$name
  set -- "$1" "$2" -DIP_HOST_PROGRAMS=ON -DCMAKE_BUILD_TYPE=Debug
  [ -z "$1" ] || set -- "$@" -DCMAKE_C_FLAGS=-DHARDSTACKTESTS -DLUA_INCDIR="$1" -DLUA_HEADERS="$1" -DLUA_LIBRARY="$1/liblua.so"
  [ -z "$2" ] || set -- "$@" -DLIBUV_HEADERS="$2/include" -DLIBUV_LIBRARY="$2/lib/libuv.so"
  lua=${1:+$1/lua}
  shift 2
  build "$directory" "$@"
  lua=${lua:-$LUA_IP_LUA}
  LUA_IP_LUA=$lua
  modules=/usr/share/lua/5.4
  export LUA_PATH="$LUA_PATH$modules/?.lua;$modules/?/init.lua" LUA_CPATH
  # Modules in C are built for one version of Lua: another one may crash in them as soon as it loads them.
  [ "$("$lua" -e 'print(_VERSION)')" != "Lua 5.4" ] || LUA_CPATH="$LUA_CPATH;/usr/lib/$(cc -print-multiarch)/lua/5.4/?.so"
  play "$name" "$lua"
  if "$lua" -e 'require "lfs"' 2>/dev/null; then
    say "specs on $name"
    # shellcheck disable=SC2086
    busted --lua="$lua" --run=quick ${CHECKED_SPECS:-} || failed=1
  else
    say "specs on $name, without busted, whose modules are not built for this Lua"
    # shellcheck disable=SC2046,SC2086
    "$lua" spec/support/plain_runner.lua ${CHECKED_SPECS:-$(echo spec/*_spec.lua)} || failed=1
  fi
}

# play NAME LUA: the fuzzer, plainly and with faults.
play() {
  say "fuzzer on $1"
  log=$(mktemp)
  end=$(($(date +%s) + seconds)) seed=1
  while [ "$(date +%s)" -lt "$end" ]; do
    (ulimit -n 200; ulimit -c 0; sh spec/fuzz/watchdog.sh 60 "$log" "$2" spec/fuzz/run.lua "$seed" 600 "$log") >"$log.out" 2>&1 ||
      { tail -n 30 "$log.out"; failed=1; break; }
    (ulimit -n 200; ulimit -c 0
      export FUZZ_PRELOAD="$LUA_IP_BUILD/faulty_system.so" LUA_CPATH="$LUA_IP_BUILD/faulty/?.so;;"
      sh spec/fuzz/watchdog.sh 60 "$log" "$LUA_IP_BUILD/fuzz_host" spec/fuzz/run.lua "$seed" 600 "$log") >"$log.out" 2>&1 ||
      { tail -n 30 "$log.out"; failed=1; break; }
    seed=$((seed + 1))
  done
  echo "$1: seeds 1..$((seed - 1)) without a fault"
  rm -f "$log" "$log.out"
}

old_ifs=$IFS
IFS=:
set -- ${LUA_SOURCES:-}
IFS=$old_ifs
lua_versions= uv_versions=
for sources in "$@"; do
  target=$root/$(basename "$sources")
  build_lua "$sources" "$target"
  lua_versions="$lua_versions $target"
done
IFS=:
set -- ${LIBUV_SOURCES:-}
IFS=$old_ifs
for sources in "$@"; do
  target=$root/$(basename "$sources")
  build_libuv "$sources" "$target"
  uv_versions="$uv_versions $target"
done
[ -n "$lua_versions$uv_versions" ] || run "" ""
for lua_version in $lua_versions; do run "$lua_version" ""; done
for uv_version in $uv_versions; do run "" "$uv_version"; done
[ -z "$failed" ]
