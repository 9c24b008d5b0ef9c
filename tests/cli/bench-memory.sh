#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# `bench memory`: a rate for every thread that adds up; wrong sizes are named.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99

# adds_up: in m.json, two threads read twice what each of them does, and something
adds_up()
{
    awk '{ gsub(/[",:]/, ""); value[$1] = $2 }
        END { exit !(value["bytes"] == 262144 && value["threads"] == 2 &&
            value["read_gbs_per_thread"] > 0 &&
            value["read_gbs"] / value["read_gbs_per_thread"] > 1.999 &&
            value["read_gbs"] / value["read_gbs_per_thread"] < 2.001) }' m.json
}

longspan bench memory --size 256K --threads 2 --json m.json
holds "it measures" test "$status" -eq 0
holds "its rates add up" adds_up
holds "it says so" grep -q 'GB/s read' stdout
longspan bench memory --size 1K
holds "too small" test "$status" -eq 2
holds "too small, said" grep -q -e '--size' stderr
longspan bench memory --size 1024G
holds "more than there is memory" test "$status" -eq 3
exit "$failed"
