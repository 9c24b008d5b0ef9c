#!/bin/sh
# shellcheck disable=SC2154 # variables of the harness
# `longspan attend --strict`: files of any number of ranks, threads, methods and layouts are the same
# byte by byte; ranks that would compute otherwise, or were started otherwise, are refused.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"

refused()
{
    if [ "$status" -eq 2 ] && grep -qE -e "$2" "$work/stderr"; then passed "$1"; else fails "$1"; fi
}

input="--random 1,4,2,700,1300,40 --causal --quiet"

# one INPUT: what one rank finds; same NAME: the last run left the same file
one()
{
    # shellcheck disable=SC2086 # options and values
    longspan attend $1 --strict --threads 1 --out "$work/one.safetensors"
    [ "$status" -eq 0 ] || fails "one rank: $1"
}
same()
{
    if [ "$status" -eq 0 ] && cmp "$work/one.safetensors" "$work/many.safetensors"; then
        passed "$1"
    else
        fails "$1"
    fi
    rm -f "$work/many.safetensors"
}

# fingerprint MORE [OPTION...]: it names what multiplies, also backward
fingerprint()
{
    more=$1
    shift
    longspan attend --random 1,1,1,300,300,16 --strict --json - --threads 1 "$@"
    if grep -q '"strict": true' "$work/stdout" && grep -qE "\"fingerprint\": \"longspan [0-9.]+, \
[a-z0-9]+, (oneDNN [0-9.]+|own products), leaf 256, $more\"" "$work/stdout"; then
        passed "the fingerprint of '$*' is in --json"
    else
        fails "the fingerprint of '$*' is in --json"
    fi
}
fingerprint "[A-Za-z0-9 -]+"
fingerprint "[A-Za-z0-9 -]+, backward [A-Za-z0-9 -]+" --backward

has_mpi || { echo "SKIPPED: several ranks, there is no MPI launcher"; exit "$failed"; }

for type in bf16 f32; do
    one "$input --dtype $type"
    for way in "2 --method ring" "3 --method ring --layout striped --threads 2" \
        "5 --method allgather --layout zigzag" "3 --method ulysses --threads 2" \
        "2 --method allreduce"; do
        # shellcheck disable=SC2086 # number of ranks, options and values
        on_ranks ${way%% *} attend ${way#* } $input --dtype "$type" --strict \
            --out "$work/many.safetensors"
        same "$type on $way"
    done
done

# gradients of sinks are sums over the rows of all ranks
gradients="--random 1,2,2,900,900,16 --causal --sinks=1,-1 --backward --quiet"
one "$gradients"
for way in "2 --method ring --layout zigzag" "3 --method allreduce" "5 --method allgather"; do
    # shellcheck disable=SC2086 # number of ranks, options and values
    on_ranks ${way%% *} attend ${way#* } $gradients --strict --out "$work/many.safetensors"
    same "dsinks on $way"
done

# rank 0 and rank 1 are started differently
case $MPIEXEC in
*mpirun* | *mpiexec*)
    # shellcheck disable=SC2086 # the flags are several words
    run "$MPIEXEC" $MPIEXEC_FLAGS -n 1 "$LONGSPAN" attend --random 1,1,1,300,300,16 --threads 1 : \
        -n 1 "$LONGSPAN" attend --random 1,1,1,300,301,16 --threads 1
    refused "other arguments" 'rank 1: it was started as .*300,301,16.*rank 0 as .*300,300,16'
    # shellcheck disable=SC2086 # the flags are several words
    run "$MPIEXEC" $MPIEXEC_FLAGS -n 1 env LONGSPAN_ISA=generic "$LONGSPAN" attend --random \
        1,1,1,300,300,16 --threads 1 --strict : -n 1 env LONGSPAN_ISA=avx2 "$LONGSPAN" attend \
        --random 1,1,1,300,300,16 --threads 1 --strict
    grep -q avx2 /proc/cpuinfo && refused "another instruction set" 'rank 1: it computes with longspan .*, avx2, '
    ;;
esac

exit "$failed"
