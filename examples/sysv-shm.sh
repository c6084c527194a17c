#!/bin/sh
# A System V segment with nothing but the bytes in it, as a C program would use it: shorter values
# are followed by zeroes.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
touch "$folder/key"
state="sysv-shm:$folder/key?layout=bare"
trap 'switchboard unlink "$state"; rm -r "$folder"' EXIT
switchboard create --size 16 "$state"
echo one | switchboard set "$state"
switchboard get "$state" | tr -d '\000'
echo two | switchboard set "$state"
switchboard get "$state" | tr -d '\000'
