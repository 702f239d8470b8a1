#!/bin/sh
# run.sh [OPTION...]: measures the contenders of contenders.lua on the workloads of workloads.lua, and writes
# docs/benchmarks.md and its plots. Linux, two cores. See bench/README.md.
#   --quick                  fewer and shorter rounds: about a minute
#   --only WORKLOAD,...      only these workloads
#   --contenders NAME,...    only these contenders, and their baselines
#   --rounds N, --seconds S  number of rounds, and seconds of measurement per contender and round
#   --other TREE             also the lua-ip of that source tree
#   --output PAGE            file of the page, with its plots beside it; without it, other options only print

. "$(dirname -- "$0")/../scripts/lib.sh"

usage() {
  sed -n '2,9s/^# \{0,1\}//p' bench/run.sh >&2
  exit 2
}

rounds=11 seconds=0.25 output=docs/benchmarks.md page= quick= only= contenders= other=
while [ $# -gt 0 ]; do
  case $1 in
  --quick) quick=yes rounds=3 seconds=0.1 output= ;;
  --only | --contenders | --rounds | --seconds | --other | --output)
    [ $# -ge 2 ] || usage
    case $1 in
    --only) only=$2 output= ;;
    --contenders) contenders=$2 output= ;;
    --rounds) rounds=$2 output= ;;
    --seconds) seconds=$2 output= ;;
    --other) other=$(CDPATH= cd -- "$2" && pwd) output= ;;
    --output) page=$2 ;;
    esac
    shift
    ;;
  *) usage ;;
  esac
  shift
done
[ -z "$page" ] || output=$page

[ "$(uname)" = Linux ] || { echo "the benchmarks need Linux: /proc, UDP_SEGMENT, pinned cores" >&2; exit 1; }
[ "$(nproc)" -ge 2 ] || { echo "the benchmarks need two cores" >&2; exit 1; }

# Other libraries and the plotting tool. The page names contenders that cannot be installed.
missing_optional() {
  has_module luv || echo lua-luv
  has_module socket || echo lua-socket
  has_module cqueues || echo lua-cqueues
  has gnuplot || echo gnuplot-nox
}

ensure_packages build
packages=$(missing_optional)
if [ -n "$packages" ] && has apt-get; then
  say "installing" $packages
  # shellcheck disable=SC2086
  { as_root apt-get update -qq &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } >/dev/null ||
    echo "could not install:" $packages >&2
fi

build build-bench -DCMAKE_BUILD_TYPE=Release
BENCH_BUILD=$project/build-bench/bench
export BENCH_BUILD
mkdir -p "$BENCH_BUILD"

# Relinks only changed programs, so that a quick run is quick.
compile() {
  target=$1
  shift
  for source in "$@" bench/driver/driver.h bench/floors/floor.h; do
    [ ! -f "$target" ] || [ -n "$(find "$source" -newer "$target")" ] || continue
    # shellcheck disable=SC2046
    cc -std=c11 -O2 -Wall -Wextra -D_GNU_SOURCE -Ibench/floors -o "$target" "$@" $(pkg-config --cflags --libs libuv)
    return 0
  done
}
[ -z "$other" ] || {
  cmake -S "$other" -B "$other/build-bench" -DCMAKE_BUILD_TYPE=Release >/dev/null
  cmake --build "$other/build-bench" -j 2 >/dev/null
}
compile "$BENCH_BUILD/driver" bench/driver/*.c
for source in bench/floors/*.c bench/contenders/*.c; do
  [ ! -f "$source" ] || compile "$BENCH_BUILD/$(basename "$source" .c)" "$source"
done

version() {
  "$@" 2>/dev/null | head -n 1
}

describe() {
  echo "date: $(date -u +%Y-%m-%d)"
  echo "machine: $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"
  echo "system: $(uname -sr)$(sed -n 's/^PRETTY_NAME="\(.*\)"/, \1/p' /etc/os-release 2>/dev/null)"
  printf 'versions: lua-ip %s' "$(git describe --always --dirty 2>/dev/null || echo unknown)"
  printf ', %s' "$("$LUA_IP_LUA" -v 2>&1 | cut -d' ' -f1,2)" "libuv $(pkg-config --modversion libuv)" "$(cc --version | head -n 1)"
  "$LUA_IP_LUA" -e '
    local ok, luv = pcall(require, "luv")
    if ok then io.write(", luv with libuv ", luv.version_string()) end
    local ok, socket = pcall(require, "socket")
    if ok then io.write(", ", socket._VERSION) end
    local ok, cqueues = pcall(require, "cqueues")
    if ok then io.write(", cqueues ", cqueues.VERSION) end'
  ! has node || printf ', Node %s' "$(version node --version)"
  ! has python3 || printf ', %s' "$(version python3 --version)"
  echo
  bytes=$(ulimit -n 10100 2>/dev/null && "$LUA_IP_LUA" bench/memory.lua 10000 2>/dev/null) || bytes=
  [ -z "$bytes" ] || echo "memory: $bytes"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
[ -z "$quick" ] || say "a quick run: $rounds rounds of $seconds s; the figures are rough"
BENCH_TERMINAL=no
[ ! -t 2 ] || BENCH_TERMINAL=yes
export BENCH_TERMINAL
set -- --rounds "$rounds" --seconds "$seconds"
[ -z "$only" ] || set -- "$@" --only "$only"
[ -z "$contenders" ] || set -- "$@" --contenders "$contenders"
[ -z "$other" ] || set -- "$@" --other "$other"
describe | "$LUA_IP_LUA" bench/measure.lua "$work/results.tsv" "$@"

if [ -z "$output" ]; then
  "$LUA_IP_LUA" bench/write_report.lua "$work/results.tsv"
  exit 0
fi
plots=${output%.md}
mkdir -p "$plots"
rm -f "$plots"/*.svg
cp "$work/results.tsv" "$plots/results.tsv"
"$LUA_IP_LUA" bench/write_report.lua "$work/results.tsv" "$output" "$plots"
say "written: $output, $plots"
