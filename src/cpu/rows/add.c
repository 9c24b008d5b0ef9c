/* What sums of partial gradients are added with. */
#include <string.h>

#include "base/cpu.h"
#include "cpu/gradient/sum_forest.h"
#include "longspan/attention.h"

/* Static: compilers export what they clone, whatever the visibility. */
LS_CLONED static void add(float *to, const float *a, const float *b, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] = a[i] + b[i];
}

void cpu_add_floats(float *to, const float *a, const float *b, int64_t n)
{
    add(to, a, b, n);
}

void cpu_sum_path_take(const struct sum_path *path, int first, int rows, struct sums x)
{
    const int end = first + rows < path->rows ? first + rows : path->rows;

    for (int r = first; r < end; r++, x.at += x.stride) {
        float *total = path->total.at + r * path->total.stride, sum[LS_MAX_HEAD_DIM];
        const float *from = x.at;

        if (path->count == 0 && total != from) memcpy(total, from, (size_t)path->d * sizeof *total);
        for (int i = 0; i < path->count; i++) {
            float *to = i == path->count - 1 ? total : sum;

            add(to, path->waiting[i].at + r * path->waiting[i].stride, from, path->d);
            from = to;
        }
    }
}

void cpu_sums_add(struct sums into, struct sums from, int rows, int d)
{
    for (int r = 0; r < rows; r++) {
        float *row = into.at + r * into.stride;

        add(row, row, from.at + r * from.stride, d);
    }
}

void cpu_sums_copy(struct sums into, struct sums from, int rows, int d)
{
    for (int r = 0; r < rows; r++)
        memcpy(into.at + r * into.stride, from.at + r * from.stride, (size_t)d * sizeof *from.at);
}

void cpu_sums_clear(struct sums sums, int rows, int d)
{
    for (int r = 0; r < rows; r++) memset(sums.at + r * sums.stride, 0, (size_t)d * sizeof(float));
}
