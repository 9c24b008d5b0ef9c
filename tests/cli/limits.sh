#!/bin/sh
# shellcheck disable=SC2016,SC2086,SC2154 # for another shell; options of several words; the harness
# What the system refuses (threads, memory, long files) is a failure while running: status 3 and one
# line that says what would help, never the status or signal of what noticed it. Stacks that are
# too small are bad input: status 2.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99
mkdir out
job="attend --random 1,2,2,300,300,64 --threads 2"

# under LIMIT COMMAND...: the command under a limit of the shell, such as "-v 4000000"
under()
{
    limit=$1
    shift
    run sh -c 'ulimit $1; shift; exec "$@"' sh "$limit" "$@"
}

# expect NAME STATUS PATTERN: one line, of Longspan, and nothing else is left
expect()
{
    if [ "$status" -eq "$2" ] && [ "$(grep -c '^longspan' stderr)" -eq 1 ] &&
        grep -qE -e "^longspan.*$3" stderr && [ -z "$(find out ! -type d)" ]; then
        passed "$1: $(grep '^longspan' stderr)"
    else
        fails "$1: status $status, not $2 and '$3'"
    fi
    rm -rf out
    mkdir out
}

# ---- threads

under "-v 4000000" "$LONGSPAN" --version
if [ "$status" -eq 0 ]; then # not with a sanitizer
    for command in "$job" "$job --verify --backward" "bench gemm" "bench memory --size 64K"; do
        under "-v 4000000" "$LONGSPAN" $command --threads 1000 --json out/j.json
        expect "$command: too little memory for 1000 threads" 3 "cannot start 1000 threads.*ulimit -v"
    done
    OMP_STACKSIZE=3G under "-v 4000000" "$LONGSPAN" $job --threads 4
    expect "too little memory for stacks of 3 GiB" 3 "cannot start 4 threads.*OMP_STACKSIZE"
    GOMP_STACKSIZE=3000000 under "-v 4000000" "$LONGSPAN" $job --threads 4 # gcc's own, not looked at
    expect "OpenMP ends the process" 3 "ended by a library: nothing was written"
else
    echo "SKIPPED: limits of memory: $(head -n 1 stderr)"
fi

as_nobody=
[ "$(id -u)" -ne 0 ] || as_nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
chmod 755 "$work"
run prlimit --nproc=100 $as_nobody "$LONGSPAN" --version
if [ "$status" -eq 0 ]; then
    run prlimit --nproc=100 $as_nobody "$LONGSPAN" $job --threads 1000
    expect "a limit of 100 processes" 3 "cannot start 1000 threads.*ulimit -u"
else
    echo "SKIPPED: a limit of processes: $(head -n 1 stderr)"
fi

# ---- stacks

for size in 16K 64K; do
    OMP_STACKSIZE=$size run "$LONGSPAN" $job --json out/j.json
    expect "OMP_STACKSIZE=$size" 2 "stack of .* KiB, kernels need .*OMP_STACKSIZE=1M"
done
under "-s 128" "$LONGSPAN" $job
expect "a limit of 128 KiB for stacks" 2 "stack of .* KiB, kernels need .*ulimit -s"
for dtype in bf16 f16 f32; do
    OMP_STACKSIZE=1M run "$LONGSPAN" $job --dtype $dtype --backward --verify=8
    [ "$status" -eq 0 ] || fails "OMP_STACKSIZE=1M, $dtype: status $status"
done
if has_mpi; then
    OMP_STACKSIZE=64K on_ranks 2 $job --json out/j.json
    expect "2 ranks: OMP_STACKSIZE=64K" 2 "stack of .* KiB, kernels need"
fi

# ---- files

for option in "--out out/o" "--trace out/t" "--json out/j"; do
    under "-f 1" "$LONGSPAN" $job --quiet $option
    expect "$option beyond the limit of files" 3 "out/.*: File too large"
done
run sh -c 'ulimit -f 1; exec "$@" >text' sh "$LONGSPAN" $job
expect "a text beyond the limit of files" 3 "standard output: File too large"
exit "$failed"
