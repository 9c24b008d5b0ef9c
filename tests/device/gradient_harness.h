/* What the tests of the gradient kernel share: a meeting of queries and keys, one call of the
 * kernel for it, and the same sums in double. */
#ifndef TESTS_DEVICE_GRADIENT_HARNESS_H
#define TESTS_DEVICE_GRADIENT_HARNESS_H

#include "harness.h"

#define MOST_LEAVES 16

/* Of the leaves of a sequence of s, those whose number is `first` modulo `step`. */
struct share {
    int64_t step, first;
};

struct meeting {
    struct ls_attention_shape shape;
    struct ls_mask_rule rule; /* s_q, s_k are filled in */
    uint64_t bands_by;        /* not 0: the mask is drawn by this seed instead */
    struct ls_scores scores;
    struct share q_share, k_share; /* step 0: everything */
    int threads;
    bool bhsd;
    bool in_place; /* the device computes where the tensors are */

    struct ls_leaf q_leaf[MOST_LEAVES], k_leaf[MOST_LEAVES];
    struct ls_leaf_list q_leaves, k_leaves;
    struct ls_mask mask[MOST_ENTRIES]; /* of each entry */
    struct ls_band bands[MOST_ENTRIES][MOST_BANDS];
    int64_t s_q_loc, s_k_loc;
    struct ls_tensor q, k, v, d_o; /* on the heap, as all that follows */
    float *lse, *delta;
    float *dq, *dk, *dv;
    struct ls_work result;
};

static inline int64_t share_out(struct ls_leaf_list *out, struct ls_leaf *leaf, int64_t s,
                                struct share share)
{
    int64_t rows = 0;

    *out = (struct ls_leaf_list){.leaf = leaf};
    for (int64_t number = share.first; number * LS_LEAF < s; number += share.step) {
        const int64_t left = s - number * LS_LEAF;

        cr_assert_lt(out->count, MOST_LEAVES);
        leaf[out->count++] = (struct ls_leaf){number, rows};
        rows += left < LS_LEAF ? left : LS_LEAF;
    }
    return rows;
}

static inline int64_t position_of(const struct ls_leaf_list *leaves, int64_t row)
{
    return leaves->leaf[row / LS_LEAF].number * LS_LEAF + row % LS_LEAF;
}

static inline bool meeting_sees(const struct meeting *m, int64_t batch, int64_t i, int64_t j)
{
    return ls_mask_sees(&m->mask[batch], position_of(&m->q_leaves, i),
                        position_of(&m->k_leaves, j));
}

/* One query and one key of a head, in double. */
struct exact_pair {
    double p, ds, majorant;      /* of ds */
    double dlogit, dlogit_bound; /* of its error */
    double kappa;
};

struct exact_scores {
    double logit, slack, keep, bend; /* bend: how slack errs over how the product does */
    double bias;                     /* sum of sizes */
};

static inline void add_bias(struct exact_scores *out, double bias)
{
    out->logit += bias;
    out->bias += fabs(bias);
}

static inline struct exact_scores exact_scores(const struct meeting *m, double product,
                                               int64_t batch, int64_t head, int64_t i, int64_t j)
{
    const struct ls_scores *s = &m->scores;
    const int64_t row = position_of(&m->q_leaves, i), key = position_of(&m->k_leaves, j);
    struct exact_scores out = {.logit = (double)s->scale * product, .slack = 1, .keep = 1};
    bool kept[4];

    if (s->soft_cap != 0) {
        out.logit /= (double)s->soft_cap;
        out.slack = 1 / (cosh(out.logit) * cosh(out.logit));
        out.bend = 2 * fabs(tanh(out.logit)) / (double)s->soft_cap;
        out.logit = (double)s->soft_cap * tanh(out.logit);
    }
    if (s->alibi)
        add_bias(&out, -(double)s->alibi[s->first_head + head] *
                           fabs((double)(ls_mask_place(&m->mask[batch], row) - key)));
    if (s->distance_bias) {
        const int64_t most = s->distances / 2, far = key - ls_mask_place(&m->mask[batch], row);

        add_bias(&out, (double)s->distance_bias[(s->first_head + head) * s->distances + most +
                                                (far < -most  ? -most
                                                 : far > most ? most
                                                              : far)]);
    }
    if (s->bias)
        add_bias(&out,
                 (double)s->bias[batch * s->bias_entry + (s->first_head + head) * s->bias_head +
                                 row * s->bias_keys + key]);
    if (s->dropout != 0) {
        ls_dropout_kept(kept, s, batch, s->first_head + head, row, key / 4 * 4, 4);
        out.keep = kept[key % 4] ? 1 / (1 - (double)s->dropout) : 0;
    }
    return out;
}

/* Elements in double, in the order of [b, h, s, d or d_v]. */
struct wide {
    double *q, *k, *v, *d_o;
};

static inline double *widen(const struct ls_tensor *t)
{
    double *out = malloc((size_t)elements(t) * sizeof *out + 1), *row = out;

    for (int64_t batch = 0; batch < t->dim[0]; batch++)
        for (int64_t head = 0; head < t->dim[2]; head++)
            for (int64_t i = 0; i < t->dim[1]; i++, row += t->dim[3])
                ls_dtype_convert(row, LS_F64, element_at(t, batch, i, head), t->type, t->dim[3]);
    return out;
}

static inline struct wide wide_open(const struct meeting *m)
{
    return (struct wide){widen(&m->q), widen(&m->k), widen(&m->v), widen(&m->d_o)};
}

static inline void wide_close(struct wide *wide)
{
    free(wide->q);
    free(wide->k);
    free(wide->v);
    free(wide->d_o);
}

/* A query's and a key's rows there, of one query head. */
static inline int64_t query_at(const struct meeting *m, int64_t batch, int64_t head, int64_t i)
{
    return (batch * m->shape.h + head) * m->s_q_loc + i;
}

static inline int64_t key_at(const struct meeting *m, int64_t batch, int64_t head, int64_t j)
{
    const int64_t kv = head / (m->shape.h / m->shape.h_kv);

    return (batch * m->shape.h_kv + kv) * m->s_k_loc + j;
}

static inline double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;

    for (int64_t e = 0; e < n; e++) sum += a[e] * b[e];
    return sum;
}

static inline double dot_of_sizes(const double *a, const double *b, int64_t n)
{
    double sum = 0;

    for (int64_t e = 0; e < n; e++) sum += fabs(a[e] * b[e]);
    return sum;
}

static inline void forward_row(struct meeting *m, const struct wide *wide, int64_t batch,
                               int64_t head, int64_t i, double *logit, double *dp)
{
    const int64_t d = m->shape.d, d_v = ls_value_dim(&m->shape), q = query_at(m, batch, head, i);
    double top = -INFINITY, sum = 0, delta = 0;

    for (int64_t j = 0; j < m->s_k_loc; j++) {
        const int64_t k = key_at(m, batch, head, j);

        logit[j] = -INFINITY;
        if (!meeting_sees(m, batch, i, j)) continue;
        const struct exact_scores scores =
            exact_scores(m, dot(wide->q + q * d, wide->k + k * d, d), batch, head, i, j);

        logit[j] = scores.logit;
        dp[j] = scores.keep * dot(wide->d_o + q * d_v, wide->v + k * d_v, d_v);
        top = fmax(top, logit[j]);
    }
    for (int64_t j = 0; j < m->s_k_loc; j++)
        if (logit[j] != -INFINITY) sum += exp(logit[j] - top);
    const double lse = sum == 0 ? -INFINITY : top + log(sum);
    for (int64_t j = 0; j < m->s_k_loc; j++)
        if (logit[j] != -INFINITY) delta += exp(logit[j] - lse) * dp[j];
    m->lse[q] = (float)lse;
    m->delta[q] = (float)(delta - 0.25 * sin((double)q));
}

/* lse and delta as forward would give them if these were all keys, and something added to delta, as
 * a gradient of lse would. */
static inline void meeting_forward(struct meeting *m)
{
    const struct ls_attention_shape *s = &m->shape;
    double *logit = malloc((size_t)m->s_k_loc * 2 * sizeof *logit + 1);
    struct wide wide = wide_open(m);

    for (int64_t pair = 0; pair < s->b * s->h; pair++)
        for (int64_t i = 0; i < m->s_q_loc; i++)
            forward_row(m, &wide, pair / s->h, pair % s->h, i, logit, logit + m->s_k_loc);
    wide_close(&wide);
    free(logit);
}

static inline void *room(size_t bytes)
{
    char *memory = malloc(bytes + 1);

    cr_assert_not_null(memory);
    memset(memory, 0x5a, bytes + 1);
    return memory;
}

static inline void meeting_open(struct meeting *m)
{
    const struct ls_attention_shape *s = &m->shape;

    need_family(open_device(1)->ops->gradient, "gradients");
    if (m->q_share.step == 0) m->q_share.step = 1;
    if (m->k_share.step == 0) m->k_share.step = 1;
    if (m->threads == 0) m->threads = 1;
    if (m->scores.scale == 0) m->scores.scale = (float)(1 / sqrt((double)s->d));
    if (m->scores.heads == 0) m->scores.heads = s->h;
    m->rule.s_q = s->s_q;
    m->rule.s_k = s->s_k;
    cr_assert_leq(s->b, MOST_ENTRIES);
    for (int64_t i = 0; i < s->b; i++)
        m->mask[i] = m->bands_by
                         ? draw_bands(m->bands[i], s->s_q, s->s_k, m->bands_by + 1000 * (uint64_t)i)
                         : mask_by(&m->rule, m->bands[i]);
    m->s_q_loc = share_out(&m->q_leaves, m->q_leaf, s->s_q, m->q_share);
    m->s_k_loc = share_out(&m->k_leaves, m->k_leaf, s->s_k, m->k_share);
    m->q = tensor_over(NULL, s->type, s->b, m->s_q_loc, s->h, s->d, m->bhsd);
    m->k = tensor_over(NULL, s->type, s->b, m->s_k_loc, s->h_kv, s->d, m->bhsd);
    m->v = tensor_over(NULL, s->type, s->b, m->s_k_loc, s->h_kv, ls_value_dim(s), m->bhsd);
    m->d_o = tensor_over(NULL, s->type, s->b, m->s_q_loc, s->h, ls_value_dim(s), m->bhsd);

    struct ls_tensor *all[] = {&m->q, &m->k, &m->v, &m->d_o};
    for (int i = 0; i < LENGTH(all); i++) {
        all[i]->data = room(tensor_bytes(all[i]));
        fill_normal(all[i], (uint32_t)i, 1);
    }
    const size_t q_rows = (size_t)(s->b * s->h * m->s_q_loc);
    const size_t k_rows = (size_t)(s->b * s->h * m->s_k_loc), row = (size_t)s->d * sizeof(float);
    const size_t dv_row = (size_t)ls_value_dim(s) * sizeof(float);
    m->lse = room(q_rows * sizeof(float));
    m->delta = room(q_rows * sizeof(float));
    m->dq = room(q_rows * row);
    m->dk = room(k_rows * row);
    m->dv = room(k_rows * dv_row);
    meeting_forward(m);
}

static inline void meeting_close(struct meeting *m)
{
    void *all[] = {m->q.data, m->k.data, m->v.data, m->d_o.data, m->lse,
                   m->delta,  m->dq,     m->dk,     m->dv};

    for (int i = 0; i < LENGTH(all); i++) free(all[i]);
}

/* The meeting in words, for messages. Static. */
static inline const char *meeting_name(const struct meeting *m)
{
    static char name[320];
    const struct ls_attention_shape *s = &m->shape;

    snprintf(
        name, sizeof name,
        "%s %s b %ld h %ld/%ld s %ld x %ld d %ld/%ld%s, shift %ld left %ld right %ld prefix %ld "
        "documents %ld, bands by %ld, cap %g alibi %d dropout %g, leaves %ld x %ld, threads %d",
        variant->name, ls_dtype_name(s->type), (long)s->b, (long)s->h, (long)s->h_kv, (long)s->s_q,
        (long)s->s_k, (long)s->d, (long)ls_value_dim(s), m->bhsd ? " bhsd" : "",
        (long)m->rule.shift, (long)m->rule.left, (long)m->rule.right, (long)m->rule.prefix,
        (long)m->rule.document_count, (long)m->bands_by, (double)m->scores.soft_cap,
        m->scores.alibi != NULL, (double)m->scores.dropout, (long)m->q_leaves.count,
        (long)m->k_leaves.count, m->threads);
    return name;
}

static inline struct ls_gradient_shape meeting_shape(const struct meeting *m)
{
    return (struct ls_gradient_shape){
        .attention = {.global = m->shape,
                      .masks = {m->mask, m->shape.b, 1, 0},
                      .scores = m->scores,
                      .k_leaves = m->k_leaves.count},
        .q_leaves = m->q_leaves.count,
    };
}

static inline struct ls_gradient_call meeting_call(const struct meeting *m)
{
    return (struct ls_gradient_call){
        .q = &m->q,
        .d_o = &m->d_o,
        .k = &m->k,
        .v = &m->v,
        .lse = m->lse,
        .delta = m->delta,
        .q_leaves = m->q_leaves,
        .k_leaves = m->k_leaves,
        .dq = m->dq,
        .dk = m->dk,
        .dv = m->dv,
    };
}

/* Fills dq, dk and dv. */
static inline void meeting_run(struct meeting *m)
{
    struct ls_device *device = open_device(m->threads);
    const struct ls_gradient_call call = meeting_call(m);
    struct ls_gradient_kernel *kernel;
    ls_status status;

    m->result = (struct ls_work){0};
    cr_assert_eq(ls_gradient_kernel_create(&kernel, device, meeting_shape(m)), LS_OK, "%s: %s",
                 meeting_name(m), ls_message());
    if (m->in_place) {
        ls_gradient(&device->queue, kernel, &call);
        status = ls_queue_finish(&m->result, &device->queue);
    } else {
        status = run_gradient(&m->result, device, kernel, &call);
    }
    cr_assert_eq(status, LS_OK, "%s: %s", meeting_name(m), ls_message());
    ls_gradient_kernel_destroy(device, kernel);
}

/* Sums in double and their majorants. */
struct exact_sums {
    double *dq, *dk, *dv, *dq_bound, *dk_bound, *dv_bound;
};

static inline struct exact_pair exact_pair(const struct meeting *m, const struct wide *wide,
                                           int64_t batch, int64_t head, int64_t i, int64_t j)
{
    const int64_t d = m->shape.d, d_v = ls_value_dim(&m->shape);
    const int64_t q = query_at(m, batch, head, i), k = key_at(m, batch, head, j);
    const double *d_o = wide->d_o + q * d_v, *v = wide->v + k * d_v;
    const struct exact_scores scores =
        exact_scores(m, dot(wide->q + q * d, wide->k + k * d, d), batch, head, i, j);
    const double p = exp(scores.logit - (double)m->lse[q]), scale = (double)m->scores.scale;
    const double dp = dot(d_o, v, d_v), delta = (double)m->delta[q];
    const double most = dot_of_sizes(d_o, v, d_v);
    const double size = fabs(scale) * dot_of_sizes(wide->q + q * d, wide->k + k * d, d);
    const double kappa = (1 + scores.bend) * size + fabs((double)m->lse[q]);

    return (struct exact_pair){
        .p = p * scores.keep,
        .ds = scale * scores.slack * p * (scores.keep * dp - delta),
        .majorant = fabs(scale) * scores.slack * p * (scores.keep * most + fabs(delta)),
        .dlogit = p * (scores.keep * dp - delta),
        .dlogit_bound = ((8 + 8 * (kappa + scores.bias)) * 0x1p-24 * p + 0x1p-126) *
                        (scores.keep * most + fabs(delta)),
        .kappa = kappa,
    };
}

static inline void add_exact_pair(struct exact_sums *out, const struct meeting *m,
                                  const struct wide *wide, int64_t batch, int64_t head, int64_t i,
                                  int64_t j)
{
    const int64_t d = m->shape.d, d_v = ls_value_dim(&m->shape);
    const int64_t row = query_at(m, batch, head, i), q_at = row * d;
    const int64_t key = (batch * m->shape.h + head) * m->s_k_loc + j, k_at = key * d;
    const double *q = wide->q + q_at, *d_o = wide->d_o + row * d_v;
    const double *k = wide->k + key_at(m, batch, head, j) * d;

    if (m->lse[row] == -INFINITY) return; /* all that it sees has a bias of -inf */
    const struct exact_pair pair = exact_pair(m, wide, batch, head, i, j);
    const double rounding = m->shape.type == LS_BF16 ? 0x1p-7 : 0;
    const double u = rounding + (8 + 8 * pair.kappa) * 0x1p-24;

    for (int64_t e = 0; e < d; e++) {
        out->dq[q_at + e] += pair.ds * k[e];
        out->dk[k_at + e] += pair.ds * q[e];
        out->dq_bound[q_at + e] += u * pair.majorant * fabs(k[e]);
        out->dk_bound[k_at + e] += u * pair.majorant * fabs(q[e]);
    }
    for (int64_t e = 0; e < d_v; e++) {
        out->dv[key * d_v + e] += pair.p * d_o[e];
        out->dv_bound[key * d_v + e] += u * pair.p * fabs(d_o[e]);
    }
}

static inline void expect_close(const float *got, const double *exact, const double *bound,
                                int64_t n, const char *what, const struct meeting *m)
{
    double worst = 0, error = 0, norm = 0;
    int64_t at = 0;

    for (int64_t i = 0; i < n; i++) {
        const double e = fabs((double)got[i] - exact[i]), units = e / (bound[i] + 0x1p-126);

        error += e * e;
        norm += exact[i] * exact[i];
        if (units <= worst || isnan(worst)) continue; /* of a NaN, neither is */
        worst = units;
        at = i;
    }
    const double rel = norm > 0 ? sqrt(error / norm) : 0;
    cr_expect(worst <= 1, "%s: %s[%ld] is %g, not %g: %g of what is allowed, rel %g",
              meeting_name(m), what, (long)at, (double)got[at], exact[at], worst, rel);
}

/* Holds what meeting_run left against double. */
static inline void expect_exact(const struct meeting *m)
{
    const struct ls_attention_shape *s = &m->shape;
    const int64_t q_n = s->b * s->h * m->s_q_loc * s->d, k_n = s->b * s->h * m->s_k_loc * s->d;
    const int64_t v_n = s->b * s->h * m->s_k_loc * ls_value_dim(s);
    double *memory = calloc((size_t)(2 * (q_n + k_n + v_n)) + 1, sizeof *memory);
    struct exact_sums sums = {
        .dq = memory,
        .dq_bound = memory + q_n,
        .dk = memory + 2 * q_n,
        .dk_bound = memory + 2 * q_n + k_n,
        .dv = memory + 2 * q_n + 2 * k_n,
        .dv_bound = memory + 2 * q_n + 2 * k_n + v_n,
    };
    struct wide wide = wide_open(m);

    for (int64_t pair = 0; pair < s->b * s->h; pair++)
        for (int64_t i = 0; i < m->s_q_loc; i++)
            for (int64_t j = 0; j < m->s_k_loc; j++)
                if (meeting_sees(m, pair / s->h, i, j))
                    add_exact_pair(&sums, m, &wide, pair / s->h, pair % s->h, i, j);
    expect_close(m->dq, sums.dq, sums.dq_bound, q_n, "dq", m);
    expect_close(m->dk, sums.dk, sums.dk_bound, k_n, "dk", m);
    expect_close(m->dv, sums.dv, sums.dv_bound, v_n, "dv", m);
    wide_close(&wide);
    free(memory);
}

#endif
