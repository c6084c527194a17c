#!/bin/sh
# Datagrams have no end: the receiver says how many it wants.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
switchboard recv --count 2 "unix-dgram:$folder/log.sock" &
printf 'one\ntwo\n' | switchboard send "unix-dgram:$folder/log.sock"
wait
