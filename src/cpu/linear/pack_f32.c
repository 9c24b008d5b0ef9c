/* Packing of panels in f32: [depth][32], whatever side they are for. */
#include <string.h>

#include "cpu/linear/products.h"
#include "tensor/bf16.h"

/* What there is of a step, the rest zero: `outer` runs of `inner` elements. */
static inline __attribute__((always_inline)) void
load_runs(float *to, const struct linear_panel *panel, int64_t offset, int outer, int inner)
{
    if (outer < LINEAR_SIDE || inner < LINEAR_SIDE) memset(to, 0, LINEAR_AREA * sizeof *to);
    for (int i = 0; i < outer; i++, to += LINEAR_SIDE, offset += panel->stride) {
        if (panel->type == LS_F32) {
            memcpy(to, (const float *)panel->at + offset, (size_t)inner * sizeof *to);
            continue;
        }
        const uint16_t *from = (const uint16_t *)panel->at + offset;

#pragma omp simd
        for (int j = 0; j < inner; j++) to[j] = f32_of_bf16(from[j]);
    }
}

static inline __attribute__((always_inline)) void turn(float *to, const float *from)
{
    for (int i = 0; i < LINEAR_SIDE; i++)
        for (int j = 0; j < LINEAR_SIDE; j++) to[j * LINEAR_SIDE + i] = from[i * LINEAR_SIDE + j];
}

LS_CLONED static void pack(float *to, const struct linear_panel *panel)
{
    float stage[LINEAR_AREA];

    for (int e = 0; e < panel->depth; e += LINEAR_SIDE, to += LINEAR_AREA) {
        const int left = panel->depth - e, depth = left < LINEAR_SIDE ? left : LINEAR_SIDE;

        if (panel->deep) {
            load_runs(to, panel, e * panel->stride, depth, panel->lines);
        } else {
            load_runs(stage, panel, e, panel->lines, depth);
            turn(to, stage);
        }
    }
}

void cpu_linear_pack_f32(void *to, const struct linear_panel *from)
{
    pack(to, from);
}
