#!/bin/sh
# demo.sh: builds the library and shows the examples at work: a DNS server and lookups over v4 and v6, then an echo
# server and round-trip times. Installs what is missing (Debian) or says what to install. Exit code 0: all went well.

. "$(dirname -- "$0")/lib.sh"
ensure_packages demo
build build

lua=$LUA_IP_LUA
work=$(mktemp -d)
server=

stop_server() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  [ -z "$server" ] || wait "$server" 2>/dev/null || true
  server=
}

clean_up() {
  stop_server
  rm -rf "$work"
}

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start_server SCRIPT: starts it on ports that the system chooses and waits until it listens.
start_server() {
  : >"$work/output"
  "$lua" "$1" --port 0 >"$work/output" &
  server=$!
  until grep -q '^listening on' "$work/output"; do
    kill -0 "$server" 2>/dev/null || { echo "$1 has not started" >&2; exit 1; }
    sleep 0.05 2>/dev/null || sleep 1
  done
  cat "$work/output"
}

# port_on PREFIX: the port in "listening on PREFIX:PORT"; nothing where the server does not listen there.
port_on() {
  sed -n "s/^listening on $1:\([0-9]*\)\$/\1/p" "$work/output"
}

say "DNS server"
start_server examples/dns_server.lua
v4_port=$(port_on '127\.0\.0\.1')
v6_port=$(port_on '\[::1\]')

say "lookups over v4"
"$lua" examples/dns_lookup.lua --port "$v4_port" --type A,AAAA www.example.test ns.example.test
"$lua" examples/dns_lookup.lua --port "$v4_port" mail.example.test WWW.Example.Test
"$lua" examples/dns_lookup.lua --port "$v4_port" --type TXT text.example.test

say "a name that does not exist"
status=0
"$lua" examples/dns_lookup.lua --port "$v4_port" nobody.example.test || status=$?
[ "$status" = 1 ] || { echo "exit code $status instead of 1" >&2; exit 1; }

if [ -n "$v6_port" ]; then
  say "lookups over v6"
  "$lua" examples/dns_lookup.lua --server ::1 --port "$v6_port" --type AAAA www.example.test v6.example.test
else
  say "lookups over v6: left out, this system has no v6"
fi
stop_server

say "echo server"
start_server examples/echo_server.lua
echo_port=$(port_on '127\.0\.0\.1')

say "one datagram in flight"
"$lua" examples/echo_client.lua --port "$echo_port" --count 5000
say "32 datagrams in flight"
"$lua" examples/echo_client.lua --port "$echo_port" --count 50000 --in-flight 32
stop_server

say "all went well"
