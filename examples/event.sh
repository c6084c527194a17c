#!/bin/sh
# An event over a Unix socket: a program waits, another one says what happened, and how often.
# Prints "one", for event 1, and "two", for event 2, which happened three times.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
switchboard wait "unix:$folder/engine.sock" -- \
    sh -c '[ "$SWITCHBOARD_ID" = 1 ] && echo one' &
switchboard notify --id 1 "unix:$folder/engine.sock"
wait
switchboard wait --count 3 "unix:$folder/wheel.sock" -- \
    sh -c '[ "$SWITCHBOARD_ID" = 2 ] && [ "$SWITCHBOARD_COUNT" = 3 ] && echo two' &
switchboard notify --id 2 --count 3 "unix:$folder/wheel.sock"
wait
