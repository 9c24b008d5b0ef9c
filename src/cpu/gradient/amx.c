/* Backward's tile in bf16 on AMX tiles, probabilities between the tile products. */
#include "cpu/gradient/products.h"

#if defined(__x86_64__)

#include <stdlib.h>

#include "cpu/gradient/bf16.h"
#include "cpu/multiply_amx.h"

static ls_status tile(void *worker, const struct gradient_tile *tile)
{
    cpu_bf16_tile(worker, tile, multiply_amx);
    return LS_OK;
}

static bool fits(ls_isa isa, ls_dtype storage, const struct ls_scores *scores)
{
    return isa == LS_ISA_AMX && storage == LS_BF16 && ls_scores_are_products(scores);
}

const struct gradient_products GRADIENT_AMX = {
    .name = "AMX bf16 tiles",
    .type = LS_BF16,
    .d_multiple = SIDE,
    .widest_ahead = 64,
    .fits = fits,
    .keys_bytes = cpu_bf16_keys_bytes,
    .queries_bytes = cpu_bf16_queries_bytes,
    .scratch_bytes = cpu_bf16_scratch_bytes,
    .create = cpu_bf16_worker_create,
    .destroy = free,
    .pack_keys = cpu_bf16_pack_keys,
    .pack_queries = cpu_bf16_pack_queries,
    .begin = begin_amx,
    .end = end_amx,
    .tile = tile,
};

#else
const struct gradient_products cpu_gradient_amx = {.name = "AMX bf16 tiles",
                                                   .fits = cpu_gradient_fits_never};
#endif
