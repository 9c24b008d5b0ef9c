#include "cpu/read_rate.h"

#include <omp.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "base/ledger.h"
#include "base/profile.h"
#include "cpu/threads.h"

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

ls_status cpu_read_rate(double *gbs, size_t bytes, int threads)
{
    const size_t own = (bytes / (size_t)threads + LINE - 1) / LINE * LINE;
    const size_t times = own < PASS_BYTES ? (PASS_BYTES + own - 1) / own : 1;
    _Atomic uint64_t seen = 0; /* without it the compiler would read nothing */
    double best = 0;
    void *memory;

    LS_TRY(threads_start(threads));
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
