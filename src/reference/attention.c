#include "reference/attention.h"

#include <math.h>
#include <string.h>

#include "base/ledger.h"
#include "base/status.h"
#include "tensor/dtype.h"

/* Keys whose scores are held at once, and interleaved sums of a dot product: a compiler may not
 * reorder one sum, but it can keep these side by side in vector registers. */
enum { BLOCK = 64, LANES = 8 };

/* The larger of two numbers; b if that is NaN, which fmax would drop. */
static double larger(double a, double b)
{
    return a >= b ? a : b;
}

/* *dot = sum_e q_e k_e, *size = sum_e |q_e k_e|. */
static void multiply(double *dot, double *size, const double *q, const double *k, int d)
{
    double dots[LANES] = {0}, sizes[LANES] = {0};
    const int whole = d - d % LANES;

    for (int e = 0; e < whole; e += LANES) {
        for (int c = 0; c < LANES; c++) {
            dots[c] += q[e + c] * k[e + c];
            sizes[c] += fabs(q[e + c] * k[e + c]);
        }
    }
    *dot = *size = 0;
    for (int c = 0; c < LANES; c++) {
        *dot += dots[c];
        *size += sizes[c];
    }
    for (int e = whole; e < d; e++) {
        *dot += q[e] * k[e];
        *size += fabs(q[e] * k[e]);
    }
}

/* Makes top, which is not less than m, the number that the exponentials are taken relative to. */
static void rescale(struct ls_reference_row *row, double top, int d)
{
    const double weight = exp(row->m - top);

    row->m = top;
    row->l *= weight;
    for (int e = 0; e < d; e++) {
        row->acc[e] *= weight;
        row->majorant[e] *= weight;
        row->spread[e] *= weight * weight;
    }
}

static void add_value(struct ls_reference_row *restrict row, const double *restrict v,
                      double weight, int d)
{
    row->l += weight;
    for (int e = 0; e < d; e++) {
        const double term = weight * v[e];

        row->acc[e] += term;
        row->majorant[e] += fabs(term);
        row->spread[e] += term * term;
        row->v_abs[e] += fabs(v[e]);
    }
}

/* ls_reference_row_add for at most BLOCK keys. */
static void add_block(struct ls_reference_row *row, const double *q, const double *k,
                      int64_t k_stride, const double *v, int64_t v_stride, int n, int d,
                      double scale)
{
    double score[BLOCK], top = row->m;

    for (int j = 0; j < n; j++) {
        double dot, size;

        multiply(&dot, &size, q, k + j * k_stride, d);
        score[j] = scale * dot;
        if (score[j] == -INFINITY) continue;
        top = larger(top, score[j]);
        row->kappa = larger(row->kappa, fabs(scale) * size);
    }
    if (top == -INFINITY) return;
    rescale(row, top, d);
    for (int j = 0; j < n; j++) {
        if (score[j] != -INFINITY) add_value(row, v + j * v_stride, exp(score[j] - top), d);
    }
}

void ls_reference_row_init(struct ls_reference_row *row)
{
    memset(row, 0, sizeof *row);
    row->m = -INFINITY;
}

void ls_reference_row_add(struct ls_reference_row *row, const double *q, const double *k,
                          int64_t k_stride, const double *v, int64_t v_stride, int64_t n, int d,
                          double scale)
{
    for (int64_t j = 0; j < n; j += BLOCK) {
        const int count = n - j < BLOCK ? (int)(n - j) : BLOCK;

        add_block(row, q, k + j * k_stride, k_stride, v + j * v_stride, v_stride, count, d, scale);
    }
}

void ls_reference_row_merge(struct ls_reference_row *row, const struct ls_reference_row *other,
                            int d)
{
    if (other->m == -INFINITY) return;
    if (row->m == -INFINITY) {
        *row = *other;
        return;
    }
    const double top = larger(row->m, other->m), weight = exp(other->m - top);

    rescale(row, top, d);
    row->l += weight * other->l;
    row->kappa = larger(row->kappa, other->kappa);
    for (int e = 0; e < d; e++) {
        row->acc[e] += weight * other->acc[e];
        row->majorant[e] += weight * other->majorant[e];
        row->spread[e] += weight * weight * other->spread[e];
        row->v_abs[e] += other->v_abs[e];
    }
}

void ls_reference_row_finish(double *o, double *lse, const struct ls_reference_row *row, int d)
{
    const bool empty = row->m == -INFINITY;

    for (int e = 0; e < d; e++) o[e] = empty ? 0 : row->acc[e] / row->l;
    *lse = empty ? -INFINITY : row->m + log(row->l);
}

int64_t ls_visible_keys(int64_t i, int64_t s_q, int64_t s_k, bool causal)
{
    const int64_t n = causal ? i + s_k - s_q + 1 : s_k;

    return n < 0 ? 0 : n > s_k ? s_k : n;
}

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

static ls_status check_inputs(const struct ls_tensor *q, const struct ls_tensor *k,
                              const struct ls_tensor *v)
{
    if (q->ndim != 4 || k->ndim != 4 || v->ndim != 4)
        return ls_fail(LS_ESHAPE, "dimensions: q has %d, k %d, v %d; expected 4", q->ndim, k->ndim,
                       v->ndim);
    if (memcmp(k->dim, v->dim, sizeof k->dim) != 0)
        return ls_fail(LS_ESHAPE, "k and v differ in shape");
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
                                 const struct ls_tensor *v, bool causal, double scale)
{
    LS_TRY(check_inputs(q, k, v));
    const int64_t b = q->dim[0], s_q = q->dim[1], h = q->dim[2], s_k = k->dim[1];
    const int64_t group = h / k->dim[2];
    const int d = (int)q->dim[3];

    LS_TRY(check_output(o, "o", 4, q->dim));
    LS_TRY(check_output(lse, "lse", 3, (const int64_t[]){b, h, s_q}));

    void *memory;
    LS_TRY(ls_alloc(&memory, LS_TAG_WORKSPACE, (size_t)((s_q + 2 * s_k) * d) * sizeof(double)));
    double *const q_rows = memory, *const k_rows = q_rows + s_q * d, *v_rows = k_rows + s_k * d;

    for (int64_t bh = 0; bh < b * h; bh++) {
        const int64_t bi = bh / h, head = bh % h;

        load_head(q_rows, q, bi, head);
        load_head(k_rows, k, bi, head / group);
        load_head(v_rows, v, bi, head / group);
        for (int64_t i = 0; i < s_q; i++) {
            struct ls_reference_row row;

            ls_reference_row_init(&row);
            ls_reference_row_add(&row, q_rows + i * d, k_rows, d, v_rows, d,
                                 ls_visible_keys(i, s_q, s_k, causal), d, scale);
            ls_reference_row_finish((double *)o->data + ((bi * s_q + i) * h + head) * d,
                                    (double *)lse->data + bh * s_q + i, &row, d);
        }
    }
    ls_free(memory);
    return LS_OK;
}
