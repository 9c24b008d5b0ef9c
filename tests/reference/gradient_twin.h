/* A gradient kernel in double that rounds where ours do and can be told to make a mistake, a small
 * problem for it, and the oracle's verdict. */
#ifndef TESTS_REFERENCE_GRADIENT_TWIN_H
#define TESTS_REFERENCE_GRADIENT_TWIN_H

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "../tensor/masks.h"
#include "base/random.h"
#include "reference/measure.h"
#include "reference/whole.h"

enum { ROWS = 160, KEYS = 160, D = 16, HEADS = 2 };

static const ls_dtype storages[] = {LS_F32, LS_BF16, LS_F16};
static const char *const names[] = {"dq", "dk", "dv", "dsinks"};
enum { DK = 1, DV };

/* A mistake that the kernel below can be told to make. */
typedef enum {
    NONE,
    DELTA_LEFT_OUT,
    DELTA_OF_ROUNDED_O,
    DLSE_LEFT_OUT,
    DLSE_ADDED,
    SCALE_LEFT_OUT_OF_DK,
    SLOPE_LEFT_OUT,
    SINK_NOT_IN_P,
    DSINK_LEFT_OUT,
    QUERY_LOST,
    KEY_LOST,
    HEAD_LOST,
    WINDOW_OFF_BY_ONE,
    DROPOUT_NOT_IN_DV,
    DROPOUT_NOT_IN_DP,
    BIAS_OFF_BY_ONE,
    FAR_KEYS_LOST,
    SUMS_ROUNDED,
    NAN_IN_DK,
} mistake;

/* Inputs and results, [rows, heads, D] with one head of keys, in double but of numbers of the
 * storage type. */
static struct problem {
    ls_dtype storage;
    double q[ROWS][HEADS][D], k[KEYS][D], v[KEYS][D], d_o[ROWS][HEADS][D], dlse[HEADS][ROWS];
    double dq[ROWS][HEADS][D], dk[KEYS][D], dv[KEYS][D], dsinks[HEADS];
    struct ls_mask mask;
    struct ls_scores scores;
} p;

static inline double rounded(double x)
{
    return x + rounding_error(p.storage, x);
}

static inline void draw(double *out, int64_t n, uint32_t stream, double factor, double mean)
{
    for (int64_t i = 0; i < n; i++) {
        float x;

        ls_random_normal(&x, 12, stream, (uint64_t)i, 1);
        out[i] = rounded(factor * x + mean);
    }
}

static inline void setup(ls_dtype storage, double q_factor, double v_mean)
{
    memset(&p, 0, sizeof p);
    p.storage = storage;
    draw(p.q[0][0], ROWS * HEADS * D, 0, q_factor, 0);
    draw(p.k[0], KEYS * D, 1, 1, 0);
    draw(p.v[0], KEYS * D, 2, 1, v_mean);
    draw(p.d_o[0][0], ROWS * HEADS * D, 3, 1, 0);
    p.mask = full_mask(ROWS, KEYS);
    p.scores = (struct ls_scores){.scale = 0.25f, .heads = HEADS};
}

/* Window, soft cap, ALiBi, sinks, dropout and dlse at once. */
static inline void setup_all(ls_dtype storage)
{
    static const float slopes[HEADS] = {0.125f, 0.25f}, sinks[HEADS] = {1, 2};

    setup(storage, 1, 0);
    for (int i = 0; i < HEADS * ROWS; i++) p.dlse[i / ROWS][i % ROWS] = (float)(0.3 * (i % 5 - 2));
    p.mask.one.low = -60;
    p.mask.one.high = 40;
    p.scores = (struct ls_scores){.scale = 0.25f,
                                  .soft_cap = 1.5f,
                                  .alibi = slopes,
                                  .sinks = sinks,
                                  .dropout = 0.1f,
                                  .seed = 3,
                                  .heads = HEADS};
}

/* What a query and a key are to each other. */
struct pair {
    double logit, slope, drop;
    bool seen;
};

static inline struct pair pair_of(int h, int i, int j, mistake m)
{
    const struct ls_scores *s = &p.scores;
    const struct ls_range seen = ls_band_keys(&p.mask.one, i, i + 1);
    struct pair pair = {.slope = 1, .drop = 1};
    bool kept[4] = {true, true, true, true};

    for (int e = 0; e < D; e++) {
        pair.logit += s->scale * p.q[i][h][e] * p.k[j][e];
        if (p.storage == LS_F32) pair.logit = (float)pair.logit;
    }
    if (s->soft_cap > 0) {
        const double part = pair.logit / s->soft_cap;

        pair.logit = s->soft_cap * tanh(part);
        if (m != SLOPE_LEFT_OUT) pair.slope = 1 / square(cosh(part));
    }
    if (s->alibi) pair.logit -= s->alibi[h] * abs(i - j + (m == BIAS_OFF_BY_ONE));
    if (s->dropout > 0) {
        ls_dropout_kept(kept, s, 0, h, i, j / 4 * 4, 4);
        pair.drop = kept[j % 4] ? 1 / (1 - (double)s->dropout) : 0;
    }
    pair.seen = j >= seen.from + (m == WINDOW_OFF_BY_ONE) && j < seen.to - (m == KEY_LOST);
    return pair;
}

struct row {
    double lse, delta;
};

/* Forward of one row as a kernel saves it. */
static inline struct row forward(int h, int i, mistake m)
{
    double l = 0, o[D] = {0};
    struct row row = {.delta = m == DLSE_LEFT_OUT ? 0
                               : m == DLSE_ADDED  ? p.dlse[h][i]
                                                  : -p.dlse[h][i]};

    for (int j = 0; j < KEYS; j++) {
        const struct pair pair = pair_of(h, i, j, NONE);

        if (!pair.seen) continue;
        l += exp(pair.logit);
        for (int e = 0; e < D; e++) o[e] += exp(pair.logit) * pair.drop * p.v[j][e];
    }
    if (p.scores.sinks && m != SINK_NOT_IN_P) l += exp(p.scores.sinks[h]);
    row.lse = (float)log(l);
    for (int e = 0; e < D && m != DELTA_LEFT_OUT; e++) {
        const double stored = rounded(o[e] / l), residual = rounded(o[e] / l - stored);

        row.delta += p.d_o[i][h][e] * (stored + (m == DELTA_OF_ROUNDED_O ? 0 : residual));
    }
    return row;
}

/* A unit without subnormals. */
#define NO_P 0x1p-126

static inline double flushed(double x, double least)
{
    return fabs(x) < least ? 0 : x;
}

/* A running sum; of one kernel, it is kept in the storage type. */
static inline void add(double *sum, double x, mistake m)
{
    *sum = flushed(m == SUMS_ROUNDED ? rounded(*sum + x) : *sum + x, NO_P);
}

static inline void backward_row(int h, int i, mistake m)
{
    const struct row row = forward(h, i, m);

    for (int j = 0; j < KEYS; j++) {
        const struct pair pair = pair_of(h, i, j, m);
        double dp = 0;

        if (!pair.seen) continue;
        for (int e = 0; e < D; e++) dp += p.d_o[i][h][e] * p.v[j][e];
        if (m != DROPOUT_NOT_IN_DP) dp *= pair.drop;
        const double prob =
            flushed(exp(pair.logit - row.lse), m == FAR_KEYS_LOST ? 0x1p-118 : NO_P);
        const double ds = flushed(rounded(prob * (dp - row.delta) * pair.slope), NO_P);
        const double dropped = rounded(m == DROPOUT_NOT_IN_DV ? prob : prob * pair.drop);

        for (int e = 0; e < D; e++) {
            add(&p.dq[i][h][e], p.scores.scale * ds * p.k[j][e], m);
            add(&p.dk[j][e], (m == SCALE_LEFT_OUT_OF_DK ? 1 : p.scores.scale) * ds * p.q[i][h][e],
                m);
            add(&p.dv[j][e], dropped * p.d_o[i][h][e], m);
        }
    }
    if (p.scores.sinks && m != DSINK_LEFT_OUT)
        p.dsinks[h] -= exp(p.scores.sinks[h] - row.lse) * row.delta;
}

/* A kernel in double that rounds where ours do. */
static inline void run_twin(mistake m)
{
    memset(p.dq, 0, sizeof p.dq);
    memset(p.dk, 0, sizeof p.dk);
    memset(p.dv, 0, sizeof p.dv);
    memset(p.dsinks, 0, sizeof p.dsinks);
    for (int h = 0; h < HEADS - (m == HEAD_LOST); h++)
        for (int i = 0; i < ROWS - (m == QUERY_LOST); i++) backward_row(h, i, m);
    double *const all[] = {p.dq[0][0], p.dk[0], p.dv[0]};
    static const int counts[] = {ROWS * HEADS * D, KEYS * D, KEYS * D};

    for (int t = 0; t < 3; t++)
        for (int i = 0; i < counts[t]; i++) all[t][i] = rounded(all[t][i]);
    if (m == NAN_IN_DK) p.dk[KEYS - 1][D - 1] = NAN;
}

static inline struct ls_tensor view(const void *data, int64_t rows, int64_t heads)
{
    return ls_tensor_view((void *)(uintptr_t)data, LS_F64, 4, (const int64_t[]){1, rows, heads, D});
}

/* Asks the oracle; residual: the kernel claims to have taken delta from o and its residual. */
static inline void judge(struct ls_gradient_verdict out[LS_GRADIENTS], bool residual)
{
    const struct ls_tensor q = view(p.q, ROWS, HEADS), d_o = view(p.d_o, ROWS, HEADS);
    const struct ls_tensor k = view(p.k, KEYS, 1), v = view(p.v, KEYS, 1);
    const struct ls_tensor dlse =
        ls_tensor_view(p.dlse, LS_F64, 3, (const int64_t[]){1, HEADS, ROWS});
    struct ls_tensor dq = view(p.dq, ROWS, HEADS), dk = view(p.dk, KEYS, 1);
    struct ls_tensor dv = view(p.dv, KEYS, 1);
    struct ls_tensor dsinks = ls_tensor_view(p.dsinks, LS_F64, 1, (const int64_t[]){HEADS});
    const struct ls_attention_gradients gradients = {
        .dq = &dq, .dk = &dk, .dv = &dv, .dsinks = p.scores.sinks ? &dsinks : NULL};
    const struct ls_attention_saved saved = {.q = &q,
                                             .k = &k,
                                             .v = &v,
                                             .d_o = &d_o,
                                             .dlse = &dlse,
                                             .o = &q,
                                             .o_lo = residual ? &q : NULL};

    cr_assert_eq(
        ls_reference_judge_gradients(out, &gradients, p.storage, &saved, ALONE(&p.mask), &p.scores),
        LS_OK);
}

#endif
