#!/bin/sh
# UDP: the receiver binds first, since nobody waits for datagrams that were sent before.
# Prints "one" and "two".
set -eu
port=$((20000 + $$ % 20000))
switchboard recv --count 2 "udp:127.0.0.1:$port" &
until grep -q "$(printf ':%04X' "$port")" /proc/net/udp; do sleep 0.01; done
printf 'one\ntwo\n' | switchboard send "udp:127.0.0.1:$port"
wait
