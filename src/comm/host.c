/* Sums, copies and memory of a transport between hosts. */
#include <math.h>
#include <string.h>

#include "base/ledger.h"
#include "comm/transport.h"
#include "tensor/dtype.h"

#define BLOCK 1024 /* values in f32 at once */

void ls_copy_on_host(void *self, void *to, const void *from, size_t bytes)
{
    (void)self;
    if (bytes > 0) memcpy(to, from, bytes);
}

ls_status ls_alloc_on_host(void **out, void *self, size_t bytes)
{
    (void)self;
    return ls_alloc(out, LS_TAG_COMM, bytes);
}

void ls_free_on_host(void *self, void *memory)
{
    (void)self;
    ls_free(memory);
}

double ls_reduce_two(double a, double b, ls_reduction how)
{
    switch (how) {
    case LS_REDUCE_SUM:
        return a + b;
    case LS_REDUCE_MAX:
        return isnan(a) || a > b ? a : b;
    case LS_REDUCE_MIN:
        return isnan(a) || a < b ? a : b;
    }
    return a;
}

/* Sums stay in f32. */
static void fold(float *into, const float *more, int64_t n, ls_reduction how)
{
    if (how == LS_REDUCE_SUM)
        for (int64_t i = 0; i < n; i++) into[i] += more[i];
    else
        for (int64_t i = 0; i < n; i++)
            into[i] = (float)ls_reduce_two((double)into[i], (double)more[i], how);
}

void ls_fold_on_host(void *self, void *out, const void *part, int parts, int64_t stride, int64_t n,
                     ls_dtype type, ls_reduction how)
{
    const int64_t size = ls_dtype_size(type);
    float sum[BLOCK], more[BLOCK];

    (void)self;
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t count = n - first < BLOCK ? n - first : BLOCK;

        for (int i = 0; i < parts; i++) {
            const char *from = (const char *)part + (i * stride + first) * size;

            ls_dtype_convert(i == 0 ? sum : more, LS_F32, from, type, count);
            if (i > 0) fold(sum, more, count, how);
        }
        ls_dtype_convert((char *)out + first * size, type, sum, LS_F32, count);
    }
}
