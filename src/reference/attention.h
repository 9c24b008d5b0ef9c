/* Attention in double precision, one query row at a time: the truth that everything else is held
 * against. A row's partial result is a value that can be merged, so that each rank can do the keys
 * it holds; the arithmetic is independent of the kernels'. */
#ifndef LS_REFERENCE_ATTENTION_H
#define LS_REFERENCE_ATTENTION_H

#include <stdint.h>

#include "longspan/attention.h"
#include "tensor/mask.h"
#include "tensor/scores.h"

/* A query row and where it stands in the whole problem. */
struct ls_reference_query {
    const double *q; /* [d]; v and what is made of it are [d_v] */
    const struct ls_mask *mask;
    const struct ls_scores *scores;
    int64_t batch, head, position;
};

/* Room for a row's elements: a little more, so that the same element of two sums that lie side by
 * side is not stored and loaded as if it were at one address (their last 12 bits). */
#define LS_REFERENCE_DIM (LS_MAX_HEAD_DIM + 8)

/* What a query row has seen so far. Natural logarithm throughout. Empty: m = -inf, the rest 0.
 * v is divided by 1 - dropout if dropout keeps the key, 0 if not. A key whose logit is -inf counts
 * as not seen; a NaN makes the row's result NaN. */
struct ls_reference_row {
    double m;     /* largest logit */
    double l;     /* sum of exp(logit - m) */
    double kappa; /* |scale| x largest sum_e |q_e k_je| */
    double bias;  /* sum of exp(logit - m) |bias|, the size of ALiBi, biases or sink */
    double acc[LS_REFERENCE_DIM];      /* sum of exp(logit - m) v */
    double majorant[LS_REFERENCE_DIM]; /* sum of exp(logit - m) |v| */
    double biased[LS_REFERENCE_DIM];   /* sum of exp(logit - m) |v| |bias| */
    double spread[LS_REFERENCE_DIM];   /* sum of (exp(logit - m) v)^2 */
    double v_abs[LS_REFERENCE_DIM];    /* sum of |v| over the keys seen */
};

/* From a query and a key to the logit. */
struct ls_reference_logit {
    double value;
    double slope; /* of the logit over scale q.k: less than 1 under a soft cap */
    double size;  /* |scale| sum_e |q_e k_e| */
    double bend;  /* how the slope errs, relatively: by bend / size times what scale q.k errs by */
    double bias;  /* |ALiBi's share| + |bias by distance| + |bias of the pair| */
};

/* Which of its head's biases by distance key j has for the query. */
int64_t ls_reference_distance(const struct ls_reference_query *query, int64_t j);

/* k [d] stands at position j of the sequence. */
struct ls_reference_logit ls_reference_logit(const struct ls_reference_query *query,
                                             const double *k, int64_t j, int d);

/* Keys whose logits are held at once. */
#define LS_REFERENCE_BLOCK 64

/* factor[j] = what the probability of key first + j is multiplied by, 1 / (1 - dropout) or 0; n at
 * most LS_REFERENCE_BLOCK. */
void ls_reference_drop(double *factor, const struct ls_reference_query *query, int64_t first,
                       int n);

void ls_reference_row_init(struct ls_reference_row *row);

/* Adds those of keys [first, first + n) of the sequence that the query sees; k [n, d], v [n, d_v].
 */
void ls_reference_row_add(struct ls_reference_row *row, const struct ls_reference_query *query,
                          const double *k, const double *v, int64_t first, int64_t n, int d,
                          int d_v);

/* Adds the sink of the query's head, if there is one; once a row. */
void ls_reference_row_add_sink(struct ls_reference_row *row, const struct ls_reference_query *query,
                               int d_v);

void ls_reference_row_merge(struct ls_reference_row *row, const struct ls_reference_row *other,
                            int d_v);

/* o [d_v] = acc / l and *lse = m + log l; a row that saw neither key nor sink: o = 0, lse = -inf.
 */
void ls_reference_row_finish(double *o, double *lse, const struct ls_reference_row *row, int d_v);

#endif
