#!/bin/sh
# Log compiler of the unit tests: runs one Criterion program and prints its results as TAP.
# One test at a time (-j1), since the OpenMP threads of a test own the cores. LS_TEST_ONLY, a
# pattern like */strict*, chooses among the tests.
set -u
program=$1

results=$(mktemp) || exit 99
trap 'rm -f "$results"' EXIT
timeout -k 10 1800 "$program" -j1 ${LS_TEST_ONLY:+--filter "$LS_TEST_ONLY"} --quiet --output=tap:"$results"
status=$?
cat "$results"
exit "$status"
