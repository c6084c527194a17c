#!/bin/sh
# A value in a mapped file: it is there for whoever comes later, and outlives a reboot.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
state="mmap:$folder/state"
switchboard set --sync "$state" one
switchboard get "$state" && echo
echo two | switchboard set "$state"
switchboard get "$state"
