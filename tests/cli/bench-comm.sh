#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# `bench comm` on several numbers of ranks: the table is whole, its numbers agree with each other,
# nothing is wrong; and wrong options are named.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99
operations="sendrecv broadcast all-reduce reduce-scatter all-gather all-to-all"

verified() { [ "$status" -eq 0 ] && tail -n 1 stdout | grep -q '^verified: ok, 0 wrong values'; }

# rows OPERATION COUNT: so many lines of it, without a wrong value
rows() { [ "$(grep -cE "^  $1 .* 0\$" stdout)" -eq "$2" ]; }

# consistent RANKS: in b.json, rates are bytes by seconds, and bus rates by nccl-tests' factors
consistent()
{
    awk -v p="$1" '
        function near(a, b) { return a + 0 >= b * 0.999999 && a + 0 <= b * 1.000001 }
        BEGIN {
            factor["sendrecv"] = factor["broadcast"] = 1
            factor["all-reduce"] = 2 * (p - 1) / p
            factor["reduce-scatter"] = factor["all-gather"] = factor["all-to-all"] = (p - 1) / p
        }
        { name = $1; value = $2; gsub(/[",:]/, "", name); gsub(/[",]/, "", value) }
        { row[name] = value }
        name == "wrong" && "busbw_gbs" in row {
            op = row["operation"]
            parts = op ~ /^(reduce-scatter|all-gather|all-to-all)$/ ? p : 1
            if (!near(row["algbw_gbs"], row["bytes"] / row["seconds"] / 1e9) ||
                !near(row["busbw_gbs"], row["algbw_gbs"] * factor[op]) ||
                row["bytes"] != 4 * row["count"] * parts || value != 0)
                bad = 1
            sum += row["busbw_gbs"]
            rows++
            delete row["busbw_gbs"]
        }
        END { exit bad || rows != 30 || !near(row["average_busbw_gbs"] + 1, sum / rows + 1) }' b.json
}

# below_100_us REPEAT: so little time in b.json, as the mean of so many
below_100_us()
{
    awk -v repeat="$1" '
        /"repeat"/ { right = $2 + 0 == repeat }
        /"seconds"/ { quick = $2 + 0 < 1e-4 }
        END { exit !(right && quick) }' b.json
}

# table RANKS: what the last run printed and wrote, for sizes 8, 32, 128, 512 and 1000
table()
{
    holds "$1 ranks, verified" verified
    for operation in $operations; do
        holds "$1 ranks, $operation" rows "$operation" 5
    done
    holds "$1 ranks, the JSON" consistent "$1"
}
sizes="--largest 1000 --json b.json"

# shellcheck disable=SC2086
longspan bench comm $sizes
table 1
longspan bench comm --op sendrecv --largest 8 --repeat 100000 --json b.json
holds "the time is that of one exchange" below_100_us 100000
if has_mpi; then
    for ranks in 2 3; do
        # shellcheck disable=SC2086
        on_ranks $ranks bench comm $sizes
        table $ranks
    done
    on_ranks 2 bench comm --op all-to-all --op broadcast --smallest 1M --largest 2M --repeat 2
    holds "what was chosen: all-to-all" rows all-to-all 2
    holds "what was chosen: broadcast" rows broadcast 2
    holds "what was chosen: nothing else" test "$(grep -c '^  ' stdout)" -eq 4
    on_ranks 3 bench comm --largest 16 --op all-gather
    holds "sizes that round up to the same are measured once" rows all-gather 2
else
    echo "SKIPPED: several ranks, there is no MPI launcher"
fi

# bad NAME PATTERN OPTION...: refused with exit status 2 and a message
bad()
{
    name=$1 pattern=$2
    shift 2
    longspan bench comm "$@"
    if [ "$status" -eq 2 ] && [ ! -s stdout ] && grep -qE -e "$pattern" stderr; then
        passed "$name"
    else
        fails "$name"
    fi
}
bad "unknown operation" "all-reduc'.*'all-reduce'" --op all-reduc
bad "no size" "--smallest: '0'" --smallest 0
bad "unknown unit" "--largest: '1Q'.*256M" --largest 1Q
bad "too large" "--largest" --largest 1025G
bad "sizes in the wrong order" "--smallest 1024 is more than --largest 64" \
    --smallest 1K --largest 64
bad "no repeats" "--repeat" --repeat 0
bad "surplus argument" "surplus" surplus
longspan bench comm --largest 1024G
holds "more than there is memory" test "$status" -eq 3
holds "more than there is memory, said" grep -q 'not enough memory' stderr
exit "$failed"
