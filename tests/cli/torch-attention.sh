#!/bin/sh
# shellcheck disable=SC2154 # variables of the harness
# Attention of models as transformers computes it is right: Llama, Mistral, Gemma 2, gpt-oss,
# DeepSeek-V2 and T5, with windows, padding, a soft cap, sinks, biases by distance and narrow values.
# As torch-layer.sh, where PyTorch is in the cache, or with LS_TEST_TORCH=1.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
python=${XDG_CACHE_HOME:-$HOME/.cache}/longspan/venv-torch/bin/python

if [ -z "${LS_TEST_TORCH-}" ] &&
    ! "$python" -c 'import torch, transformers, safetensors' 2>/dev/null; then
    echo "SKIPPED: PyTorch and transformers are not in the cache; LS_TEST_TORCH=1 downloads 5.5 GB"
    exit 77
fi
export LONGSPAN LS_TEST_TIMEOUT="${LS_TEST_TIMEOUT-900}"
run python3 -B "${srcdir-.}/tools/attention_from_transformers.py"
cat "$work/stdout"
case $status in
0) ;;
3)
    cat "$work/stderr"
    echo "SKIPPED: transformers cannot be had from PyPI"
    exit 77
    ;;
*) fails "exit status $status" ;;
esac
exit "$failed"
