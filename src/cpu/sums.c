/* What sums of partial gradients are added with. */
#include <string.h>

#include "base/cpu.h"
#include "cpu/sum_forest.h"

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
