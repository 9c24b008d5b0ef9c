#!/bin/sh
# check-layers.sh notices each kind of breach, and accepts what is allowed.
set -u
check=$(cd "${srcdir-.}" && pwd)/tests/check-layers.sh
root=$(mktemp -d) || exit 99
trap 'rm -rf "$root"' EXIT
failed=0

# expect STATUS FILE LINE...: a tree whose FILE holds these lines is accepted (0) or refused (1)
expect()
{
    expected=$1 file=$2
    shift 2
    rm -rf "${root:?}"/*
    mkdir -p "$root/src/cli" "$root/src/cpu" "$root/include/longspan" "$root/examples" \
        "$root/tests/device" \
        "$root/$(dirname "$file")"
    echo '#include <mpi.h>' >"$root/src/cli/start.c"
    echo '#include <oneapi/dnnl/dnnl.h>' >"$root/src/cpu/gemm.c"
    printf '%s\n' "$@" >"$root/$file"
    sh "$check" "$root" >"$root/output"
    status=$?
    [ "$status" -eq "$expected" ] && return
    echo "$file with '$*': exit status $status, expected $expected"
    cat "$root/output"
    failed=1
}

expect 0 src/attention/methods/ring.c '#include "attention/plan.h"' '#include "comm/comm.h"' \
    '#include "longspan/attention.h"' '#include <stdio.h>' '#include "config.h"'
expect 0 src/attention/methods/ring.c '#include "attention/merging/fold.h"'
expect 0 src/attention/create.c '#include "attention/methods/table.h"'
expect 0 src/judge/judge.c '#include "attention/problem.h"' '#include "reference/contract.h"'
expect 0 src/backends.c '#include "cpu/cpu.h"' '#include "mpi/comm.h"'
expect 0 src/mpi/comm.c '#include <mpi.h>' '#include "longspan/mpi.h"' '#include "mpi/comm.h"'
expect 0 src/cpu/attention/tile.c '#pragma omp parallel' '    snprintf(name, 3, "a");'
expect 0 include/longspan/mpi.h '#include <mpi.h>' '#include "longspan/comm.h"'
expect 0 examples/a.c '#include <mpi.h>' '#include "longspan/mpi.h"' 'printf("a");'
expect 0 tests/device/harness.h '#include "device/rows.h"' '#include "attention/options.h"' \
    '#include "mirror.h"'

expect 1 src/base/status.c '#include "tensor/tensor.h"'
expect 1 src/comm/comm.c '#include "device/device.h"'
expect 1 src/judge/judge.c '#include "attention/plan.h"'
expect 1 src/attention/create.c '#include "judge/batch.h"'
expect 1 src/store/input.c '#include "judge/rows.h"'
expect 1 src/plan/memory.c '#include "attention/method.h"'
expect 1 src/attention/methods/ring.c '#include "cpu/cpu.h"'
expect 1 src/attention/methods/ring.c '#  include "cli/cli.h"'
expect 1 src/attention/methods/ring.c '#include "ring.h"'
expect 1 src/attention/merging/fold.h '#include "attention/methods/ring.h"'
expect 1 src/attention/merging/fold.c '#include "attention/travelling/swap.h"'
expect 1 src/attention/plan.h '#include "attention/merging/fold.h"'
expect 1 src/cpu/attention/tile.c '#include "mpi/comm.h"'
expect 1 src/attention/methods/ring.c '#include <mpi.h>'
expect 1 src/attention/methods/ring.c '#include "longspan/mpi.h"'
expect 1 src/cli/attend.c '#include <mpi.h>'
expect 1 src/cpu/attention/tile.c '#include <dnnl.h>'
expect 1 src/attention/methods/ring.c '#include "oneapi/dnnl/dnnl.h"'
expect 1 src/attention/methods/ring.c '    #pragma omp parallel'
expect 1 src/attention/methods/ring.c '    memcpy(to, from, bytes);'
expect 1 src/attention/methods/ring.c '    if (isa == LS_ISA_AMX) return;'
expect 1 src/plan/attention_size.c '    const int threads = omp_get_max_threads();'
expect 0 src/cli/info.c '    const int processors = omp_get_num_procs();'
expect 1 src/attention/methods/ring.c '    exit(1);'
expect 1 src/tensor/npy.c '    fprintf(stderr, "bad shape");'
expect 1 src/kitchen/sink.c ''
expect 1 include/longspan/comm.h '#include "comm/comm.h"'
expect 1 examples/a.c '#include "attention/plan.h"'
expect 1 tests/device/test_decode.c '#include "cpu/attention/decode.h"'
exit $failed
