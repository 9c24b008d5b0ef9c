/* A method: one way to bring distributed K and V together with Q. methods/table.h lists them. */
#ifndef LS_ATTENTION_METHOD_H
#define LS_ATTENTION_METHOD_H

#include "attention/problem.h"

/* Backward's operations, of forward's: five products instead of two. */
#define LS_BACKWARD_WORK 2.5

/* Predicted, exact: the ledger and the counters must show the same (tests/attention/test_cost.c).
 */
struct ls_cost {
    double flops;           /* all ranks: 4 d per visible pair and query head */
    double flops_most;      /* of the rank that has most to compute */
    int64_t call_rows;      /* the most query rows that meet keys which are packed once */
    int64_t bytes_sent;     /* all ranks */
    int64_t messages;       /* all ranks */
    size_t workspace_bytes; /* largest of the ranks */
    size_t comm_bytes;      /* largest of the ranks */
    /* largest of the ranks: callers' own rows in the layouts' parts, and on their way */
    size_t activation_bytes;
    int64_t tiles; /* all ranks; more if a strict kernel keeps rows in place */

    /* of a plan that is for backward as well, whose workspace and buffers are counted above */
    size_t gradient_bytes;       /* largest of the ranks */
    int64_t backward_bytes_sent; /* all ranks */
    int64_t backward_messages;   /* all ranks */
    /* what forward_residual sends besides, all ranks */
    int64_t residual_bytes_sent, residual_messages;
};

struct ls_attention_plan;

/* The tensors of one execution, checked. */
struct ls_attention_call {
    struct ls_tensor *o, *lse;
    struct ls_tensor *o_lo; /* NULL: not wanted */
    const struct ls_tensor *q, *k, *v;
};

/* The tensors of one execution backward, checked. */
struct ls_backward_call {
    struct ls_tensor *dq, *dk,
        *dv; /* may be q, k, v: a row is written when nobody needs it again */
    const struct ls_tensor *q, *k, *v, *d_o;
    const float *lse, *delta; /* [b, h, s_q_loc] */
};

struct ls_method {
    const char *name;
    const char *summary; /* one line */
    /* NULL if the method can do it, else the reason why not, in words (static or per-thread) */
    const char *(*fits)(const struct ls_problem *problem);
    /* whether partial results come part by part, so that in strict mode they wait for each other;
     * whether gradients alone do */
    bool merges, merges_backward;
    ls_layout_choice layout;
    /* Errors: LS_ENOMEM, where what is to be counted does not fit */
    ls_status (*cost)(struct ls_cost *out, const struct ls_problem *problem);
    /* plan->own: what the method needs besides; destroy accepts a plan without it */
    ls_status (*create)(struct ls_attention_plan *plan);
    void (*destroy)(struct ls_attention_plan *plan);
    ls_status (*forward)(struct ls_attention_plan *plan, const struct ls_attention_call *call);
    /* NULL: it does forward alone */
    ls_status (*backward)(struct ls_attention_plan *plan, const struct ls_backward_call *call);
};

/* NULL if the method can do the problem, else the reason why not. */
const char *ls_method_misfit(const struct ls_method *method, const struct ls_problem *problem);

/* For rows of the table: a method that can do everything; the layout for methods to which it makes
 * no difference, contiguous; the layout for methods whose ranks all work at once on their own rows
 * (causal work per position grows along the sequence: zigzag gives every rank the same of it); the
 * layout for methods that bring a few queries at a time to all ranks (causal: with stripes these
 * see about as many keys of every rank, so no rank waits for another; zigzag would give all ranks
 * the same only over all queries, but strict, of stripes every leaf would be a result of its own);
 * a cost that holds what does not depend on the method, and what does if each rank's queries stay
 * with it. */
const char *ls_method_fits_all(const struct ls_problem *problem);
ls_layout_kind ls_method_plain_layout(const struct ls_problem *problem);
ls_layout_kind ls_method_even_layout(const struct ls_problem *problem);
ls_layout_kind ls_method_visit_layout(const struct ls_problem *problem);
struct ls_cost ls_method_work(const struct ls_problem *problem);

#endif
