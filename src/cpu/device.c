#include "cpu/device.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cgroup.h"
#include "base/ledger.h"
#include "cpu/attention/attention.h"
#include "cpu/gemm.h"
#include "cpu/gradient/kernel.h"
#include "cpu/read_rate.h"
#include "cpu/rows/copy.h"
#include "cpu/threads.h"

#define RATE_SECONDS 0.2
#define RATE_BATCH 8 /* products between two looks at the clock */

/* oneDNN pads a packed operand to blocks of at most 64 by 64. */
static size_t packed_bytes(ls_dtype type, int k, int n)
{
    return (size_t)((k + 63) / 64 * 64) * (size_t)((n + 63) / 64 * 64) *
           (size_t)ls_dtype_size(type);
}

static size_t operand_bytes(ls_dtype type, int rows, int columns)
{
    return ((size_t)rows * (size_t)columns * (size_t)ls_dtype_size(type) + 63) / 64 * 64;
}

/* One thread's best rate over RATE_SECONDS, on its own operands: scratch, A, C, packed B. */
static ls_status thread_rate(double *gflops, ls_dtype type, int m, int n, int k, char *memory)
{
    char *a = memory + GEMM_SCRATCH, *c = a + operand_bytes(type, m, k);
    char *b = c + operand_bytes(LS_F32, m, n);
    struct gemm *gemm;
    double best = 0;

    LS_TRY(gemm_create(&gemm, type,
                       &(struct gemm_shape){.m = m, .n = n, .k = k, .a_stride = k, .b_stride = n}));
    ls_status status = LS_OK;
    if (gemm_packed_bytes(gemm) > packed_bytes(type, k, n))
        status = ls_fail(LS_EINTERNAL, GEMM_NAME " packs %d x %d into %zu bytes", k, n,
                         gemm_packed_bytes(gemm));
    for (const double end = ls_now() + RATE_SECONDS; status == LS_OK && ls_now() < end;) {
        const double since = ls_now();
        for (int i = 0; i < RATE_BATCH && status == LS_OK; i++)
            status = gemm_run((float *)(void *)c, gemm, a, b, memory);
        const double rate =
            2e-9 * (double)m * (double)n * (double)k * RATE_BATCH / (ls_now() - since);
        if (rate > best) best = rate;
    }
    gemm_destroy(gemm);
    *gflops = best;
    return status;
}

static ls_status gemm_rate(double *gflops, ls_isa isa, ls_dtype type, int m, int n, int k,
                           int threads)
{
    double total = 0;
    int failed = LS_OK;
    void *memory;

    if (!gemm_has_type(isa, type))
        return ls_fail(LS_ETYPE, "%s has no products of type %s", ls_isa_name(isa),
                       ls_dtype_name(type));
    LS_TRY(threads_start(threads));
    const size_t bytes = GEMM_SCRATCH + operand_bytes(type, m, k) + operand_bytes(LS_F32, m, n) +
                         packed_bytes(type, k, n);
    LS_TRY(ls_alloc(&memory, LS_TAG_WORKSPACE, bytes * (size_t)threads));
    memset(memory, 0, bytes * (size_t)threads);
    gemm_limit_isa(isa);
#pragma omp parallel num_threads(threads) reduction(+ : total) reduction(max : failed)
    {
        omp_set_num_threads(1); /* for oneDNN, which looks at this task's own setting */
#pragma omp barrier
        failed = (int)thread_rate(&total, type, m, n, k,
                                  (char *)memory + bytes * (size_t)omp_get_thread_num());
    }
    ls_free(memory);
    if (failed != LS_OK)
        return ls_fail((ls_status)failed, GEMM_NAME " products cannot multiply %d x %d x %d in %s",
                       m, n, k, ls_dtype_name(type));
    *gflops = total;
    return LS_OK;
}

/* OpenMP counts processors, of whose time a control group may give less. Who has set a number means
 * it. */
static int default_threads(void)
{
    const int threads = omp_get_max_threads();
    struct ls_cgroup_limit processors;

    if (getenv("OMP_NUM_THREADS") || threads != omp_get_num_procs()) return threads;
    ls_cgroup_processors(&processors, "");
    return (int)fmin(threads, fmax(1, ceil(processors.limit)));
}

const struct ls_device_ops ls_cpu_device_ops = {
    .name = "cpu",
    .library = gemm_library,
    .merge = cpu_merge,
    .canonical = cpu_is_canonical,
    .threads = default_threads,
    .gemm_rate = gemm_rate,
    .read_rate = cpu_read_rate,
    .kernel_bytes = cpu_kernel_bytes,
    .kernel_create = cpu_kernel_create,
    .kernel_destroy = cpu_kernel_destroy,
    .kernel_name = cpu_kernel_name,
    .attend = cpu_attend,
    .gradient_name = cpu_gradient_name,
    .gradient_bytes = cpu_gradient_bytes,
    .gradient_create = cpu_gradient_create,
    .gradient_destroy = cpu_gradient_destroy,
    .gradient = cpu_gradient,
    .delta = cpu_delta,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .add = cpu_add,
    .round_sums = cpu_round_sums,
};
