#!/bin/sh
# A Unix socket; the receiver, and the subscriber, start last.
# Prints "one", from a queue, and "two", from a topic, whose every subscriber would get it.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
echo one | switchboard send "unix:$folder/jobs.sock" &
switchboard recv "unix:$folder/jobs.sock"
wait
echo two | switchboard publish "unix:$folder/readings.sock" &
switchboard subscribe "unix:$folder/readings.sock"
wait
