/* What backward needs of one query and one key: the probability and the gradient of the score. */
#ifndef LS_CPU_GRADIENT_PAIR_H
#define LS_CPU_GRADIENT_PAIR_H

#include <math.h>
#include <string.h>

#include "cpu/exp2.h"
#include "tensor/scores.h"

#define LOG2E 1.44269504088896341f

struct gradient_pair {
    float p;  /* as it multiplies v: dropout applied */
    float ds; /* gradient of q.k: scale and soft cap applied */
};

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

/* The series where 1 - 2 / (1 + e^2x) would cancel; the first term left out is below 2e-8. */
static inline float hyperbolic_tangent(float x)
{
    const float magnitude = fabsf(x), xx = x * x;

    if (magnitude < 0.35f)
        return x *
               (1 - xx * (1 / 3.0f -
                          xx * (2 / 15.0f - xx * (17 / 315.0f -
                                                  xx * (62 / 2835.0f - xx * (1382 / 155925.0f))))));
    return copysignf(1 - 2 / (1 + exp2_any(2 * LOG2E * magnitude)), x);
}

/* Where a logit is nothing but scale q.k: score = q.k, dp = d_o.v, lse in log2 units. */
static inline struct gradient_pair gradient_of_plain(float score, float dp, float lse, float delta,
                                                     float scale)
{
    const float p = exp2_any(score * (scale * LOG2E) - lse);

    return (struct gradient_pair){.p = p, .ds = scale * (p * (dp - delta))};
}

/* Distance: of the query's place from the key; slope: 0 without ALiBi. */
static inline struct gradient_pair gradient_of_pair(float score, float dp, float lse, float delta,
                                                    const struct ls_scores *scores, float scale,
                                                    float slope, int64_t distance, bool kept)
{
    float logit = score * scale, slack = 1;

    if (scores->soft_cap != 0) {
        const float bent = hyperbolic_tangent(logit / scores->soft_cap);

        logit = scores->soft_cap * bent;
        slack = 1 - bent * bent;
    }
    if (slope != 0) logit -= slope * (float)(distance < 0 ? -distance : distance);
    const float p = exp2_any(logit * LOG2E - lse), keep = kept ? 1 / (1 - scores->dropout) : 0;
    const float passed = kept ? dp * keep : 0; /* a dropped key's v may be anything */

    return (struct gradient_pair){.p = p * keep, .ds = scale * (slack * (p * (passed - delta)))};
}

#endif
