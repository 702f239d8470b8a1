#!/bin/sh
# demo.sh: builds the library and runs the examples on loopback: a DNS server and lookups over v4 and v6, an
# echo server with round-trip times, also through a relay and with several processes, the time by SNTP, a file by
# TFTP, bandwidth, the path to a host, discovery by multicast. Installs missing packages (Debian), or lists them.
# Exit code 0: every example has succeeded.

. "$(dirname -- "$0")/lib.sh"
ensure_packages demo
build build

lua=$LUA_IP_LUA
work=$(mktemp -d)
servers=

stop_servers() {
  for server in $servers; do
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  done
  servers=
}

clean_up() {
  stop_servers
  rm -rf "$work"
}

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start_server NAME [ARGUMENT...]: starts an example and waits until it listens.
start_server() {
  script=examples/$1.lua
  shift
  : >"$work/output"
  "$lua" "$script" "$@" >"$work/output" &
  server=$!
  servers="$servers $server"
  until grep -q '^listening on' "$work/output"; do
    kill -0 "$server" 2>/dev/null || { echo "$script has not started" >&2; exit 1; }
    sleep 0.05 2>/dev/null || sleep 1
  done
  cat "$work/output"
}

# port_on PREFIX: prints the port in "listening on PREFIX:PORT"; nothing if the server does not listen there.
port_on() {
  sed -n "s/^listening on $1:\([0-9]*\).*/\1/p" "$work/output"
}

say "DNS server"
start_server dns_server --port 0
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
stop_servers

say "echo server"
start_server echo_server --port 0
echo_port=$(port_on '127\.0\.0\.1')

say "one datagram in flight"
"$lua" examples/echo_client.lua --port "$echo_port" --count 5000
say "32 datagrams in flight"
"$lua" examples/echo_client.lua --port "$echo_port" --count 50000 --in-flight 32

say "the same through a relay"
start_server udp_relay --port 0 --to 127.0.0.1 --to-port "$echo_port"
"$lua" examples/echo_client.lua --port "$(port_on '127\.0\.0\.1')" --count 20000 --in-flight 32

if [ "$(uname)" = Linux ]; then
  say "the path to this host"
  "$lua" examples/traceroute.lua 127.0.0.1
  "$lua" examples/path_mtu.lua --port "$echo_port" 127.0.0.1
fi
stop_servers

say "one and two processes on one port"
"$lua" examples/workers.lua --workers 2 --seconds 1

say "the time by SNTP"
start_server sntp_server --port 0
port=$(port_on '127\.0\.0\.1') "$lua" -e '
  local ip = require "ip"
  local port = tonumber(os.getenv "port")
  local sock = ip.udp.connect("127.0.0.1", port, { receive_timeout = 5 })
  sock:send("\x23" .. ("\0"):rep(47)) -- version 4, a client
  local seconds = string.unpack(">I4", sock:receive_string(), 41)
  print(os.date("!%Y-%m-%d %H:%M:%S UTC", seconds - 2208988800)) -- since 1900
'
stop_servers

say "a file by TFTP"
echo "This file comes in one packet." >"$work/file"
start_server tftp_server --port 0 --root "$work"
port=$(port_on '127\.0\.0\.1') "$lua" -e '
  local ip = require "ip"
  local sock = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 5 })
  sock:send_to("\0\1file\0octet\0", "127.0.0.1", tonumber(os.getenv "port")) -- 1: to read
  local packet, address, port = sock:receive_string()
  assert(packet:sub(1, 4) == "\0\3\0\1") -- 3: data, 1: the first block
  sock:send_to("\0\4\0\1", address, port) -- 4: the block has come
  io.write(packet:sub(5))
'
stop_servers

say "bandwidth"
start_server bandwidth --port 0
"$lua" examples/bandwidth.lua --to 127.0.0.1 --port "$(port_on '127\.0\.0\.1')" --rate 500M --seconds 1
stop_servers

if [ "$(uname)" = Linux ]; then
  say "discovery by multicast"
  start_server discovery --family v4 --announce "the demo"
  "$lua" examples/discovery.lua --family v4
fi
stop_servers

say "all went well"
