#!/bin/sh
# Real-time signals are queued, each with a number. The listener says its address: signal:PID/SIGNAL.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
switchboard wait --announce --count 2 signal:self/SIGRTMIN+1 -- \
    sh -c 'case $SWITCHBOARD_VALUE in 1) echo one ;; 2) echo two ;; esac' > "$folder/said" &
until [ -s "$folder/said" ]; do sleep 0.01; done
address=$(head -n 1 "$folder/said")
switchboard notify --value 1 "$address"
switchboard notify --value 2 "$address"
wait
tail -n +2 "$folder/said"
