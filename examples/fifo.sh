#!/bin/sh
# A FIFO between two programs, one of which knows nothing of Switchboard.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
switchboard recv "fifo:$folder/jobs" &
until [ -p "$folder/jobs" ]; do sleep 0.01; done
printf 'one\ntwo\n' > "$folder/jobs"
wait
