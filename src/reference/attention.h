/* Attention in double precision, one query row at a time: the truth that everything else is held
 * against. A row's partial result is a value that can be merged, so that each rank can do the keys
 * it holds; the arithmetic is independent of the kernels'. */
#ifndef LS_REFERENCE_ATTENTION_H
#define LS_REFERENCE_ATTENTION_H

#include <stdint.h>

#include "longspan/attention.h"

/* What a query row has seen so far. Natural logarithm throughout. Empty: m = -inf, the rest 0.
 * A key whose score is -inf counts as not seen; a NaN makes the row's result NaN. */
struct ls_reference_row {
    double m;                         /* largest score scale x q.k */
    double l;                         /* sum of exp(score - m) */
    double kappa;                     /* |scale| x largest sum_e |q_e k_je| */
    double acc[LS_MAX_HEAD_DIM];      /* sum of exp(score - m) v */
    double majorant[LS_MAX_HEAD_DIM]; /* sum of exp(score - m) |v| */
    double spread[LS_MAX_HEAD_DIM];   /* sum of (exp(score - m) v)^2 */
    double v_abs[LS_MAX_HEAD_DIM];    /* sum of |v| over the keys seen */
};

void ls_reference_row_init(struct ls_reference_row *row);

/* Adds n keys: k, v [n, d] with the given row strides (in elements), q [d]. */
void ls_reference_row_add(struct ls_reference_row *row, const double *q, const double *k,
                          int64_t k_stride, const double *v, int64_t v_stride, int64_t n, int d,
                          double scale);

void ls_reference_row_merge(struct ls_reference_row *row, const struct ls_reference_row *other,
                            int d);

/* o [d] = acc / l and *lse = m + log l; a row that saw no key: o = 0, lse = -inf. */
void ls_reference_row_finish(double *o, double *lse, const struct ls_reference_row *row, int d);

/* Number of keys that query i sees: keys [0, n). Full: s_k; causal: clamp(i + s_k - s_q + 1). */
int64_t ls_visible_keys(int64_t i, int64_t s_q, int64_t s_k, bool causal);

/* The whole of a small problem on one process: o [b, s_q, h, d] and lse [b, h, s_q] in f64,
 * contiguous; q, k, v of any type and strides. Errors: LS_ESHAPE, LS_ETYPE, LS_ENOMEM. */
ls_status ls_reference_attention(struct ls_tensor *o, struct ls_tensor *lse,
                                 const struct ls_tensor *q, const struct ls_tensor *k,
                                 const struct ls_tensor *v, bool causal, double scale);

#endif
