/* The hyperbolic tangent and its slope, on an own 2^x: the same on every machine. */
#ifndef LS_CPU_TANH_H
#define LS_CPU_TANH_H

#include <math.h>

#include "base/float_bits.h"
#include "cpu/exp2.h"

/* Any x, also a little above 0, where rounding has put a logit above lse. */
static inline float exp2_any(float x)
{
    static const float c[] = EXP2_DEGREE_5;
    const bool is_inside = (x >= EXP2_LOWEST) & (x <= 127.0f);
    const float inside = f32_of_bits(choose_bits(is_inside, bits_of_f32(x), 0));
    const int32_t truncated = (int32_t)inside;
    const int32_t whole = truncated - (inside < (float)truncated);
    const float f = inside - (float)whole;
    const float value = ((((c[5] * f + c[4]) * f + c[3]) * f + c[2]) * f + c[1]) * f + c[0];
    uint32_t power = (uint32_t)(whole + 127) << 23;

    power = choose_bits(x < EXP2_LOWEST, 0, power);
    power = choose_bits(x > 127.0f, bits_of_f32(INFINITY), power);
    return value * f32_of_bits(choose_bits(x == x, power, bits_of_f32(NAN)));
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
