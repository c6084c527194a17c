#!/bin/sh
# A pipe made by the shell: the sender's standard output is the receiver's standard input.
# Prints "one" and "two".
set -eu
printf 'one\ntwo\n' | switchboard send fd:1 | switchboard recv fd:0
