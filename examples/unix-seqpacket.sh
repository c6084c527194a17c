#!/bin/sh
# A Unix socket that keeps packets apart.
# Prints "one", from a queue, and "two", from a topic, whose every subscriber would get it.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
echo one | switchboard send "unix-seqpacket:$folder/jobs.sock" &
switchboard recv "unix-seqpacket:$folder/jobs.sock"
wait
echo two | switchboard publish "unix-seqpacket:$folder/readings.sock" &
switchboard subscribe "unix-seqpacket:$folder/readings.sock"
wait
