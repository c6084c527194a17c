#!/bin/sh
# A service over a Unix socket: a program answers each request.
# Prints "one", the reply of a process of its own, and "two", of one that stays.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
switchboard serve --count 1 "unix:$folder/lower.sock" -- tr A-Z a-z &
echo ONE | switchboard call "unix:$folder/lower.sock"
wait
switchboard serve --count 1 --persistent "unix:$folder/next.sock" -- \
    sh -c 'while read -r number; do [ "$number" = one ] && echo two; done' &
echo "$(switchboard call "unix:$folder/next.sock" one)"
wait
