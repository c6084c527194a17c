#!/bin/sh
# A log on disk keeps messages while nobody runs, also over a reboot. A queue hands out each once;
# subscribers of a topic can read it from the beginning, again and again.
# Prints "one" and "two".
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
printf 'one\n' | switchboard send "file:$folder/jobs"
switchboard recv --count 1 "file:$folder/jobs"
printf 'two\n' | switchboard publish "file:$folder/readings"
switchboard subscribe --from oldest --count 1 "file:$folder/readings"
switchboard unlink "file:$folder/jobs"
switchboard unlink "file:$folder/readings"
