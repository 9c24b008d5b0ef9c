/* What sums of partial gradients are added with. */
#include <string.h>

#include "base/cpu.h"
#include "cpu/elements.h"
#include "cpu/gradient/sum_forest.h"

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

/* A vector of sums at a time, so that each is read and written once. */
LS_CLONED static void take_row(float *total, const float *x, const float *const waiting[],
                               int count, int d)
{
    const int whole = d - d % LANES;

    for (int e = 0; e < whole; e += LANES) {
        lanes sum = *(const lanes *)(x + e);

        for (int i = 0; i < count; i++) sum = *(const lanes *)(waiting[i] + e) + sum;
        *(lanes *)(total + e) = sum;
    }
    for (int e = whole; e < d; e++) {
        float sum = x[e];

        for (int i = 0; i < count; i++) sum = waiting[i][e] + sum;
        total[e] = sum;
    }
}

void cpu_sum_path_take(const struct sum_path *path, int first, int rows, struct sums x)
{
    const int end = first + rows < path->rows ? first + rows : path->rows;

    for (int r = first; r < end; r++, x.at += x.stride) {
        float *total = path->total.at + r * path->total.stride;
        const float *waiting[2 * SUM_DEPTH];

        if (path->count == 0 && total == x.at) continue;
        for (int i = 0; i < path->count; i++)
            waiting[i] = path->waiting[i].at + r * path->waiting[i].stride;
        take_row(total, x.at, waiting, path->count, path->d);
    }
}

void cpu_sums_add(struct sums into, struct sums from, int rows, int d)
{
    for (int r = 0; r < rows; r++) {
        float *row = into.at + r * into.stride;

        add(row, row, from.at + r * from.stride, d);
    }
}

void cpu_sums_clear(struct sums sums, int rows, int d)
{
    for (int r = 0; r < rows; r++) memset(sums.at + r * sums.stride, 0, (size_t)d * sizeof(float));
}
