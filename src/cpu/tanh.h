/* The hyperbolic tangent, on an own 2^x: the same on every machine. */
#ifndef LS_CPU_TANH_H
#define LS_CPU_TANH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "cpu/exp2.h"

/* Any x, also a little above 0, where rounding has put a logit above lse. */
static inline float exp2_any(float x)
{
    static const float c[] = EXP2_DEGREE_5;
    const float inside = x > 127.0f ? 127.0f : x > EXP2_LOWEST ? x : EXP2_LOWEST;
    const int32_t truncated = (int32_t)inside;
    const int32_t whole = truncated - (inside < (float)truncated);
    const float f = inside - (float)whole;
    const float value = ((((c[5] * f + c[4]) * f + c[3]) * f + c[2]) * f + c[1]) * f + c[0];
    const uint32_t bits = (uint32_t)(whole + 127) << 23;
    float power;

    memcpy(&power, &bits, sizeof power);
    const float finite = x < EXP2_LOWEST ? 0.0f : value * power;
    return x > 127.0f ? INFINITY : x == x ? finite : x;
}

static inline float hyperbolic_tangent(float x)
{
    static const float c[TANH_TERMS] = TANH_SERIES;
    const float magnitude = fabsf(x), xx = x * x;

    if (magnitude < TANH_SERIES_END)
        return x * (((((c[5] * xx + c[4]) * xx + c[3]) * xx + c[2]) * xx + c[1]) * xx + c[0]);
    return copysignf(1 - 2 / (1 + exp2_any(2 * LOG2E * magnitude)), x);
}

#endif
