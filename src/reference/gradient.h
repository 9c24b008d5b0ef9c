/* Gradients of attention in double precision, by rows of dq, dk and dv. With lse and delta of a
 * query known, a row is a plain sum over the keys or queries that it meets, so that each rank can
 * do those it holds.
 *   p = exp(logit - lse)       dp = drop d_o.v      ds = p (dp - delta) slope
 *   dq = sum_j scale ds k      dk = sum_i scale ds q      dv = sum_i drop p d_o
 *   dsink = -sum_i exp(sink - lse) delta                  delta = d_o.o - dlse
 *   dbias[i, j] = p (dp - delta), summed over entries and heads that share the bias
 *   ddistance_bias[t] = the same, over pairs whose distance has that bias
 * drop is 1 / (1 - dropout) or 0, slope the derivative of the soft cap.
 * Source: Dao 2023 (FlashAttention-2, section 3.1.2). */
#ifndef LS_REFERENCE_GRADIENT_H
#define LS_REFERENCE_GRADIENT_H

#include "reference/attention.h"

/* A query row on the way back. */
struct ls_reference_backward {
    struct ls_reference_query query;
    const double *d_o;    /* [d_v] */
    struct ls_bands near; /* those that may be of the query */
    double lse, delta;
    double delta_size; /* sum_e |d_o o| + |dlse| */
    double delta2;     /* sum_e (d_o o)^2 + dlse^2 */
    double d_o_size;   /* sum_e |d_o| */
    bool rounded_o;    /* what is judged took delta from o as stored, without its residual */
};

/* One row of a gradient. A term is what the row gets from one key or query, factor x weight: the
 * factor is k, q or d_o, the weight scale ds or drop p. */
struct ls_reference_sum {
    double value[LS_REFERENCE_DIM];
    double majorant[LS_REFERENCE_DIM]; /* of terms in which nothing cancels: |v||d_o| + |d_o||o| */
    double strained[LS_REFERENCE_DIM]; /* the same, times 4 + 8 (kappa + |bias| + bend) each */
    double factors[LS_REFERENCE_DIM];  /* of |scale factor| and, since o is stored, |pull factor
                                        * d_o|;  for dv, of |drop factor| */
    double flushed[LS_REFERENCE_DIM];  /* of 1 + |factor| + what a term has of p, per p */
    double spread[LS_REFERENCE_DIM];   /* of squares of what rounding errors are in proportion to */
    double base[LS_REFERENCE_DIM];     /* of squares of terms before dp - delta is taken */
    double pull[LS_REFERENCE_DIM];     /* of dq: -d value / d delta */
    double pulled2;                    /* squared size of the error of delta that pull acts on */
    double kappa;                      /* largest |scale| sum_e |q k| + |lse| + slope bend */
    int64_t terms;
};

/* Fills in the rest of a row, whose query and d_o are set, from what forward gives it. */
void ls_reference_backward_set(struct ls_reference_backward *row, const double *o, double lse,
                               double dlse, int d_v);

void ls_reference_sum_init(struct ls_reference_sum *sum);

/* Adds those of keys [first, first + n) of the sequence that the query sees; k [n, d], v [n, d_v].
 */
void ls_reference_add_dq(struct ls_reference_sum *dq, const struct ls_reference_backward *row,
                         const double *k, const double *v, int64_t first, int64_t n, int d,
                         int d_v);

/* Adds the query to dk and dv of key j, if it sees that; k [d], v [d_v]. */
void ls_reference_add_dkv(struct ls_reference_sum *dk, struct ls_reference_sum *dv,
                          const struct ls_reference_backward *row, const double *k, const double *v,
                          int64_t j, int d, int d_v);

/* Adds the query to the gradient of its head's sink, a row of one element. */
void ls_reference_add_dsink(struct ls_reference_sum *dsink,
                            const struct ls_reference_backward *row);

/* Biases that one sum holds, and sums of so many. */
#define LS_REFERENCE_BIASES LS_MAX_HEAD_DIM

static inline int64_t ls_reference_bias_sums(int64_t biases)
{
    return (biases + LS_REFERENCE_BIASES - 1) / LS_REFERENCE_BIASES;
}

/* Adds the query and key j, if it sees that, to bias number n of sums. */
void ls_reference_add_dbias(struct ls_reference_sum *sums, int64_t n,
                            const struct ls_reference_backward *row, const double *k,
                            const double *v, int64_t j, int d, int d_v);

/* d: of the row, which is that of v for dv. */
void ls_reference_sum_merge(struct ls_reference_sum *sum, const struct ls_reference_sum *other,
                            int d);

#endif
