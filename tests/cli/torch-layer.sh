#!/bin/sh
# shellcheck disable=SC2154 # variables of the harness
# A layer has the y, dx and gradients of PyTorch's: of nn modules in f64, of GPT-2's and Llama's block
# of transformers in f32. PyTorch takes 5.5 GB, so it is used where it is in the cache already, and
# downloaded with LS_TEST_TORCH=1 only.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
python=${XDG_CACHE_HOME:-$HOME/.cache}/longspan/venv-torch/bin/python

if [ -z "${LS_TEST_TORCH-}" ] &&
    ! "$python" -c 'import torch, transformers, safetensors' 2>/dev/null; then
    echo "SKIPPED: PyTorch and transformers are not in the cache; LS_TEST_TORCH=1 downloads 5.5 GB"
    exit 77
fi
export LONGSPAN MPIEXEC MPIEXEC_FLAGS LS_TEST_TIMEOUT="${LS_TEST_TIMEOUT-900}"
ranks=1
has_mpi && ranks=1,4
run python3 -B "${srcdir-.}/tools/layer_from_torch.py" --ranks $ranks
cat "$work/stdout"
case $status in
0) ;;
3)
    cat "$work/stderr"
    echo "SKIPPED: PyTorch cannot be had from PyPI"
    exit 77
    ;;
*) fails "exit status $status" ;;
esac
exit "$failed"
