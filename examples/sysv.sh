#!/bin/sh
# A System V queue, its key made from a path.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
touch "$folder/key"
trap 'switchboard unlink "sysv:$folder/key"; rm -r "$folder"' EXIT
printf 'one\ntwo\n' | switchboard send "sysv:$folder/key"
switchboard recv --count 2 "sysv:$folder/key"
