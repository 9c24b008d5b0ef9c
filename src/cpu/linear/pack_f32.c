/* Packing of panels in f32: [depth][32], whatever side they are for. */
#include <string.h>

#include "cpu/linear/products.h"
#include "tensor/bf16.h"

#define INLINE static inline __attribute__((always_inline))

INLINE void load_run(float *to, const struct linear_panel *panel, int64_t offset, int n)
{
    const float *const wide = (const float *)panel->at + offset;
    const uint16_t *const narrow = (const uint16_t *)panel->at + offset;

    if (panel->type == LS_F32) {
#pragma omp simd
        for (int j = 0; j < n; j++) to[j] = wide[j];
    } else {
#pragma omp simd
        for (int j = 0; j < n; j++) to[j] = f32_of_bf16(narrow[j]);
    }
}

/* What there is of a step, the rest zero: `outer` runs of `inner` elements. Most have all, whose
 * number the compiler knows. */
INLINE void load_runs(float *to, const struct linear_panel *panel, int64_t offset, int outer,
                      int inner)
{
    if (outer < LINEAR_SIDE || inner < LINEAR_SIDE) memset(to, 0, LINEAR_AREA * sizeof *to);
    for (int i = 0; i < outer; i++, to += LINEAR_SIDE, offset += panel->stride) {
        if (inner == LINEAR_SIDE)
            load_run(to, panel, offset, LINEAR_SIDE);
        else
            load_run(to, panel, offset, inner);
    }
}

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

/* to [4][32] columns of from [4], rows of which are `stride` apart. */
INLINE void turn_four(float *to, const float *from, int64_t stride)
{
    const four a = *(const four *)from, b = *(const four *)(from + stride);
    const four c = *(const four *)(from + 2 * stride), d = *(const four *)(from + 3 * stride);
    const four ab[] = {__builtin_shufflevector(a, b, 0, 4, 1, 5),
                       __builtin_shufflevector(a, b, 2, 6, 3, 7)};
    const four cd[] = {__builtin_shufflevector(c, d, 0, 4, 1, 5),
                       __builtin_shufflevector(c, d, 2, 6, 3, 7)};

    for (int i = 0; i < 2; i++, to += 2 * LINEAR_SIDE) {
        *(four *)to = __builtin_shufflevector(ab[i], cd[i], 0, 1, 4, 5);
        *(four *)(to + LINEAR_SIDE) = __builtin_shufflevector(ab[i], cd[i], 2, 3, 6, 7);
    }
}

/* Rows of a step become columns. */
INLINE void turn(float *to, const float *from, int64_t stride)
{
    for (int i = 0; i < LINEAR_SIDE; i += 4)
        for (int j = 0; j < LINEAR_SIDE; j += 4)
            turn_four(to + j * LINEAR_SIDE + i, from + i * stride + j, stride);
}

LS_CLONED static void pack(float *to, const struct linear_panel *panel)
{
    float stage[LINEAR_AREA];

    for (int e = 0; e < panel->depth; e += LINEAR_SIDE, to += LINEAR_AREA) {
        const int left = panel->depth - e, depth = left < LINEAR_SIDE ? left : LINEAR_SIDE;
        const bool is_whole = depth == LINEAR_SIDE && panel->lines == LINEAR_SIDE;

        if (panel->deep) {
            load_runs(to, panel, e * panel->stride, depth, panel->lines);
        } else if (is_whole && panel->type == LS_F32) {
            turn(to, (const float *)panel->at + e, panel->stride);
        } else {
            load_runs(stage, panel, e, panel->lines, depth);
            turn(to, stage, LINEAR_SIDE);
        }
    }
}

void cpu_linear_pack_f32(void *to, const struct linear_panel *from)
{
    pack(to, from);
}
