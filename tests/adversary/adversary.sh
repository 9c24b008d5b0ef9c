#!/bin/sh
# shellcheck disable=SC2154 # variables of the harness
# MPI at its worst (layer.c) finds the faults that are planted in the control program, and none in
# Longspan: every method, forward and backward, fast and strict, and from ranks' own rows.
#   LS_TEST_ONLY, a pattern, chooses among control and the tests below; LS_TEST_NP, numbers of ranks
#   LS_ADVERSARY_SEED    repeats a failure (default: another one each time)
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
# a test and numbers of ranks; control has two
tests="control 2
matrix/exactly_this_runs_and_is_right 2 3 5
redistribute/strict_bits_do_not_depend_on_whose_rows_they_are 3
strict_backward/generic 3"
here=$PWD/tests/adversary
LS_ADVERSARY_SEED=${LS_ADVERSARY_SEED-$(date +%s)}
export LS_ADVERSARY_SEED

has_mpi || { echo "SKIPPED: there is no MPI launcher"; exit 77; }
[ -x tests/mpi/test_matrix.mpi ] || { echo "SKIPPED: configured without Criterion"; exit 77; }
echo "LS_ADVERSARY_SEED=$LS_ADVERSARY_SEED"
MPIEXEC_FLAGS="LD_PRELOAD=$here/layer.so $MPIEXEC $MPIEXEC_FLAGS" MPIEXEC=env
export MPIEXEC MPIEXEC_FLAGS

# control [FAULT]: on two ranks
control()
{
    # shellcheck disable=SC2086 # the flags are several words
    run "$MPIEXEC" $MPIEXEC_FLAGS -n 2 "$here/control.mpi" "$@"
}

try_control()
{
    control
    if [ "$status" -eq 0 ]; then passed "no fault"; else fails "no fault"; fi
    "$here/control.mpi" --list >"$work/faults"
    while read -r fault says; do
        LS_ADVERSARY_PATIENCE=2 control "$fault"
        if [ "$status" -ne 0 ] && grep -q -e "$says" "$work/stderr"; then
            passed "$fault"
        else
            fails "$fault"
        fi
    done <"$work/faults"
}

# try TEST RANKS: which there must be
try()
{
    LS_TEST_ONLY=$1 LS_TEST_NP=${LS_TEST_NP-$2} sh "${srcdir-.}/tests/run_mpi.sh" \
        "tests/mpi/test_${1%/*}.mpi" >"$work/stdout" 2>&1 </dev/null
    status=$?
    : >"$work/stderr"
    if [ "$status" -eq 0 ] && grep -q "^ok" "$work/stdout"; then passed "$1"; else fails "$1"; fi
}

while read -r name ranks; do
    # shellcheck disable=SC2254 # a pattern
    case $name in ${LS_TEST_ONLY:-*}) ;; *) continue ;; esac
    if [ "$name" = control ]; then try_control; else try "$name" "$ranks"; fi
done <<END
$tests
END

exit "$failed"
