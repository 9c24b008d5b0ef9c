/* GELU in its tanh form, z/2 (1 + tanh u) = z / (1 + e^-2u) with u = sqrt(2/pi) (z + 0.044715 z^3):
 * the same on every machine, and nothing cancels where z is far below 0. In two halves, for loops
 * that would otherwise wait for one long chain of operations. Source: Hendrycks, Gimpel 2016. */
#ifndef LS_CPU_GELU_H
#define LS_CPU_GELU_H

#include "cpu/tanh.h"

#define GELU_SCALE (2 * LOG2E * 0.797884560802865356f) /* 2 log2(e) sqrt(2 / pi) */
#define GELU_CUBE (GELU_SCALE * 0.044715f)

/* -2u in log2 units, cut in two. */
struct gelu_exponent {
    float whole; /* in its last bits */
    float fraction;
};

static inline __attribute__((always_inline)) struct gelu_exponent gelu_exponent(float z)
{
    const float x = z * (-GELU_SCALE - GELU_CUBE * (z * z));
    const uint32_t sign = bits_of_f32(x) & 0x80000000, magnitude = bits_of_f32(x) & 0x7fffffff;
    const uint32_t most = bits_of_f32(-EXP2_LOWEST);
    const float near = f32_of_bits((magnitude < most ? magnitude : most) | sign);
    const float whole = near + 0x1.8p23f; /* rounds to a whole number */

    return (struct gelu_exponent){whole, near - (whole - 0x1.8p23f)};
}

static inline __attribute__((always_inline)) float gelu_of_exponent(float z, struct gelu_exponent x)
{
    static const float c[] = EXP2_NEAR;
    const float f = x.fraction, ff = f * f;
    const float value = (c[0] + c[1] * f) + ff * ((c[2] + c[3] * f) + ff * (c[4] + c[5] * f));

    return z / (1 + f32_of_bits(bits_of_f32(value) + (bits_of_f32(x.whole) << 23)));
}

static inline __attribute__((always_inline)) float cpu_gelu_tanh(float z)
{
    return gelu_of_exponent(z, gelu_exponent(z));
}

#endif
