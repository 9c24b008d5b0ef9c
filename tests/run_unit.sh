#!/bin/sh
# Log compiler of the unit tests: runs one Criterion program and prints its results as TAP.
# As many tests at once as there are cores. LS_TEST_ONLY, a pattern like */strict*, chooses among the
# tests.
set -u
program=$1

results=$(mktemp) || exit 99
trap 'rm -f "$results"' EXIT
timeout -k 10 1800 "$program" -j"$(nproc 2>/dev/null || echo 1)" ${LS_TEST_ONLY:+--filter "$LS_TEST_ONLY"} --quiet --output=tap:"$results"
status=$?
cat "$results"
exit "$status"
