/* Blocks in bf16 by VDPBF16PS, for CPUs on which that does more than two f32 FMAs do: AMD's. */
#include "cpu/linear/products.h"

#if defined(__x86_64__)

#include "cpu/multiply_avx512bf16.h"

static void multiply(float *out, const void *left, const void *right, int steps)
{
    multiply_avx512bf16(out, LINEAR_SIDE, left, right, steps);
}

static bool fits(ls_isa isa, ls_dtype storage)
{
    return ls_cpu_bf16_pays(isa) && storage == LS_BF16;
}

const struct linear_products cpu_linear_avx512bf16 = {.name = "AVX-512 bf16 blocks",
                                                      .type = LS_BF16,
                                                      .fits = fits,
                                                      .pack_left = cpu_linear_pack_left_bf16,
                                                      .pack_right = cpu_linear_pack_right_bf16,
                                                      .multiply = multiply};

#else
const struct linear_products cpu_linear_avx512bf16 = {.name = "AVX-512 bf16 blocks",
                                                      .fits = cpu_linear_fits_never};
#endif
