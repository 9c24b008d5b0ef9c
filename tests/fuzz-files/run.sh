#!/bin/sh
# Feeds the readers of .npy and .safetensors files what libFuzzer thinks of, with sanitizers, each for
# so many seconds, side by side; what it starts from is corpus/. Prints the bytes of a file that does
# harm. Exit status 77 without clang and its runtime.
#   run.sh [SECONDS]    default 60
set -u
cd "$(dirname "$0")/../.." || exit 99
seconds=${1-60}
work=$(mktemp -d) || exit 99
trap 'rm -rf "$work"' EXIT

sources="src/tensor/dtype.c src/tensor/file.c src/tensor/header.c src/tensor/npy.c \
    src/tensor/safetensors.c src/tensor/tensor.c src/tensor/transfer.c"

# build NAME
build()
{
    # shellcheck disable=SC2086 # several words
    clang -std=gnu11 -D_GNU_SOURCE -g -O1 -Wall -fsanitize=fuzzer,address,undefined \
        -fno-sanitize-recover=undefined -Iinclude -Isrc -Itests "tests/fuzz-files/fuzz_$1.c" \
        src/base/*.c $sources -lhwloc -ljansson -o "$work/$1"
}

# fuzz NAME: new inputs of interest go to a folder that vanishes.
fuzz()
{
    mkdir "$work/$1.new"
    "$work/$1" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="$work/$1.harm-" "$work/$1.new" "tests/fuzz-files/corpus/$1" \
        >"$work/$1.log" 2>&1
}

# verdict NAME STATUS: what came of it, and the bytes of a file that did harm.
verdict()
{
    if [ "$2" -eq 0 ]; then
        echo "ok - $1: $(tail -n 1 "$work/$1.log")"
        return
    fi
    echo "not ok - $1: exit status $2"
    tail -n 60 "$work/$1.log"
    for file in "$work/$1".harm-*; do
        [ -f "$file" ] || continue
        echo "to have this file: base64 -d >$(basename "$file") <<END"
        base64 "$file"
        echo END
    done
    return 1
}

if ! ls "$(clang -print-runtime-dir 2>/dev/null)"/libclang_rt.fuzzer* >/dev/null 2>&1; then
    echo "SKIPPED: no clang with libFuzzer here"
    exit 77
fi
build npy && build safetensors || exit 1
fuzz npy &
npy=$!
fuzz safetensors
safetensors=$?
wait "$npy"
npy=$?
failed=0
verdict npy "$npy" || failed=1
verdict safetensors "$safetensors" || failed=1
exit "$failed"
