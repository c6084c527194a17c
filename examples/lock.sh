#!/bin/sh
# A lock keeps a command waiting until another has ended.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
lock="sync:switchboard-example-$$"
mkfifo "$folder/started"
switchboard lock "$lock" -- sh -c 'echo > "$0/started"; sleep 0.1; echo one' "$folder" &
read -r _ < "$folder/started"
switchboard lock "$lock" -- echo two
wait
