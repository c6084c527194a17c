#!/bin/sh
# A state over a Unix socket: values by key, which live as long as their writer.
# Prints "one" and "two", the values of "first" and "second".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
printf 'first=one\nsecond=two\n' |
    switchboard set --pairs "unix:$folder/engine.sock" &
for key in first second; do
    echo "$(switchboard get "unix:$folder/engine.sock" "$key")"
done
kill $!
wait
