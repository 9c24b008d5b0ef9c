/* Activations with their slopes, in loops that become vector code; value and slope of anything far
 * from 0 are what they tend to. */
#ifndef LS_CPU_POINTWISE_SLOPES_H
#define LS_CPU_POINTWISE_SLOPES_H

#include "cpu/tanh.h"

#define SQRT_2_OVER_PI 0.797884560802865356f
#define GELU_CUBIC 0.044715f

/* Beyond, every slope is 0 or 1 in f32, and x^3 would leave it. NaN stays. */
#define FAR 100.0f

static inline __attribute__((always_inline)) float clamp(float x)
{
    x = f32_of_bits(choose_bits(x > FAR, bits_of_f32(FAR), bits_of_f32(x)));
    return f32_of_bits(choose_bits(x < -FAR, bits_of_f32(-FAR), bits_of_f32(x)));
}

/* 2^x for x of at most 0; 0 below 2^-126, and any number for NaN. */
static inline __attribute__((always_inline)) float exp2_falling(float x)
{
    static const float c[] = EXP2_DEGREE_5;
    const float inside =
        f32_of_bits(choose_bits(x < EXP2_LOWEST, bits_of_f32(EXP2_LOWEST), bits_of_f32(x)));
    const float whole = (inside - 0.5f) + 0x1.8p23f; /* rounds down; its last bits are the number */
    const float f = inside - (whole - 0x1.8p23f), ff = f * f;
    const float value = (c[0] + c[1] * f) + ff * ((c[2] + c[3] * f) + ff * (c[4] + c[5] * f));

    return f32_of_bits(
        choose_bits(x < EXP2_LOWEST, 0, bits_of_f32(value) + (bits_of_f32(whole) << 23)));
}

/* s = 1 / (1 + e^-x), and what its slope is made of without cancelling. */
struct logistic {
    float value, slope; /* s and s (1 - s) */
};

static inline __attribute__((always_inline)) struct logistic logistic(float x)
{
    const float e = exp2_falling(-LOG2E * fabsf(x)), larger = 1 / (1 + e), smaller = e * larger;

    return (struct logistic){
        f32_of_bits(choose_bits(x < 0, bits_of_f32(smaller), bits_of_f32(larger))),
        larger * smaller};
}

/* z s(2u) with u = sqrt(2/pi) (z + 0.044715 z^3) */
static inline __attribute__((always_inline)) float gelu_tanh_slope(float z)
{
    const float x = clamp(z), xx = x * x;
    const struct logistic s = logistic(2 * SQRT_2_OVER_PI * (x + GELU_CUBIC * xx * x));

    return s.value + x * s.slope * (2 * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * xx));
}

/* The normal distribution's density and integral up to z; the integral to 1e-7 of itself for
 * negative z, but for the rounding of z^2: t times a polynomial of t = 1 / (1 + 0.32 |z|), which
 * errs by 6e-8, times e^(-z^2/2). */
struct normal {
    float density, integral;
};

static inline __attribute__((always_inline)) struct normal normal(float z)
{
    static const float c[] = {0x1.05736ap-3f, 0x1.05729p-3f,  0x1.d5982p-4f,  0x1.66c87ap-4f,
                              0x1.e9e046p-5f, -0x1.9ab6dp-7f, 0x1.20a354p-4f, -0x1.367e18p-3f,
                              0x1.912484p-4f, -0x1.6245fep-6f};
    const float t = 1 / (1 + 0.32f * fabsf(z)), e = exp2_falling(-0.5f * LOG2E * (z * z));
    float tail = c[9];

    for (int i = 8; i >= 0; i--) tail = tail * t + c[i];
    tail *= t * e;
    return (struct normal){
        0.398942280401432678f * e,
        f32_of_bits(choose_bits(z > 0, bits_of_f32(1 - tail), bits_of_f32(tail)))};
}

static inline __attribute__((always_inline)) float gelu_erf(float z)
{
    return z * normal(clamp(z)).integral;
}

static inline __attribute__((always_inline)) float gelu_erf_slope(float z)
{
    const float x = clamp(z);
    const struct normal n = normal(x);

    return n.integral + x * n.density;
}

#endif
