/* What a plan is asked to compute, checked, and what follows from it whatever the method. */
#ifndef LS_ATTENTION_PROBLEM_H
#define LS_ATTENTION_PROBLEM_H

#include "device/attention.h"
#include "longspan/attention.h"
#include "tensor/dealing.h"
#include "tensor/mask_rule.h"

/* What is to be computed and on how many ranks; no data. */
struct ls_problem {
    struct ls_attention_shape shape;
    struct ls_mask_rule *rules;  /* [entries][heads] what is visible, as it was asked for */
    struct ls_masks masks;       /* the same */
    struct ls_mask_set mask_set; /* memory of them */
    struct ls_scores scores;
    int64_t group; /* query heads that share a key/value head, where there are all of them */
    int p;
    bool strict;
    bool ends_meet;            /* the last query stands at the last key */
    bool own_rows;             /* callers hold pieces of their own, not the layouts' parts */
    int node_size;             /* so many ranks after each other share a node; 0: that is not so */
    int grid_heads, grid_ring; /* product: p */
    bool ring_inside;          /* ranks that follow each other are a ring */
    bool backward;             /* the plan is for backward as well */
    struct ls_layout q_layout, k_layout; /* of the same kind */
    bool layout_chosen;                  /* to suit the mask, not asked for */
    struct ls_dealing *dealing[2];       /* of balanced layouts; the second for keys of their own */
    struct ls_device *device;
    bool opened; /* the device, here, as the caller gave none */
};

/* The layout that suits a method best when the caller leaves the choice. */
typedef ls_layout_kind (*ls_layout_choice)(const struct ls_problem *problem);

/* Checks a shape and fills in the defaults (scale, layout, device). choice NULL: contiguous if the
 * choice was left open. The problem refers to the options' lists; its masks and layouts live until
 * ls_problem_fini.
 * Errors: LS_ESHAPE, LS_ETYPE, LS_EVALUE, LS_ENOMEM; nothing is to be freed then. */
ls_status ls_problem_init(struct ls_problem *out, const struct ls_attention_shape *shape,
                          const struct ls_attention_options *options, int p,
                          ls_layout_choice choice);

/* Accepts one of zeros. */
void ls_problem_fini(struct ls_problem *problem);

/* The kernel's shape when a call brings at most so many leaves of keys. */
struct ls_kernel_shape ls_problem_kernel_shape(const struct ls_problem *problem, int64_t k_leaves);

/* A kernel for calls that bring no more keys than a rank has, and its bytes.
 * Errors: those of ls_attention_kernel_create. */
ls_status ls_problem_kernel_create(struct ls_attention_kernel **out,
                                   const struct ls_problem *problem);
size_t ls_problem_kernel_bytes(const struct ls_problem *problem);

/* Memory of the problem's device, and copies in it: tensors of one shape and type, with any strides
 * of the first dimensions; and to [blocks][to_stride] = from [blocks][from_stride], of each block
 * the first `floats`. */
ls_status ls_problem_alloc(void **out, const struct ls_problem *problem, ls_tag tag, size_t bytes);
/* Accepts NULL memory. */
void ls_problem_free(const struct ls_problem *problem, void *memory);
void ls_problem_copy(const struct ls_problem *problem, struct ls_tensor *to,
                     const struct ls_tensor *from);
void ls_problem_copy_floats(const struct ls_problem *problem, float *to, int64_t to_stride,
                            const float *from, int64_t from_stride, int64_t blocks, int64_t floats);

/* View of a contiguous buffer as queries, [b, rows, h, d], keys, or values. */
struct ls_tensor ls_problem_queries(const struct ls_problem *problem, void *data, int64_t rows);
struct ls_tensor ls_problem_keys(const struct ls_problem *problem, void *data, int64_t rows);
struct ls_tensor ls_problem_values(const struct ls_problem *problem, void *data, int64_t rows);

/* View of [first, first + count) of a dimension of a tensor. */
struct ls_tensor ls_range_of(const struct ls_tensor *t, int axis, int64_t first, int64_t count);

#endif
