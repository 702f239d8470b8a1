# lib.sh: functions of demo.sh, lint.sh and test.sh, which source it: installing packages, building. POSIX sh.

set -eu

project=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
cd "$project"

say() {
  printf '%s\n' "== $*"
}

has() {
  command -v "$1" >/dev/null 2>&1
}

# has_module NAME: can Lua load the module?
has_module() {
  "$(lua_command)" -e "require '$1'" >/dev/null 2>&1
}

# missing_tools GROUP: prints the missing tools of a group as words. `build`: a compiler, CMake, Lua and libuv
# with their headers; `demo`: the same; `fuzz`: the same, clang and libFuzzer; `lint`: the same and the tools of
# scripts/lint.sh; `test`: all of these and the tools of the specs.
missing_tools() {
  has cc || echo cc
  has cmake || echo cmake
  has make || echo make
  has pkg-config || echo pkg-config
  has lua5.4 || has lua || echo lua
  if has pkg-config; then
    pkg-config --exists lua5.4 || pkg-config --exists lua-5.4 || pkg-config --exists 'lua >= 5.4' || echo lua-headers
    pkg-config --exists 'libuv >= 1.42' || echo libuv
  else
    echo lua-headers libuv
  fi
  if [ "$1" = lint ] || [ "$1" = test ]; then missing_lint_tools; fi
  if [ "$1" = fuzz ]; then missing_fuzz_tools; fi
  [ "$1" = test ] || return 0
  has busted || echo busted
  has luacheck || echo luacheck
  has dig || echo dig
  has dnsmasq || echo dnsmasq
  has curl || echo curl
  has tftp || echo tftp-hpa
  has atftp || echo atftp
  [ "$(uname)" = Linux ] || return 0
  has ip || echo iproute2
  has nft || echo nftables
  has strace || echo strace
  has luarocks || echo luarocks
  has_module cqueues || echo lua-cqueues
  has_module luv || echo lua-luv
  has valgrind || echo valgrind
  [ -e /etc/services ] || echo netbase
  has apt-get || return 0 # without these modules, the specs that exchange descriptors with them are skipped
  "$(lua_command)" -e 'require "luv"' 2>/dev/null || echo luv
  "$(lua_command)" -e 'require "socket"' 2>/dev/null || echo luasocket
  [ -e /usr/share/lua/5.2/copas.lua ] || echo lua-copas
}

# On a system without apt-get, lint.sh skips the missing tools.
missing_lint_tools() {
  has apt-get || return 0
  has clang-format || echo clang-format
  has clang-tidy || echo clang-tidy
  has cppcheck || echo cppcheck
}

# libFuzzer comes with clang's runtime.
missing_fuzz_tools() {
  has clang || echo clang
  has apt-get || return 0
  dpkg -s libclang-rt-dev >/dev/null 2>&1 || echo libclang-rt-dev
}

debian_packages() {
  for tool in "$@"; do
    case $tool in
    cc) echo gcc libc6-dev ;;
    lua) echo lua5.4 ;;
    lua-headers) echo liblua5.4-dev ;;
    libuv) echo libuv1-dev ;;
    busted) echo lua-busted lua-filesystem ;;
    luacheck) echo lua-check ;;
    dig) echo bind9-dnsutils ;;
    dnsmasq) echo dnsmasq-base ;;
    luv) echo lua-luv ;;
    luasocket) echo lua-socket ;;
    *) echo "$tool" ;;
    esac
  done
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs the missing packages by apt-get; on a system without it, lists them and exits.
ensure_packages() {
  missing=$(missing_tools "$1")
  [ -n "$missing" ] || return 0
  if has apt-get; then
    # shellcheck disable=SC2086,SC2046
    packages=$(debian_packages $missing)
    say "installing" $packages
    as_root apt-get update -qq
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
    return 0
  fi
  echo "missing:" $missing >&2
  echo "Homebrew: brew install lua libuv cmake pkg-config luarocks bind dnsmasq" >&2
  echo "dnf:      dnf install gcc make cmake pkgconf lua lua-devel libuv-devel luarocks bind-utils dnsmasq iproute nftables strace valgrind" >&2
  echo "apk:      apk add gcc musl-dev make cmake pkgconf lua5.4 lua5.4-dev libuv-dev luarocks bind-tools dnsmasq iproute2 nftables strace valgrind" >&2
  echo "busted, luacheck, cqueues, luv: luarocks --lua-version 5.4 install NAME" >&2
  exit 1
}

# A spec queries the SNTP example with an independent client, chronyd. Debian's package would start a daemon
# that sets the clock, so it is not installed: only the program is unpacked.
ensure_chronyd() {
  has chronyd && return 0
  LUA_IP_CHRONYD=$project/build-chrony/usr/sbin/chronyd
  export LUA_IP_CHRONYD
  [ ! -x "$LUA_IP_CHRONYD" ] || return 0
  has apt-get || return 0
  say "unpacking chronyd"
  mkdir -p "$project/build-chrony"
  if ! (cd "$project/build-chrony" && download_chrony && dpkg-deb --fsys-tarfile chrony_*.deb | tar -x ./usr/sbin/chronyd); then
    echo "chronyd cannot be had: a spec is skipped" >&2
  fi
  rm -f "$project"/build-chrony/chrony_*.deb
}

# Fetches the lists of packages if the download fails without them.
download_chrony() {
  apt-get -qq -o APT::Sandbox::User=root download chrony 2>/dev/null && return 0
  as_root apt-get update -qq && apt-get -qq -o APT::Sandbox::User=root download chrony
}

lua_command() {
  if has lua5.4; then echo lua5.4; else echo lua; fi
}

# build DIRECTORY [CMAKE OPTION...]: configures and builds, and sets the paths on which Lua finds the result.
# With BUILD_TARGETS it builds these targets alone.
build() {
  directory=$1
  shift
  say "building in $directory"
  cmake -S . -B "$directory" "$@" >"$directory.log" 2>&1 || { cat "$directory.log" >&2; exit 1; }
  # shellcheck disable=SC2086
  cmake --build "$directory" -j 2 ${BUILD_TARGETS:+--target $BUILD_TARGETS} >"$directory.log" 2>&1 || { cat "$directory.log" >&2; exit 1; }
  rm -f "$directory.log"
  export LUA_PATH="$project/lua/?.lua;$project/lua/?/init.lua;$project/?.lua;;"
  export LUA_CPATH="$project/$directory/?.so;;"
  LUA_IP_LUA=$(lua_command)
  export LUA_IP_LUA
  export LUA_IP_BUILD="$project/$directory"
  export LUA_IP_BYTES_GUARD="$project/$directory/bytes_guard"
}
