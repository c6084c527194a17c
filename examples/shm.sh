#!/bin/sh
# Shared memory: a topic of which a late subscriber gets the history, and a queue. The ends may come in
# any order; nothing is left behind.
# Prints "one" and "two".
set -eu
channel=shm-example/$$
{ printf 'one\n'; sleep 0.3; } | switchboard publish "shm:$channel/readings?history=1" &
switchboard subscribe --count 1 "shm:$channel/readings"
wait
printf 'two\n' | switchboard send "shm:$channel/jobs" &
switchboard recv "shm:$channel/jobs"
wait
