/* What this machine can do at best: products in cache, and reading memory. */
#include "cpu/rates.h"

#include <omp.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "base/ledger.h"
#include "base/profile.h"
#include "cpu/device.h"
#include "cpu/gemm.h"
#include "cpu/threads.h"
#include "tensor/dtype.h"

/* ---- products */

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

    LS_TRY(cpu_gemm_create(
        &gemm, type, &(struct gemm_shape){.m = m, .n = n, .k = k, .a_stride = k, .b_stride = n}));
    ls_status status = LS_OK;
    if (cpu_gemm_packed_bytes(gemm) > packed_bytes(type, k, n))
        status = ls_fail(LS_EINTERNAL, GEMM_NAME " packs %d x %d into %zu bytes", k, n,
                         cpu_gemm_packed_bytes(gemm));
    for (const double end = ls_now() + RATE_SECONDS; status == LS_OK && ls_now() < end;) {
        const double since = ls_now();
        for (int i = 0; i < RATE_BATCH && status == LS_OK; i++)
            status = cpu_gemm_run((float *)(void *)c, gemm, a, b, memory);
        const double rate =
            2e-9 * (double)m * (double)n * (double)k * RATE_BATCH / (ls_now() - since);
        if (rate > best) best = rate;
    }
    cpu_gemm_destroy(gemm);
    *gflops = best;
    return status;
}

static ls_status gemm_rate(double *gflops, void *self, ls_dtype type, int m, int n, int k)
{
    const struct cpu *cpu = self;
    const int threads = cpu->threads;
    double total = 0;
    int failed = LS_OK;
    void *memory;

    if (!cpu_gemm_has_type(cpu->isa, type))
        return ls_fail(LS_ETYPE, "%s has no products of type %s", ls_isa_name(cpu->isa),
                       ls_dtype_name(type));
    LS_TRY(cpu_threads_start(threads));
    const size_t bytes = GEMM_SCRATCH + operand_bytes(type, m, k) + operand_bytes(LS_F32, m, n) +
                         packed_bytes(type, k, n);
    LS_TRY(ls_alloc(&memory, LS_TAG_WORKSPACE, bytes * (size_t)threads));
    memset(memory, 0, bytes * (size_t)threads);
    cpu_gemm_limit_isa(cpu->isa);
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

/* ---- memory */

#define PASSES 8
#define PASS_BYTES ((size_t)16 << 20) /* of a thread, the least that is timed */
#define LINE 64
#define AHEAD 4096

/* Reads all lines, the fastest way that was found: with words of any width it is the same. */
static uint64_t read_lines(const char *from, size_t bytes)
{
    uint64_t sum[LINE / sizeof(uint64_t)] = {0}, all = 0;

    for (size_t i = 0; i < bytes; i += LINE) {
        const uint64_t *line = (const void *)(from + i);

        __builtin_prefetch(from + i + AHEAD);
        for (size_t j = 0; j < LINE / sizeof *line; j++) sum[j] ^= line[j];
    }
    for (size_t j = 0; j < LINE / sizeof *sum; j++) all ^= sum[j];
    return all;
}

static ls_status read_rate(double *gbs, void *self, size_t bytes)
{
    const int threads = ((const struct cpu *)self)->threads;
    const size_t own = (bytes / (size_t)threads + LINE - 1) / LINE * LINE;
    const size_t times = own < PASS_BYTES ? (PASS_BYTES + own - 1) / own : 1;
    _Atomic uint64_t seen = 0; /* without it the compiler would read nothing */
    double best = 0;
    void *memory;

    LS_TRY(cpu_threads_start(threads));
    LS_TRY(ls_alloc(&memory, LS_TAG_WORKSPACE, own * (size_t)threads));
#pragma omp parallel num_threads(threads)
    {
        char *mine = (char *)memory + own * (size_t)omp_get_thread_num();

        memset(mine, 1, own); /* near the thread that reads it */
        for (int pass = 0; pass < PASSES; pass++) {
#pragma omp barrier
            const double since = ls_now();
            for (size_t i = 0; i < times; i++) atomic_fetch_xor(&seen, read_lines(mine, own));
#pragma omp barrier
#pragma omp master
            {
                const double read = (double)own * (double)times * omp_get_num_threads();
                const double rate = 1e-9 * read / (ls_now() - since);
                if (rate > best) best = rate;
            }
        }
    }
    ls_free(memory);
    *gbs = best;
    return LS_OK;
}

const struct ls_rate_ops cpu_rate_ops = {.gemm = gemm_rate, .read = read_rate};
