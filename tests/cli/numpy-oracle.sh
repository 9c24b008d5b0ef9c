#!/bin/sh
# shellcheck disable=SC2154 # variables of the harness
# Random cases of everything that attend can do are what an oracle of its own, in numpy, finds them to
# be. numpy comes from PyPI: the test is skipped where that cannot be reached.
#   LS_ORACLE_CASES  how many (default 30)
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"

python3 -c 'import ensurepip, venv' 2>/dev/null || {
    echo "SKIPPED: no python3 that can make virtual environments (Debian: python3-venv)"
    exit 77
}
ranks=1
has_mpi && ranks=3
export LONGSPAN MPIEXEC MPIEXEC_FLAGS LS_TEST_TIMEOUT="${LS_TEST_TIMEOUT-600}"
run python3 -B "${srcdir-.}/tests/python/attention_oracle.py" --ranks $ranks \
    --cases "${LS_ORACLE_CASES-30}"
cat "$work/stdout"
case $status in
0) ;;
3)
    cat "$work/stderr"
    echo "SKIPPED: numpy cannot be had from PyPI"
    exit 77
    ;;
*)
    cat "$work/stderr"
    fails "exit status $status"
    ;;
esac
exit "$failed"
