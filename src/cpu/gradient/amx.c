/* Backward's tile in bf16 on AMX tiles, probabilities between the tile products. */
#include "cpu/gradient/products.h"

#if defined(__x86_64__)

#include <stdlib.h>

#include "cpu/amx_tiles.h"
#include "cpu/gradient/bf16.h"

TARGET_AMX static void multiply(float *out, ptrdiff_t stride, const char *left, const char *right,
                                int steps)
{
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (int i = 0; i < steps; i++, left += STEP_BYTES, right += STEP_BYTES) {
        TILE_LOAD(4, left, 64);
        TILE_LOAD(6, right, 64);
        TILE_PRODUCT(0, 4, 6);
        TILE_LOAD(7, right + TILE_BYTES, 64);
        TILE_PRODUCT(1, 4, 7);
        TILE_LOAD(5, left + TILE_BYTES, 64);
        TILE_PRODUCT(2, 5, 6);
        TILE_PRODUCT(3, 5, 7);
    }
    TILE_STORE(0, out, stride * 4);
    TILE_STORE(1, out + 16, stride * 4);
    TILE_STORE(2, out + 16 * stride, stride * 4);
    TILE_STORE(3, out + 16 * stride + 16, stride * 4);
}

TARGET_AMX static void begin(void)
{
    TILE_BEGIN();
}

TARGET_AMX static void end(void)
{
    TILE_END();
}

static ls_status tile(void *worker, const struct gradient_tile *tile)
{
    cpu_bf16_tile(worker, tile, multiply);
    return LS_OK;
}

static bool fits(ls_isa isa, ls_dtype storage, const struct ls_scores *scores)
{
    return isa == LS_ISA_AMX && storage == LS_BF16 && ls_scores_are_plain(scores);
}

const struct gradient_products GRADIENT_AMX = {
    .name = "AMX bf16 tiles",
    .type = LS_BF16,
    .d_multiple = SIDE,
    .fits = fits,
    .keys_bytes = cpu_bf16_keys_bytes,
    .queries_bytes = cpu_bf16_queries_bytes,
    .scratch_bytes = cpu_bf16_scratch_bytes,
    .create = cpu_bf16_worker_create,
    .destroy = free,
    .pack_keys = cpu_bf16_pack_keys,
    .pack_queries = cpu_bf16_pack_queries,
    .begin = begin,
    .end = end,
    .tile = tile,
};

#else
const struct gradient_products cpu_gradient_amx = {.name = "AMX bf16 tiles",
                                                   .fits = cpu_gradient_fits_never};
#endif
