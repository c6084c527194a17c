#!/bin/sh
# A Unix socket; the receiver starts last.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
printf 'one\ntwo\n' | switchboard send "unix:$folder/jobs.sock" &
switchboard recv "unix:$folder/jobs.sock"
wait
