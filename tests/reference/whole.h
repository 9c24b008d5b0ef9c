/* A whole small problem for the oracle, and every mask and score there is. */
#ifndef TESTS_REFERENCE_WHOLE_H
#define TESTS_REFERENCE_WHOLE_H

#include "../tensor/masks.h"
#include "base/random.h"
#include "reference/whole.h"
#include "tensor/dtype.h"

/* A whole small problem: 2 batches, 4 heads over 2 key/value heads, in the given type and order;
 * values are wider than keys. */
enum { B = 2, H = 4, H_KV = 2, S_Q = 5, S_K = 7, HEAD = 6, VALUE = 9 };

struct whole {
    struct ls_tensor q, k, v, o, lse;
    double q_data[B * S_Q * H * HEAD], k_data[B * S_K * H_KV * HEAD],
        v_data[B * S_K * H_KV * VALUE];
    double o_data[B * S_Q * H * VALUE], lse_data[B * H * S_Q];
};

/* [B, s, h, d] random numbers of the given type; stored as [B, h, s, d] if swapped. */
static inline struct ls_tensor random_tensor(double *data, ls_dtype type, int64_t s, int64_t h,
                                             int64_t d, bool swapped, uint32_t stream)
{
    struct ls_tensor t = ls_tensor_view(data, type, 4, (const int64_t[]){B, s, h, d});

    if (swapped) {
        t.stride[1] = d;
        t.stride[2] = s * d;
    }
    for (int64_t i = 0; i < B * s * h * d; i++) {
        const int64_t b = i / (s * h * d), at_s = i / (h * d) % s, at_h = i / d % h;
        const int64_t to = b * t.stride[0] + at_s * t.stride[1] + at_h * t.stride[2] + i % d;
        float x;

        ls_random_normal(&x, 3, stream, (uint64_t)i, 1);
        ls_dtype_store(type, (char *)data + to * ls_dtype_size(type), x);
    }
    return t;
}

static inline void setup(struct whole *w, ls_dtype type, bool swapped)
{
    w->q = random_tensor(w->q_data, type, S_Q, H, HEAD, swapped, 0);
    w->k = random_tensor(w->k_data, type, S_K, H_KV, HEAD, swapped, 1);
    w->v = random_tensor(w->v_data, type, S_K, H_KV, VALUE, swapped, 2);
    w->o = ls_tensor_view(w->o_data, LS_F64, 4, (const int64_t[]){B, S_Q, H, VALUE});
    w->lse = ls_tensor_view(w->lse_data, LS_F64, 3, (const int64_t[]){B, H, S_Q});
}

static inline double element(const struct ls_tensor *t, int b, int s, int h, int e)
{
    const int64_t at = b * t->stride[0] + s * t->stride[1] + h * t->stride[2] + e * t->stride[3];

    return ls_dtype_load(t->type, (const char *)t->data + at * ls_dtype_size(t->type));
}

static const float slopes[H] = {0.5f, 0.25f, 0.125f, -0.3f}, sinks[H] = {1, -INFINITY, -2, 3};
static const float biases[H][5] = {{0.5f, -1, 0.25f, 2, -0.5f},
                                   {1, 1, 0, -1, -2},
                                   {3, 0, 0, 0, -3},
                                   {0.1f, 0.2f, 0.3f, 0.4f, 0.5f}};
/* Of pairs, of as many entries and heads as a case takes of them; one is of no key that is seen. */
static float pair_biases[B * H * S_Q * S_K];
static const int64_t documents[] = {0, 3, 3, 6, 7};

/* Every mask and score, one at a time and all together. */
static const struct {
    const char *name;
    struct ls_mask_rule rule;
    struct ls_scores scores;
} cases[] = {
#define OPEN .left = INT64_MAX, .right = INT64_MAX
#define PAIRS S_Q *S_K
    {"full", {OPEN}, {.scale = 0.4f}},
    {"causal", {.shift = 2, .left = INT64_MAX}, {.scale = 0.4f}},
    {"causal from the start", {.left = INT64_MAX}, {.scale = 0.4f}},
    {"before the first key", {.shift = -3, .left = INT64_MAX}, {.scale = 0.4f}},
    {"window", {.shift = 2, .left = 2, .right = 1}, {.scale = 0.4f}},
    {"window 0, 0", {0}, {.scale = 0.4f}},
    {"prefix", {.left = 1, .prefix = 2}, {.scale = 0.4f}},
    {"documents", {.shift = 2, OPEN, .documents = documents, .document_count = 4}, {.scale = 0.4f}},
    {"soft cap", {OPEN}, {.soft_cap = 0.75f}},
    {"ALiBi", {.shift = 2, OPEN}, {.alibi = slopes}},
    {"biases by distance",
     {.shift = 1, .left = 3, .right = 4},
     {.distance_bias = biases[0], .distances = 5}},
    {"biases of pairs", {OPEN}, {.bias = pair_biases, .bias_entry = H * PAIRS, .bias_head = PAIRS}},
    {"biases that entries share",
     {.shift = 2, .left = INT64_MAX},
     {.bias = pair_biases, .bias_head = PAIRS}},
    {"biases that heads share",
     {.shift = 2, .left = 2, .right = 1},
     {.bias = pair_biases, .bias_entry = PAIRS}},
    {"sinks", {.shift = -3, .left = INT64_MAX}, {.sinks = sinks}},
    {"dropout", {OPEN}, {.dropout = 0.5f, .seed = 7}},
    {"all",
     {.shift = 1, .left = 3, .right = 1, .prefix = 1, .documents = documents, .document_count = 4},
     {.soft_cap = 2,
      .alibi = slopes,
      .sinks = sinks,
      .distance_bias = biases[0],
      .distances = 5,
      .bias = pair_biases,
      .dropout = 0.25f,
      .seed = 8}},
#undef PAIRS
#undef OPEN
};

enum { CASES = sizeof cases / sizeof *cases };

static inline struct ls_mask_rule rule_of(int c)
{
    struct ls_mask_rule rule = cases[c].rule;

    rule.s_q = S_Q;
    rule.s_k = S_K;
    return rule;
}

static inline struct ls_scores scores_of(int c)
{
    struct ls_scores scores = cases[c].scores;

    scores.scale = 0.4f;
    scores.heads = H;
    scores.bias_keys = S_K;
    ls_random_normal(pair_biases, 4, 0, 0, B * H * S_Q * S_K);
    pair_biases[S_K + 1] = -INFINITY;
    return scores;
}

#endif
