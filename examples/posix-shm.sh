#!/bin/sh
# One process watches a value in shared memory that another one sets; only their user may open it.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
state="posix-shm:/switchboard-example-$$"
trap 'switchboard unlink "$state"; rm -r "$folder"' EXIT
switchboard create --mode 0600 --size 1KiB "$state"
switchboard set "$state" one
switchboard watch --initial --count 2 "$state" > "$folder/seen" &
until [ -s "$folder/seen" ]; do sleep 0.01; done
switchboard set "$state" two
wait
cat "$folder/seen"
