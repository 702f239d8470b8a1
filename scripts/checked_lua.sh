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
  cmake -S "$1" -B "$2/build" -DCMAKE_BUILD_TYPE=Debug -DBUILD_TESTING=OFF -DLIBUV_BUILD_TESTS=OFF \
    -DCMAKE_INSTALL_PREFIX="$2" -DCMAKE_INSTALL_LIBDIR=lib >"$2.log" 2>&1
  cmake --build "$2/build" -j 2 --target install >>"$2.log" 2>&1
}
