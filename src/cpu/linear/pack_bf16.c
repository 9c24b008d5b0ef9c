/* Packing of bf16 panels, for products that take them as AMX tiles do. */
#include "cpu/linear/products.h"

#if defined(__x86_64__)

#include <string.h>

#include "cpu/pack_bf16.h"

/* One step: 32 lines, 32 deep, in two packs of 16 lines. */
static char *pack_step(char *to, const uint16_t *from, int64_t stride, bool deep,
                       pack_function *pack)
{
    to = pack(to, from, stride);
    return pack(to, from + 16 * (deep ? 1 : stride), stride);
}

/* What there is of a step, the rest zero: `outer` runs of `inner` elements. */
static void fill_stage(uint16_t stage[LINEAR_AREA], const uint16_t *from, int64_t stride, int outer,
                       int inner)
{
    memset(stage, 0, LINEAR_AREA * sizeof *stage);
    for (int i = 0; i < outer; i++)
        memcpy(stage + i * LINEAR_SIDE, from + i * stride, (size_t)inner * sizeof *stage);
}

static void pack_panel(char *to, const struct linear_panel *panel, pack_function *pack)
{
    const int64_t apart = panel->deep ? LINEAR_SIDE * panel->stride : LINEAR_SIDE; /* steps */
    const uint16_t *from = panel->at;

    for (int left = panel->depth; left > 0; left -= LINEAR_SIDE, from += apart) {
        const int depth = left < LINEAR_SIDE ? left : LINEAR_SIDE;
        uint16_t stage[LINEAR_AREA];

        if (depth == LINEAR_SIDE && panel->lines == LINEAR_SIDE) {
            to = pack_step(to, from, panel->stride, panel->deep, pack);
            continue;
        }
        fill_stage(stage, from, panel->stride, panel->deep ? depth : panel->lines,
                   panel->deep ? panel->lines : depth);
        to = pack_step(to, stage, LINEAR_SIDE, panel->deep, pack);
    }
}

void cpu_linear_pack_left_bf16(void *to, const struct linear_panel *from)
{
    pack_panel(to, from, from->deep ? pack_left_transposed : pack_left);
}

void cpu_linear_pack_right_bf16(void *to, const struct linear_panel *from)
{
    pack_panel(to, from, from->deep ? pack_right : pack_right_transposed);
}

#endif
