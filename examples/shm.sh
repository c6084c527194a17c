#!/bin/sh
# Shared memory: a topic of which a late subscriber gets the history, and a queue. The ends may come in
# any order; nothing is left behind.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
channel=shm-example/$$
# The publisher is there, and has the history, until descriptor 3 is closed.
mkfifo "$folder/readings"
switchboard publish "shm:$channel/readings?history=1" < "$folder/readings" &
exec 3> "$folder/readings"
echo one >&3
switchboard subscribe --count 1 "shm:$channel/readings"
exec 3>&-
wait
printf 'two\n' | switchboard send "shm:$channel/jobs" &
switchboard recv "shm:$channel/jobs"
wait
