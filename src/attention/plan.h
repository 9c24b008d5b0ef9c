/* What a plan holds and what the methods build theirs from. */
#ifndef LS_ATTENTION_PLAN_H
#define LS_ATTENTION_PLAN_H

#include "attention/fingerprint.h"
#include "attention/gradient.h"
#include "attention/method.h"
#include "attention/redistribute.h"
#include "comm/comm.h"

/* What an execution did on this rank. */
struct ls_execution {
    struct ls_kernel_result result;
    int64_t bytes_sent;
    double exposed_seconds;
};

struct ls_attention_plan {
    const struct ls_method *method;
    const char *why;
    struct ls_problem problem;
    int64_t *documents; /* storage of problem.mask.documents */
    char fingerprint[LS_FINGERPRINT_LENGTH];
    struct ls_comm *comm; /* the plan's own duplicate */
    int rank;
    struct ls_leaf *q_leaf;                   /* storage of q_leaves */
    struct ls_leaf_list q_leaves;             /* of this rank's part */
    int64_t q_rows, k_rows;                   /* of the tensors that this rank's caller has */
    struct ls_redistribution *redistribution; /* NULL: these are the parts */
    struct ls_attention_kernel *kernel;
    struct ls_gradients gradients;
    struct ls_kernel_result result;        /* of the execution that goes on */
    struct ls_execution forward, backward; /* the last ones */
    void *own;                             /* the method's */
};

/* The leaves of rank's part of a layout, whose first row is first_row of a tensor; adds them to
 * list at *count. */
void ls_leaves_append(struct ls_leaf *list, int64_t *count, const struct ls_layout *layout,
                      int rank, int64_t first_row);

/* part [p] = each rank's leaves, by the rows of its own part. leaf: room for all of them. */
void ls_leaves_by_rank(struct ls_leaf_list *part, struct ls_leaf *leaf,
                       const struct ls_layout *layout);

/* By number, as the kernel wants them. */
void ls_leaves_sort(struct ls_leaf *list, int64_t count);

/* The leaves of all parts in the order of their numbers, in a tensor that has part after part.
 * leaf: room for all of them; first_row [p + 1]: where each part begins. */
void ls_leaves_gather(struct ls_leaf_list *out, struct ls_leaf *leaf, int64_t *first_row,
                      const struct ls_layout *layout);

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

/* The method's cost and that of bringing callers' rows to it and back. */
void ls_plan_cost(struct ls_cost *out, const struct ls_attention_plan *plan);

/* Dimensions of the tensors that this rank's caller has: of q, o and their gradients, of k and v,
 * of lse. */
struct ls_part_dims {
    int64_t q[4], k[4], lse[3];
};

struct ls_part_dims ls_plan_part_dims(const struct ls_attention_plan *plan);

/* Collective. Whether all ranks ask for a tensor or none does. Errors: LS_EVALUE, LS_ECOMM. */
ls_status ls_plan_ask_alike(const struct ls_attention_plan *plan, const char *name, bool asked);

/* Around an execution. Collective: end gives every rank the same status, and is told of this
 * rank's. */
void ls_plan_begin(struct ls_attention_plan *plan, const char *direction);
ls_status ls_plan_end(struct ls_execution *out, struct ls_attention_plan *plan, ls_status status);

/* What a kernel calls while it works: what the method wants, else what the timeout needs. */
struct ls_progress ls_plan_progress(struct ls_attention_plan *plan, struct ls_progress own);

/* One kernel step of a method. The queries are this rank's part unless the call lists leaves. */
ls_status ls_plan_attend(struct ls_attention_plan *plan, struct ls_kernel_call call);

/* The kernel's shape when a call brings at most so many leaves of keys. */
struct ls_kernel_shape ls_plan_kernel_shape(const struct ls_problem *problem, int64_t k_leaves);

/* View of rows of K or V in a contiguous buffer, [b, rows, h_kv, d]. */
struct ls_tensor ls_plan_key_view(const struct ls_problem *problem, void *data, int64_t rows);

/* Copies tensors with any strides of the first three dimensions; same shape and type. */
void ls_tensor_copy(struct ls_tensor *to, const struct ls_tensor *from);

extern const struct ls_method ls_method_local, ls_method_ring, ls_method_ring2, ls_method_halo,
    ls_method_ulysses, ls_method_usp, ls_method_allreduce, ls_method_tree, ls_method_allgather;

#endif
