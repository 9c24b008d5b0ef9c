#!/bin/sh
# Log compiler of the MPI tests: runs the tests of a Criterion program under the MPI launcher, once
# for each number of ranks in LS_TEST_NP (a test may read it, too), and prints the results as TAP.
# A suite with a test called `together` is started once for all of its tests; where one fails, again
# for those after it. Other tests are started one by one (Criterion starts one process a test, and
# MPI can be initialised once per launched process only).
# MPIEXEC and MPIEXEC_FLAGS name the launcher; LS_TEST_TIMEOUT is seconds that one start may take;
# LS_TEST_ONLY, a pattern like */strict*, chooses among the tests.
set -u
program=$1
export LS_TEST_NP="${LS_TEST_NP-2 3}"

if [ -z "${MPIEXEC-}" ]; then
    echo "1..0 # SKIP no MPI launcher was found by configure"
    exit 0
fi

# `prog --list` prints "SUITE: 2 tests" and below it one line a test, drawn as a tree.
all=$("$program" --list | awk '
    /: [0-9]+ tests?$/ { suite = $1; sub(/:$/, "", suite); next }
    NF { print suite "/" $NF }')
if [ -z "$all" ]; then
    echo "Bail out! $program lists no tests"
    exit 1
fi

output=$(mktemp) || exit 99
trap 'rm -f "$output"' EXIT
count=0
failed=0

# chosen SUITE: its tests but `together`, those that LS_TEST_ONLY chooses
chosen()
{
    for test in $all; do
        # shellcheck disable=SC2254 # a pattern
        case $test in
        */together) ;;
        "$1"/*) case $test in ${LS_TEST_ONLY:-*}) echo "$test" ;; esac ;;
        esac
    done
}

# launch NP FILTER TEST...: what FILTER chooses runs these; where one fails, again those after it
launch()
{
    np=$1 filter=$2
    shift 2
    while [ $# -gt 0 ]; do
        # shellcheck disable=SC2086 # the flags are several words
        LS_TESTS="$*" LS_TEST_RANKS="$np" timeout -k 10 "${LS_TEST_TIMEOUT-900}" "$MPIEXEC" ${MPIEXEC_FLAGS-} \
            -n "$np" "$program" -j1 --filter "$filter" >"$output" 2>&1 </dev/null
        status=$?
        [ "$status" -ne 0 ] || [ "$filter" != "$1" ] || echo "PASSED $1" >>"$output"
        while read -r test skipped; do # see MPI_SKIP and mpi_run_test in tests/mpi/harness.h
            [ -n "$test" ] || continue
            count=$((count + 1))
            echo "ok $count - $test np=$np${skipped:+ # $skipped}"
            shift
        done <<END
$(awk '/^SKIP / { skip = $0 } /^PASSED / { print $2, skip; skip = "" }' "$output")
END
        if [ "$status" -ne 0 ] || [ $# -gt 0 ]; then
            count=$((count + 1))
            echo "not ok $count - ${1-$filter} np=$np (exit status $status)"
            failed=1
            [ $# -eq 0 ] || shift
        fi
        sed 's/^/# /' "$output"
    done
}

# shellcheck disable=SC2086 # several tests
for suite in $(printf '%s\n' "$all" | sed 's,/.*,,' | uniq); do
    tests=$(chosen "$suite")
    for np in $LS_TEST_NP; do
        case $all in
        *"$suite/together"*) launch "$np" "$suite/together" $tests ;;
        *) for test in $tests; do launch "$np" "$test" "$test"; done ;;
        esac
    done
done
echo "1..$count"
exit $failed
