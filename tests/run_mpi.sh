#!/bin/sh
# Log compiler of the MPI tests: runs every test of a Criterion program by itself under the MPI
# launcher (MPI can be initialised once per launched process only, and Criterion starts one process
# a test), once for each number of ranks in LS_TEST_NP (a test may read it, too), and prints the
# results as TAP.
# MPIEXEC and MPIEXEC_FLAGS name the launcher; LS_TEST_TIMEOUT is seconds a test may take;
# LS_TEST_ONLY, a pattern like */strict*, chooses among the tests.
set -u
program=$1
export LS_TEST_NP="${LS_TEST_NP-1 2 3 4 5 8}"

if [ -z "${MPIEXEC-}" ]; then
    echo "1..0 # SKIP no MPI launcher was found by configure"
    exit 0
fi

# `prog --list` prints "SUITE: 2 tests" and below it one line a test, drawn as a tree.
tests=$("$program" --list | awk '
    /: [0-9]+ tests?$/ { suite = $1; sub(/:$/, "", suite); next }
    NF { print suite "/" $NF }')
if [ -z "$tests" ]; then
    echo "Bail out! $program lists no tests"
    exit 1
fi

output=$(mktemp) || exit 99
trap 'rm -f "$output"' EXIT
count=0
failed=0
for test in $tests; do
    # shellcheck disable=SC2254 # a pattern
    case $test in ${LS_TEST_ONLY:-*}) ;; *) continue ;; esac
    for np in $LS_TEST_NP; do
        count=$((count + 1))
        # shellcheck disable=SC2086 # the flags are several words
        if timeout -k 10 "${LS_TEST_TIMEOUT-600}" "$MPIEXEC" ${MPIEXEC_FLAGS-} -n "$np" \
            "$program" -j1 --filter "$test" >"$output" 2>&1 </dev/null; then
            skipped=$(sed -n '/^SKIP /{p;q}' "$output") # see MPI_SKIP in tests/mpi/harness.h
            echo "ok $count - $test np=$np${skipped:+ # $skipped}"
        else
            echo "not ok $count - $test np=$np (exit status $?)"
            failed=1
        fi
        sed 's/^/# /' "$output"
    done
done
echo "1..$count"
exit $failed
