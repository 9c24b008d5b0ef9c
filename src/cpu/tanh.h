/* The hyperbolic tangent and its slope, on an own 2^x: the same on every machine. */
#ifndef LS_CPU_TANH_H
#define LS_CPU_TANH_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "cpu/exp2.h"

/* A choice that the compiler does not turn into a branch, which would keep it from making vectors
 * of a loop. */
static inline uint32_t choose(bool condition, uint32_t yes, uint32_t no)
{
    const uint32_t mask = -(uint32_t)condition;

    return (yes & mask) | (no & ~mask);
}

static inline uint32_t bits_of(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Any x, also a little above 0, where rounding has put a logit above lse. */
static inline float exp2_any(float x)
{
    static const float c[] = EXP2_DEGREE_5;
    const bool is_inside = (x >= EXP2_LOWEST) & (x <= 127.0f);
    const float inside = float_of(choose(is_inside, bits_of(x), 0));
    const int32_t truncated = (int32_t)inside;
    const int32_t whole = truncated - (inside < (float)truncated);
    const float f = inside - (float)whole;
    const float value = ((((c[5] * f + c[4]) * f + c[3]) * f + c[2]) * f + c[1]) * f + c[0];
    uint32_t power = (uint32_t)(whole + 127) << 23;

    power = choose(x < EXP2_LOWEST, 0, power);
    power = choose(x > 127.0f, bits_of(INFINITY), power);
    return value * float_of(choose(x == x, power, bits_of(NAN)));
}

struct tangent {
    float value, slope; /* tanh x and its derivative, 1 - tanh^2 x */
};

/* The slope is made of 1 - |tanh x|, which does not cancel where that is near 0. */
static inline struct tangent hyperbolic_tangent(float x)
{
    static const float c[TANH_TERMS] = TANH_SERIES;
    const float magnitude = fabsf(x), xx = x * x;

    if (magnitude < TANH_SERIES_END) {
        const float value =
            x * (((((c[5] * xx + c[4]) * xx + c[3]) * xx + c[2]) * xx + c[1]) * xx + c[0]);

        return (struct tangent){value, 1 - value * value};
    }
    const float rest = 2 / (1 + exp2_any(2 * LOG2E * magnitude));

    return (struct tangent){copysignf(1 - rest, x), rest * (2 - rest)};
}

#endif
