#!/bin/sh
# TCP on this machine. Beyond it, add ?plaintext, or wait for tls:.
# Prints "one" and "two".
set -eu
port=$((20000 + $$ % 20000))
printf 'one\ntwo\n' | switchboard send "tcp:127.0.0.1:$port" &
switchboard recv "tcp:127.0.0.1:$port"
wait
