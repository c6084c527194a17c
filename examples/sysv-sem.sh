#!/bin/sh
# Each notification of a System V semaphore goes to one of those who wait.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
touch "$folder/key"
event="sysv-sem:$folder/key"
trap 'switchboard unlink "$event"; rm -r "$folder"' EXIT
switchboard wait "$event" -- touch "$folder/a" &
switchboard wait "$event" -- touch "$folder/b" &
switchboard notify --count 2 "$event"
wait
[ -e "$folder/a" ] && echo one
[ -e "$folder/b" ] && echo two
