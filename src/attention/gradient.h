/* Backward: what is the same whatever the method. From q, k, v, d_o and forward's o and lse, with
 *   p = exp(logit - lse)     dp = d_o v^T     ds = p (dp - delta)     delta = d_o (o + o_lo) - dlse
 * the gradients are dv = p^T d_o, dq = scale ds k, dk = scale ds^T q, summed over keys or queries.
 * Sums are f32, of every query head, over leaves by the tree; they are rounded once. */
#ifndef LS_ATTENTION_GRADIENT_H
#define LS_ATTENTION_GRADIENT_H

#include "attention/problem.h"
#include "device/gradient.h"

/* Bytes that a plan for backward takes for these on a rank, besides the kernel's; in any plan. */
size_t ls_gradients_bytes(const struct ls_problem *problem, int rank);

/* All but the kernel; nothing if the plan is for forward alone. Errors: LS_ENOMEM. */
ls_status ls_gradients_create(struct ls_attention_plan *plan);
void ls_gradients_destroy(struct ls_attention_plan *plan);

/* The kernel's shape when a call brings at most so many leaves of queries and of keys. */
struct ls_gradient_shape ls_plan_gradient_shape(const struct ls_problem *problem, int64_t q_leaves,
                                                int64_t k_leaves);

/* One kernel step of a method. */
void ls_plan_gradient(struct ls_attention_plan *plan, const struct ls_gradient_call *call);

/* Floats of the sums of so many rows of `heads` heads: of dq or dk, of dv, and of dk and dv
 * together. */
int64_t ls_gradient_count(const struct ls_attention_shape *shape, int64_t heads, int64_t rows);
int64_t ls_value_gradient_count(const struct ls_attention_shape *shape, int64_t heads,
                                int64_t rows);
int64_t ls_pair_gradient_count(const struct ls_attention_shape *shape, int64_t heads, int64_t rows);

/* Sums as two terms, whose addition is left to whoever rounds them; b NULL: a alone; a NULL: 0. */
struct ls_terms {
    const float *a, *b;
};

/* Those that lie so many floats behind them. */
struct ls_terms ls_terms_behind(struct ls_terms sums, int64_t floats);

/* out [b, s, heads, d], rounded = sums [b, heads x group, s, d], the heads of a group added. */
void ls_plan_round(struct ls_tensor *out, const struct ls_attention_plan *plan,
                   struct ls_terms sums, int64_t group);

#endif
