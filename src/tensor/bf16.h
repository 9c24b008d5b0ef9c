/* Rounding to bf16 and back, one number at a time, in loops that become vector code. */
#ifndef LS_TENSOR_BF16_H
#define LS_TENSOR_BF16_H

#include "base/float_bits.h"

static inline float f32_of_bf16(uint16_t in)
{
    return f32_of_bits((uint32_t)in << 16);
}

/* Adding just under half of the last place that stays, plus its own last bit, carries exactly when
 * rounding to nearest even goes up; into the exponent, and into infinity, as it should. NaN stays
 * NaN, quiet. */
static inline uint16_t bf16_of_f32(float in)
{
    const uint32_t is_nan = -(uint32_t)(in != in), quiet = 0x0040;
    const uint32_t bits = bits_of_f32(in);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(((bits >> 16 | quiet) & is_nan) | (rounded & ~is_nan));
}

#endif
