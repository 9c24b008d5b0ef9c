/* What the two files of the Ulysses method share. */
#ifndef LS_ATTENTION_METHODS_ULYSSES_H
#define LS_ATTENTION_METHODS_ULYSSES_H

#include "attention/plan.h"
#include "attention/travelling/swap.h"

struct ls_ulysses {
    struct ls_swap swap;
    /* backward: sums of dq, dk and dv of this rank's heads, and lse and delta in the kernel's order
     */
    float *dq, *dk, *dv, *lse, *delta;
    /* where kv heads have copies, so that a group's heads are on several ranks: sums on their way
     * to the owners of the keys, and those of this rank's keys, dk and then dv [b, h, s_k_loc, ..]
     */
    float *outgoing, *whole;
    struct ls_batch batch;
    void *memory;
};

/* ulysses_gradient.c: bytes of the kernel of a rank, which cost leaves out; else as in struct
 * ls_method, nothing in a plan for forward alone. */
size_t ls_ulysses_gradient_kernel_bytes(const struct ls_problem *problem,
                                        const struct ls_head_share *share);
void ls_ulysses_gradient_cost(struct ls_cost *cost, const struct ls_problem *problem);
ls_status ls_ulysses_gradient_create(struct ls_attention_plan *plan);
void ls_ulysses_gradient_destroy(struct ls_ulysses *own);
ls_status ls_ulysses_backward(struct ls_attention_plan *plan, const struct ls_backward_call *call);

#endif
