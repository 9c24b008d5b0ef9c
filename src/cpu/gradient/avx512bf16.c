/* Backward's tile in bf16 by VDPBF16PS, for CPUs on which that does more than two f32 FMAs do:
 * AMD's. Intel's take two cycles for it, and there f32 blocks are faster. */
#include "cpu/gradient/products.h"

#if defined(__x86_64__)

#include <stdlib.h>

#include "cpu/gemm.h"
#include "cpu/gradient/bf16.h"
#include "cpu/multiply_avx512bf16.h"

static ls_status tile(void *worker, const struct gradient_tile *tile)
{
    cpu_bf16_tile(worker, tile, multiply_avx512bf16);
    return LS_OK;
}

static bool fits(ls_isa isa, ls_dtype storage, const struct ls_scores *scores)
{
    return ls_cpu_bf16_pays(isa) && storage == LS_BF16 && ls_scores_are_products(scores);
}

const struct gradient_products cpu_gradient_avx512bf16 = {
    .name = "AVX-512 bf16 blocks",
    .type = LS_BF16,
    .d_multiple = SIDE,
    .widest_ahead = LS_MAX_HEAD_DIM,
    .fits = fits,
    .keys_bytes = cpu_bf16_keys_bytes,
    .queries_bytes = cpu_bf16_queries_bytes,
    .scratch_bytes = cpu_bf16_scratch_bytes,
    .create = cpu_bf16_worker_create,
    .destroy = free,
    .pack_keys = cpu_bf16_pack_keys,
    .pack_queries = cpu_bf16_pack_queries,
    .tile = tile,
};

#else
const struct gradient_products cpu_gradient_avx512bf16 = {.name = "AVX-512 bf16 blocks",
                                                          .fits = cpu_gradient_fits_never};
#endif
