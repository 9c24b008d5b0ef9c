#include "reference/whole.h"

#include <string.h>

#include "base/ledger.h"
#include "base/status.h"
#include "tensor/dtype.h"

/* out [s, d] = the rows of one head of a [b, s, h, d] tensor. */
static void load_head(double *out, const struct ls_tensor *in, int64_t b, int64_t head)
{
    const int64_t first = b * in->stride[0] + head * in->stride[2];
    const int64_t s = in->dim[1], d = in->dim[3];

    for (int64_t i = 0; i < s; i++) {
        for (int64_t e = 0; e < d; e++) {
            const int64_t at = first + i * in->stride[1] + e * in->stride[3];

            out[i * d + e] =
                ls_dtype_load(in->type, (const char *)in->data + at * ls_dtype_size(in->type));
        }
    }
}

/* One element of a [b, h, s] tensor. */
static double load_element(const struct ls_tensor *in, int64_t b, int64_t head, int64_t i)
{
    const int64_t at = b * in->stride[0] + head * in->stride[1] + i * in->stride[2];

    return ls_dtype_load(in->type, (const char *)in->data + at * ls_dtype_size(in->type));
}

static ls_status check_inputs(const struct ls_tensor *q, const struct ls_tensor *k,
                              const struct ls_tensor *v)
{
    if (q->ndim != 4 || k->ndim != 4 || v->ndim != 4)
        return ls_fail(LS_ESHAPE, "dimensions: q has %d, k %d, v %d; expected 4", q->ndim, k->ndim,
                       v->ndim);
    if (memcmp(k->dim, v->dim, 3 * sizeof *k->dim) != 0)
        return ls_fail(LS_ESHAPE, "k and v differ in shape");
    if (v->dim[3] < 1 || v->dim[3] > LS_MAX_HEAD_DIM)
        return ls_fail(LS_ESHAPE, "head dim of v is %lld; expected 1 to %d", (long long)v->dim[3],
                       LS_MAX_HEAD_DIM);
    if (q->dim[3] != k->dim[3] || q->dim[3] < 1 || q->dim[3] > LS_MAX_HEAD_DIM)
        return ls_fail(LS_ESHAPE, "head dim: q has %lld, k has %lld; expected the same, 1 to %d",
                       (long long)q->dim[3], (long long)k->dim[3], LS_MAX_HEAD_DIM);
    if (q->dim[0] != k->dim[0])
        return ls_fail(LS_ESHAPE, "batch: q has %lld, k has %lld", (long long)q->dim[0],
                       (long long)k->dim[0]);
    if (k->dim[2] < 1 || q->dim[2] % k->dim[2] != 0)
        return ls_fail(LS_ESHAPE, "heads: q has %lld, no multiple of the %lld of k",
                       (long long)q->dim[2], (long long)k->dim[2]);
    return LS_OK;
}

/* Errors if t, named by name, is not an f64 tensor of the given dimensions. */
static ls_status check_output(const struct ls_tensor *t, const char *name, int ndim,
                              const int64_t *dim)
{
    if (t->type != LS_F64)
        return ls_fail(LS_ETYPE, "%s of the reference is %s, expected f64", name,
                       ls_dtype_name(t->type));
    if (t->ndim != ndim || memcmp(t->dim, dim, (size_t)ndim * sizeof *dim) != 0)
        return ls_fail(LS_ESHAPE, "%s of the reference does not have the shape q gives it", name);
    return LS_OK;
}

ls_status ls_reference_attention(struct ls_tensor *o, struct ls_tensor *lse,
                                 const struct ls_tensor *q, const struct ls_tensor *k,
                                 const struct ls_tensor *v, const struct ls_masks *masks,
                                 const struct ls_scores *scores)
{
    LS_TRY(check_inputs(q, k, v));
    const int64_t b = q->dim[0], s_q = q->dim[1], h = q->dim[2], s_k = k->dim[1];
    const int64_t group = h / k->dim[2];
    const int d = (int)q->dim[3], d_v = (int)v->dim[3];

    LS_TRY(check_output(o, "o", 4, (const int64_t[]){b, s_q, h, d_v}));
    LS_TRY(check_output(lse, "lse", 3, (const int64_t[]){b, h, s_q}));

    void *memory;
    LS_TRY(ls_alloc(&memory, LS_TAG_WORKSPACE,
                    (size_t)((s_q + s_k) * d + s_k * d_v) * sizeof(double)));
    double *const q_rows = memory, *const k_rows = q_rows + s_q * d, *v_rows = k_rows + s_k * d;

    for (int64_t bh = 0; bh < b * h; bh++) {
        const int64_t bi = bh / h, head = bh % h, of_all = scores->first_head + head;

        load_head(q_rows, q, bi, head);
        load_head(k_rows, k, bi, head / group);
        load_head(v_rows, v, bi, head / group);
        for (int64_t i = 0; i < s_q; i++) {
            const struct ls_reference_query query = {
                q_rows + i * d, ls_masks_of(masks, bi, of_all), scores, bi, of_all, i};
            struct ls_reference_row row;

            ls_reference_row_init(&row);
            ls_reference_row_add(&row, &query, k_rows, v_rows, 0, s_k, d, d_v);
            ls_reference_row_add_sink(&row, &query, d_v);
            ls_reference_row_finish((double *)o->data + ((bi * s_q + i) * h + head) * d_v,
                                    (double *)lse->data + bh * s_q + i, &row, d_v);
        }
    }
    ls_free(memory);
    return LS_OK;
}

/* ---- gradients */

/* One gradient row after the other is handed to `take`: which of dq, dk, dv, dsinks, ddistance_bias
 * and dbias, and where, {b, position, head}, of biases by distance the first one's place for a
 * position; from which element on, d of them. */
struct backward {
    const struct ls_attention_saved *saved;
    const struct ls_masks *masks;
    const struct ls_scores *scores;
    void (*take)(void *context, int which, const int64_t where[3],
                 const struct ls_reference_sum *sum, int64_t first, int d);
    void *context;
    int64_t b, s_q, s_k, h, group;
    int d, d_v;
    double *q, *d_o;                    /* [b, h, s_q, d], [b, h, s_q, d_v] */
    double *k, *v;                      /* [b, h_kv, s_k, d], [b, h_kv, s_k, d_v] */
    struct ls_reference_backward *rows; /* [b, h, s_q] */
    struct ls_reference_sum *dsink;     /* [h] */
    struct ls_reference_sum *ddistance; /* [h][ls_reference_bias_sums] */
};

/* Of a query head, of all entries. */
static const struct ls_reference_backward *rows_of(const struct backward *w, int64_t b,
                                                   int64_t head)
{
    return w->rows + (b * w->h + head) * w->s_q;
}

/* Key j that a head's queries meet. */
static const double *key(const struct backward *w, int64_t b, int64_t head, int64_t j)
{
    return w->k + ((b * w->h + head) / w->group * w->s_k + j) * w->d;
}

static const double *value(const struct backward *w, int64_t b, int64_t head, int64_t j)
{
    return w->v + ((b * w->h + head) / w->group * w->s_k + j) * w->d_v;
}

/* Row i of a head, with its exact lse and delta. */
static void prepare_row(struct backward *w, int64_t b, int64_t head, int64_t i)
{
    const int64_t n = (b * w->h + head) * w->s_q + i, of_all = w->scores->first_head + head;
    const struct ls_tensor *dlse = w->saved->dlse;
    struct ls_reference_backward *row = &w->rows[n];
    double o[LS_MAX_HEAD_DIM], lse;
    struct ls_reference_row forward;

    *row = (struct ls_reference_backward){
        .query = {w->q + n * w->d, ls_masks_of(w->masks, b, of_all), w->scores, b, of_all, i},
        .d_o = w->d_o + n * w->d_v,
        .rounded_o = !w->saved->o_lo,
    };
    ls_reference_row_init(&forward);
    ls_reference_row_add(&forward, &row->query, key(w, b, head, 0), value(w, b, head, 0), 0, w->s_k,
                         w->d, w->d_v);
    ls_reference_row_add_sink(&forward, &row->query, w->d_v);
    ls_reference_row_finish(o, &lse, &forward, w->d_v);
    ls_reference_backward_set(row, o, lse, dlse ? load_element(dlse, b, head, i) : 0, w->d_v);
}

static void prepare_head(struct backward *w, int64_t b, int64_t head)
{
    const struct ls_attention_saved *saved = w->saved;
    const int64_t first = (b * w->h + head) * w->s_q;

    load_head(w->q + first * w->d, saved->q, b, head);
    load_head(w->d_o + first * w->d_v, saved->d_o, b, head);
    if (head % w->group == 0) {
        load_head((double *)key(w, b, head, 0), saved->k, b, head / w->group);
        load_head((double *)value(w, b, head, 0), saved->v, b, head / w->group);
    }
    for (int64_t i = 0; i < w->s_q; i++) prepare_row(w, b, head, i);
}

static void add_distances(struct backward *w, int64_t b, int64_t head,
                          const struct ls_reference_backward *row)
{
    struct ls_reference_sum *sums =
        w->ddistance + head * ls_reference_bias_sums(w->scores->distances);

    for (int64_t j = 0; j < w->s_k && w->scores->distance_bias; j++)
        ls_reference_add_dbias(sums, ls_reference_distance(&row->query, j), row, key(w, b, head, j),
                               value(w, b, head, j), j, w->d, w->d_v);
}

/* dq of a query head, and its share in dsink and biases by distance. */
static void finish_queries(struct backward *w, int64_t b, int64_t head)
{
    struct ls_reference_sum dq;

    for (int64_t i = 0; i < w->s_q; i++) {
        const struct ls_reference_backward *row = rows_of(w, b, head) + i;

        ls_reference_sum_init(&dq);
        ls_reference_add_dq(&dq, row, key(w, b, head, 0), value(w, b, head, 0), 0, w->s_k, w->d,
                            w->d_v);
        w->take(w->context, 0, (const int64_t[]){b, i, head}, &dq, 0, w->d);
        if (w->scores->sinks) ls_reference_add_dsink(&w->dsink[head], row);
        add_distances(w, b, head, row);
    }
}

static void finish_keys(struct backward *w, int64_t b, int64_t kv_head)
{
    const int64_t head = kv_head * w->group;
    struct ls_reference_sum dk, dv;

    for (int64_t j = 0; j < w->s_k; j++) {
        ls_reference_sum_init(&dk);
        ls_reference_sum_init(&dv);
        for (int64_t i = 0; i < w->group * w->s_q; i++)
            ls_reference_add_dkv(&dk, &dv, rows_of(w, b, head) + i, key(w, b, head, j),
                                 value(w, b, head, j), j, w->d, w->d_v);
        w->take(w->context, 1, (const int64_t[]){b, j, kv_head}, &dk, 0, w->d);
        w->take(w->context, 2, (const int64_t[]){b, j, kv_head}, &dv, 0, w->d_v);
    }
}

/* Of sinks and biases by distance, once all pairs have been met. */
static void take_sums(struct backward *w)
{
    const int64_t distances = w->scores->distances, sums = ls_reference_bias_sums(distances);

    for (int64_t head = 0; w->scores->sinks && head < w->h; head++)
        w->take(w->context, 3, (const int64_t[]){0, 0, head}, &w->dsink[head], 0, 1);
    for (int64_t i = 0; i < w->h * sums; i++) {
        const int64_t first = i % sums * LS_REFERENCE_BIASES, left = distances - first;

        w->take(w->context, 4, (const int64_t[]){0, first, i / sums}, &w->ddistance[i], 0,
                left < LS_REFERENCE_BIASES ? (int)left : LS_REFERENCE_BIASES);
    }
}

/* Biases of query i with keys [first, first + n), of an entry and a head or of all that share them.
 */
static void take_biases(struct backward *w, int64_t b, int64_t head, int64_t i, int64_t first,
                        int n)
{
    const bool entries = w->scores->bias_entry > 0, heads = w->scores->bias_head > 0;
    struct ls_reference_sum sum;

    ls_reference_sum_init(&sum);
    for (int64_t bi = entries ? b : 0; bi < (entries ? b + 1 : w->b); bi++)
        for (int64_t hi = heads ? head : 0; hi < (heads ? head + 1 : w->h); hi++)
            for (int64_t j = first; j < first + n; j++)
                ls_reference_add_dbias(&sum, j - first, rows_of(w, bi, hi) + i, key(w, bi, hi, j),
                                       value(w, bi, hi, j), j, w->d, w->d_v);
    w->take(w->context, 5, (const int64_t[]){b, i, head}, &sum, first, n);
}

static void take_all_biases(struct backward *w)
{
    const int64_t entries = w->scores->bias_entry > 0 ? w->b : 1;
    const int64_t heads = w->scores->bias_head > 0 ? w->h : 1;

    if (!w->scores->bias) return;
    for (int64_t n = 0; n < entries * heads * w->s_q; n++)
        for (int64_t first = 0; first < w->s_k; first += LS_REFERENCE_BIASES)
            take_biases(w, n / w->s_q / heads, n / w->s_q % heads, n % w->s_q, first,
                        w->s_k - first < LS_REFERENCE_BIASES ? (int)(w->s_k - first)
                                                             : LS_REFERENCE_BIASES);
}

/* Takes every row of every gradient. */
static ls_status go_back(struct backward *w)
{
    const struct ls_attention_saved *saved = w->saved;

    LS_TRY(check_inputs(saved->q, saved->k, saved->v));
    w->b = saved->q->dim[0];
    w->s_q = saved->q->dim[1];
    w->s_k = saved->k->dim[1];
    w->h = saved->q->dim[2];
    w->group = w->h / saved->k->dim[2];
    w->d = (int)saved->q->dim[3];
    w->d_v = (int)saved->v->dim[3];

    const int64_t heads = w->b * w->h, q_rows = heads * w->s_q, k_rows = heads / w->group * w->s_k;
    const size_t operands = (size_t)((q_rows + k_rows) * (w->d + w->d_v)) * sizeof(double);
    const int64_t sums = w->h * (1 + ls_reference_bias_sums(w->scores->distances));
    void *memory;

    LS_TRY(ls_alloc(&memory, LS_TAG_WORKSPACE,
                    (size_t)sums * sizeof *w->dsink + (size_t)q_rows * sizeof *w->rows + operands));
    w->dsink = memory;
    w->ddistance = w->dsink + w->h;
    w->rows = (void *)(w->dsink + sums);
    w->q = (void *)(w->rows + q_rows);
    w->d_o = w->q + q_rows * w->d;
    w->k = w->d_o + q_rows * w->d_v;
    w->v = w->k + k_rows * w->d;
    for (int64_t i = 0; i < sums; i++) ls_reference_sum_init(&w->dsink[i]);
    for (int64_t i = 0; i < heads; i++) prepare_head(w, i / w->h, i % w->h);
    for (int64_t i = 0; i < heads; i++) finish_queries(w, i / w->h, i % w->h);
    for (int64_t i = 0; i < heads / w->group; i++)
        finish_keys(w, i / (w->h / w->group), i % (w->h / w->group));
    take_sums(w);
    take_all_biases(w);
    ls_free(memory);
    return LS_OK;
}

/* The tensors of dq, dk, dv, dsinks, ddistance_bias and dbias, which may be NULL. */
static struct ls_tensor *gradient(const struct ls_attention_gradients *g, int which)
{
    struct ls_tensor *const all[LS_GRADIENTS] = {
        g->dq, g->dk, g->dv, g->dsinks, g->ddistance_bias, g->dbias};

    return all[which];
}

/* The first element of a row. */
static int64_t place_of(const struct ls_tensor *t, int which, const int64_t where[3])
{
    if (which == 3) return where[2] * t->stride[0];
    if (which == 4) return where[2] * t->stride[0] + where[1];
    if (which == 5)
        return where[0] * t->stride[0] + where[2] * t->stride[1] + where[1] * t->stride[2];
    return where[0] * t->stride[0] + where[1] * t->stride[1] + where[2] * t->stride[2];
}

static void store_row(void *context, int which, const int64_t where[3],
                      const struct ls_reference_sum *sum, int64_t first, int d)
{
    struct ls_tensor *t = gradient(context, which);

    if (t)
        memcpy((double *)t->data + place_of(t, which, where) + first, sum->value,
               (size_t)d * sizeof(double));
}

ls_status ls_reference_attention_backward(const struct ls_attention_gradients *out,
                                          const struct ls_attention_saved *saved,
                                          const struct ls_masks *masks,
                                          const struct ls_scores *scores)
{
    struct ls_attention_gradients gradients = *out;
    struct backward w = {
        .saved = saved, .masks = masks, .scores = scores, .take = store_row, .context = &gradients};

    LS_TRY(check_output(out->dq, "dq", 4, saved->q->dim));
    LS_TRY(check_output(out->dk, "dk", 4, saved->k->dim));
    LS_TRY(check_output(out->dv, "dv", 4, saved->v->dim));
    if (out->dsinks) LS_TRY(check_output(out->dsinks, "dsinks", 1, &saved->q->dim[2]));
    if (out->ddistance_bias)
        LS_TRY(check_output(out->ddistance_bias, "ddistance_bias", 2,
                            (const int64_t[]){saved->q->dim[2], scores->distances}));
    if (out->dbias)
        LS_TRY(check_output(out->dbias, "dbias", 4,
                            (const int64_t[]){scores->bias_entry > 0 ? saved->q->dim[0] : 1,
                                              scores->bias_head > 0 ? saved->q->dim[2] : 1,
                                              saved->q->dim[1], saved->k->dim[1]}));
    return go_back(&w);
}

struct judgement {
    const struct ls_attention_gradients *gradients;
    ls_dtype storage;
    struct ls_gradient_errors errors[LS_GRADIENTS];
};

static void judge_row(void *context, int which, const int64_t where[3],
                      const struct ls_reference_sum *sum, int64_t first, int d)
{
    struct judgement *j = context;
    const struct ls_tensor *t = gradient(j->gradients, which);
    double value[LS_MAX_HEAD_DIM];

    if (!t) return;
    for (int e = 0; e < d; e++) {
        const int64_t at = place_of(t, which, where) + (first + e) * t->stride[t->ndim - 1];

        value[e] = ls_dtype_load(t->type, (const char *)t->data + at * ls_dtype_size(t->type));
    }
    ls_gradient_errors_add_row(&j->errors[which], j->storage, value, sum, d, where);
}

ls_status ls_reference_judge_gradients(struct ls_gradient_verdict out[LS_GRADIENTS],
                                       const struct ls_attention_gradients *gradients,
                                       ls_dtype storage, const struct ls_attention_saved *saved,
                                       const struct ls_masks *masks, const struct ls_scores *scores)
{
    struct judgement judgement = {.gradients = gradients, .storage = storage};
    struct backward w = {
        .saved = saved, .masks = masks, .scores = scores, .take = judge_row, .context = &judgement};

    for (int i = 0; i < LS_GRADIENTS; i++) ls_gradient_errors_init(&judgement.errors[i]);
    LS_TRY(go_back(&w));
    for (int i = 0; i < LS_GRADIENTS; i++) {
        out[i] = (struct ls_gradient_verdict){.ok = true};
        if (judgement.errors[i].rows > 0)
            ls_gradient_errors_judge(&out[i], &judgement.errors[i], storage, 1);
    }
    return LS_OK;
}
