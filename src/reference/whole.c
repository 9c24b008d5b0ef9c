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
                                 const struct ls_tensor *v, const struct ls_mask *mask,
                                 const struct ls_scores *scores)
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
            const struct ls_reference_query query = {q_rows + i * d, mask, scores, bi, head, i};
            struct ls_reference_row row;

            ls_reference_row_init(&row);
            ls_reference_row_add(&row, &query, k_rows, v_rows, 0, s_k, d);
            ls_reference_row_add_sink(&row, &query, d);
            ls_reference_row_finish((double *)o->data + ((bi * s_q + i) * h + head) * d,
                                    (double *)lse->data + bh * s_q + i, &row, d);
        }
    }
    ls_free(memory);
    return LS_OK;
}
