/* Blocks in bf16 on AMX tiles. */
#include "cpu/linear/products.h"

#if defined(__x86_64__)

#include "cpu/multiply_amx.h"

static void multiply(float *out, const void *left, const void *right, int steps)
{
    multiply_amx(out, LINEAR_SIDE, left, right, steps);
}

static bool fits(ls_isa isa, ls_dtype storage)
{
    return isa == LS_ISA_AMX && storage == LS_BF16;
}

const struct linear_products LINEAR_AMX = {.name = "AMX bf16 tiles",
                                           .type = LS_BF16,
                                           .fits = fits,
                                           .pack_left = cpu_linear_pack_left_bf16,
                                           .pack_right = cpu_linear_pack_right_bf16,
                                           .begin = begin_amx,
                                           .end = end_amx,
                                           .multiply = multiply};

#else
const struct linear_products cpu_linear_amx = {.name = "AMX bf16 tiles",
                                               .fits = cpu_linear_fits_never};
#endif
