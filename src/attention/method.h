/* The table of methods: each is one way to bring distributed K and V together with Q. */
#ifndef LS_ATTENTION_METHOD_H
#define LS_ATTENTION_METHOD_H

#include "device/device.h"
#include "longspan/attention.h"
#include "tensor/dealing.h"

/* What is to be computed and on how many ranks; no data. */
struct ls_problem {
    struct ls_attention_shape shape;
    struct ls_mask mask;
    struct ls_scores scores;
    int p;
    int threads;
    bool strict;
    bool own_rows;             /* callers hold pieces of their own, not the layouts' parts */
    int node_size;             /* so many ranks after each other share a node; 0: that is not so */
    int grid_heads, grid_ring; /* product: p */
    bool ring_inside;          /* ranks that follow each other are a ring */
    bool backward;             /* the plan is for backward as well */
    struct ls_layout q_layout, k_layout; /* of the same kind */
    struct ls_dealing *dealing[2];       /* of balanced layouts; the second for keys of their own */
    struct ls_device device;
};

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
    /* the layout that suits it best when the caller leaves the choice */
    ls_layout_kind (*layout)(const struct ls_problem *problem);
    void (*cost)(struct ls_cost *out, const struct ls_problem *problem);
    /* plan->own: what the method needs besides; destroy accepts a plan without it */
    ls_status (*create)(struct ls_attention_plan *plan);
    void (*destroy)(struct ls_attention_plan *plan);
    ls_status (*forward)(struct ls_attention_plan *plan, const struct ls_attention_call *call);
    /* NULL: it does forward alone */
    ls_status (*backward)(struct ls_attention_plan *plan, const struct ls_backward_call *call);
};

/* NULL if the method can do the problem, else the reason why not. */
const char *ls_method_misfit(const struct ls_method *method, const struct ls_problem *problem);

int ls_method_count(void);
const struct ls_method *ls_method_at(int i);

/* Errors: LS_EVALUE for an unknown name; the message gives the nearest one. */
ls_status ls_method_find(const struct ls_method **out, const char *name);

/* Checks a shape and fills in the defaults (scale, layout, threads). method NULL: layout stays as
 * asked for, contiguous if the choice was left open. The problem refers to options->documents,
 * alibi and sinks; its layouts live until ls_problem_fini.
 * Errors: LS_ESHAPE, LS_ETYPE, LS_EVALUE, LS_ENOMEM; nothing is to be freed then. */
ls_status ls_problem_init(struct ls_problem *out, const struct ls_attention_shape *shape,
                          const struct ls_attention_options *options, int p,
                          const struct ls_method *method);

/* Accepts one of zeros. */
void ls_problem_fini(struct ls_problem *problem);

/* `auto`: of the methods that fit, those that share the work evenly, about as well as can be; of
 * these the one that sends the fewest bytes; the first of equals.
 * *why (static) says so. Errors: LS_EFIT with every method's reason. */
ls_status ls_method_choose(const struct ls_method **out, const char **why,
                           const struct ls_attention_shape *shape,
                           const struct ls_attention_options *options, int p);

#endif
