/* What meets in each step of part_gradients.h, what sums there are then, and how many bytes. */
#ifndef LS_ATTENTION_METHODS_PART_GRADIENTS_SIZE_H
#define LS_ATTENTION_METHODS_PART_GRADIENTS_SIZE_H

#include "attention/merging/total.h"
#include "attention/method.h"

/* Which part of the keys comes in which step. */
struct ls_part_order {
    int node;  /* in the order of a route (route.h), also where parts do not travel */
    bool seen; /* but for a rank's own part, only the leaves that its queries see, one behind the
                  other, if any */
};

/* What meets in each step. */
struct ls_part_steps {
    int *owner, *from;                /* [p] whose keys come; who meets this rank's */
    int64_t *rows, *rows_back;        /* [p] of the keys that come; of this rank's that are met */
    struct ls_leaf_list *keys, *back; /* [p] their leaves, if order.seen; keys by rows that come */
    struct ls_leaf *leaf;             /* storage */
};

/* back: rows_back and back as well. fini accepts what init left when it failed.
 * Errors: LS_ENOMEM. */
ls_status ls_part_steps_init(struct ls_part_steps *out, const struct ls_problem *problem,
                             struct ls_part_order order, int rank, bool back);
void ls_part_steps_fini(struct ls_part_steps *steps);

/* The order in which dq, over the keys that come, and dk and dv, over those who meet them, are
 * added. The caller finishes both, also if this failed. */
ls_status ls_part_totals_init(struct ls_total *dq, struct ls_total *dkv,
                              const struct ls_part_steps *steps, const struct ls_problem *problem);

/* Whether dk and dv travel with the heads of each group added. */
bool ls_part_adds_groups(const struct ls_problem *problem);

/* Heads of dk and dv as they travel, and floats of so many rows of them. */
int64_t ls_part_heads(const struct ls_problem *problem);
int64_t ls_part_pair_count(const struct ls_problem *problem, int64_t rows);

/* Sums that there are of one rank's keys and queries. */
struct ls_part_sums {
    int64_t own;                 /* of its queries */
    int64_t most_in;             /* of another rank's queries */
    int64_t dq_slots, dkv_slots; /* that wait */
};

/* Floats of each piece of a rank's memory. */
struct ls_part_memory {
    int64_t dq_slots, dq_sum, dkv_slots, heads, out, in, spread;
};

struct ls_part_sums ls_part_sums_of(const struct ls_total *dq, const struct ls_total *dkv, int p);
struct ls_part_memory ls_part_memory_of(const struct ls_problem *problem, int rank,
                                        const struct ls_part_sums *sums,
                                        const struct ls_part_steps *steps,
                                        struct ls_part_order order);
int ls_part_out_buffers(const struct ls_problem *problem);
size_t ls_part_memory_bytes(const struct ls_problem *problem, const struct ls_part_memory *m);

struct ls_gradient_shape ls_part_kernel_shape(const struct ls_problem *problem);

/* Adds what it sends, its memory and the kernel's; nothing if the plan is for forward alone.
 * Errors: LS_ENOMEM. */
ls_status ls_part_gradients_cost(struct ls_cost *cost, const struct ls_problem *problem,
                                 struct ls_part_order order);

/* Of the memory, what one rank takes, ls_gradients_bytes included. Errors: LS_ENOMEM. */
ls_status ls_part_gradients_bytes(size_t *out, const struct ls_problem *problem,
                                  struct ls_part_order order, int rank);

#endif
