#!/bin/sh
# A POSIX queue keeps messages while nobody runs; the urgent one comes first.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
queue="mq:/switchboard-example-$$"
trap 'switchboard unlink "$queue"; rm -r "$folder"' EXIT
switchboard send --message two "$queue"
switchboard send --priority 9 --message one "$queue"
switchboard recv --count 2 "$queue"
