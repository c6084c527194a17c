#!/bin/sh
# A Unix socket that keeps packets apart.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
printf 'one\ntwo\n' | switchboard send "unix-seqpacket:$folder/jobs.sock" &
switchboard recv "unix-seqpacket:$folder/jobs.sock"
wait
