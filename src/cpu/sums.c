/* What sums of partial gradients are added with. */
#include <string.h>

#include "base/cpu.h"
#include "cpu/sum_forest.h"
#include "longspan/attention.h"

/* Static: compilers export what they clone, whatever the visibility. */
LS_CLONED static void add(float *restrict into, const float *restrict from, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) into[i] += from[i];
}

void add_floats(float *restrict into, const float *restrict from, int64_t n)
{
    add(into, from, n);
}

/* to = a + b, of which one may be `to` */
LS_CLONED static void add_row(float *to, const float *a, const float *b, int d)
{
#pragma omp simd
    for (int i = 0; i < d; i++) to[i] = a[i] + b[i];
}

void sum_path_take(const struct sum_path *path, int first, int rows, struct sums x)
{
    const int end = first + rows < path->rows ? first + rows : path->rows;

    for (int r = first; r < end; r++, x.at += x.stride) {
        float *total = path->total.at + r * path->total.stride, sum[LS_MAX_HEAD_DIM];
        const float *from = x.at;

        if (path->count == 0 && total != from) memcpy(total, from, (size_t)path->d * sizeof *total);
        for (int i = 0; i < path->count; i++) {
            float *to = i == path->count - 1 ? total : sum;

            add_row(to, path->waiting[i].at + r * path->waiting[i].stride, from, path->d);
            from = to;
        }
    }
}

void sums_add(struct sums into, struct sums from, int rows, int d)
{
    for (int r = 0; r < rows; r++) add(into.at + r * into.stride, from.at + r * from.stride, d);
}

void sums_copy(struct sums into, struct sums from, int rows, int d)
{
    for (int r = 0; r < rows; r++)
        memcpy(into.at + r * into.stride, from.at + r * from.stride, (size_t)d * sizeof *from.at);
}

void sums_clear(struct sums sums, int rows, int d)
{
    for (int r = 0; r < rows; r++) memset(sums.at + r * sums.stride, 0, (size_t)d * sizeof(float));
}
