/* A method: one way to bring distributed K and V together with Q. methods/table.h lists them. */
#ifndef LS_ATTENTION_METHOD_H
#define LS_ATTENTION_METHOD_H

#include "attention/problem.h"

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
    bool sends_seen; /* what it sends follows from the plan's mask */
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

/* What the method costs, and what is the same for all. Errors: LS_ENOMEM. */
ls_status ls_method_cost(struct ls_cost *out, const struct ls_method *method,
                         const struct ls_problem *problem);

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
