/* What backward needs of one query and one key: the probability and the gradient of the score. */
#ifndef LS_CPU_GRADIENT_PAIR_H
#define LS_CPU_GRADIENT_PAIR_H

#include "cpu/tanh.h"
#include "tensor/scores.h"

struct gradient_pair {
    float p;  /* as it multiplies v: dropout applied */
    float ds; /* gradient of q.k: scale and soft cap applied */
    float dlogit;
};

/* Where a logit is nothing but scale q.k: score = q.k, dp = d_o.v, lse in log2 units. */
static inline struct gradient_pair gradient_of_plain(float score, float dp, float lse, float delta,
                                                     float scale)
{
    const float p = exp2_any(score * (scale * LOG2E) - lse);

    const float dlogit = p * (dp - delta);

    return (struct gradient_pair){.p = p, .ds = scale * dlogit, .dlogit = dlogit};
}

/* Where nothing bends it and nothing is dropped, a bias is all there is besides. */
static inline struct gradient_pair gradient_of_biased(float score, float dp, float lse, float delta,
                                                      float scale, float bias)
{
    const float logit = score * scale + bias, p = exp2_any(logit * LOG2E - lse);
    const float dlogit = p * (dp - delta);

    return (struct gradient_pair){.p = p, .ds = scale * dlogit, .dlogit = dlogit};
}

/* Bias: all that is added behind the soft cap. */
static inline struct gradient_pair gradient_of_pair(float score, float dp, float lse, float delta,
                                                    const struct ls_scores *scores, float scale,
                                                    float bias, bool kept)
{
    float logit = score * scale, slack = 1;

    if (scores->soft_cap != 0) {
        const struct tangent bent = hyperbolic_tangent(logit / scores->soft_cap);

        logit = scores->soft_cap * bent.value;
        slack = bent.slope;
    }
    logit += bias;
    const float p = exp2_any(logit * LOG2E - lse), keep = kept ? 1 / (1 - scores->dropout) : 0;
    const float passed = kept ? dp * keep : 0; /* a dropped key's v may be anything */

    const float dlogit = p * (passed - delta);

    return (struct gradient_pair){.p = p * keep, .ds = scale * (slack * dlogit), .dlogit = dlogit};
}

#endif
