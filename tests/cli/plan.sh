#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# `longspan plan attend`: what it says of a method is what `attend` by that method then reports,
# backward too, and with --measure each method that fits has a time.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"

stdout_has() { [ "$status" -eq 0 ] && grep -qE -e "$1" "$work/stdout"; }

# number NAME: its first value in the JSON object that the last run printed
number() { sed -nE "s/.*\"$1\": *(-?[0-9.e+-]+).*/\1/p" "$work/stdout" | head -n 1; }

# planned METHOD NAME: the number of that method's own object
planned()
{
    awk -v method="\"$1\"" -v name="\"$2\":" '
        $1 == "\"method\":" { found = index($2, method) == 1 }
        found && $1 == name { sub(/,$/, "", $2); print $2; exit }' "$work/plan"
}

few="--random 2,4,2,64,9000,32 --threads 1"
longspan plan attend --random 1,2,2,300,600,32 --ranks 1 --measure --json -
holds "one rank needs no messages to be timed" stdout_has '"seconds": *[0-9.e-]+'

# tensors_of OPTION...: bytes of tensors by ring on three ranks, whose two heads have 300 queries
tensors_of()
{
    longspan plan attend --random 1,2,2,300,300,16 --ranks 3 --json - "$@"
    cp "$work/stdout" "$work/plan"
    planned ring tensor_bytes
}
forward=$(tensors_of) backward=$(tensors_of --backward)
holds "sinks bring no tensor" test "$(tensors_of --sinks=0,1)" -eq "$forward"
holds "a gradient of each does" test "$(tensors_of --sinks=0,1 --backward)" -eq $((backward + 8))

# 2^24 leaves, few of which are looked at one by one: seconds of processor time
# shellcheck disable=SC2016 # of the shell that is started
run sh -c 'ulimit -t 10 && exec "$@"' sh "$LONGSPAN" plan attend \
    --random 1,8,8,4294967296,4294967296,64 --causal --ranks 1024 --json -
holds "2^32 tokens on 1024 ranks" stdout_has '"auto": *"usp"'
cp "$work/stdout" "$work/plan"
holds "all of their keys and values go round the ring" \
    test "$(planned ring bytes_sent)" -eq $((4294967296 * 8 * 64 * 2 * 2 * 1023))

has_mpi || { echo "SKIPPED: several ranks, there is no MPI launcher"; exit "$failed"; }

# shellcheck disable=SC2086 # option and value
{
    on_ranks 2 plan attend $few --measure --json -
    cp "$work/stdout" "$work/plan"
    for method in ring ring2 ulysses usp allreduce tree allgather; do
        on_ranks 2 attend $few --method "$method" --json -
        holds "$method sends what was planned" \
            test "$(number bytes_sent)" -eq "$(planned "$method" bytes_sent)"
        holds "$method has a time" test -n "$(planned "$method" seconds)"
    done
}
cp "$work/plan" "$work/times"

# few queries, so that tree fits
back="--random 1,2,2,600,900,16 --threads 1 --causal --backward"
# shellcheck disable=SC2086 # option and value
{
    on_ranks 2 plan attend $back --json -
    cp "$work/stdout" "$work/plan"
    for method in ring ring2 ulysses usp allreduce tree allgather; do
        on_ranks 2 attend $back --method "$method" --json -
        for name in bytes_sent backward_bytes_sent; do
            holds "backward, $method: $name as planned" \
                test "$(number $name)" -eq "$(planned "$method" $name)"
        done
    done
    holds "memory of gradients" test "$(planned ring bytes_per_rank)" -gt \
        $(($(planned ring tensor_bytes) + $(planned ring gradient_bytes)))
}
cp "$work/times" "$work/stdout"
holds "messages have a rate" stdout_has '"message_bytes_per_second": *[1-9]'
holds "few queries visit" stdout_has '"auto": *"tree"'

exit "$failed"
