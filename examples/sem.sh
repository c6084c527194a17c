#!/bin/sh
# A semaphore keeps notifications until somebody waits for them; then one process wakes another.
# Prints "one" and "two".
set -eu
event="sem:/switchboard-example-$$"
trap 'switchboard unlink "$event"' EXIT
switchboard create --value 1 "$event"
switchboard wait "$event"
echo one
switchboard wait "$event" -- echo two &
switchboard notify "$event"
wait
