/* Attention kernels. A partial attention result is a value that can be merged: for each query row
 * m, the maximum of its scores or near it, from which exponents are counted (log2 units), sum l and
 * unnormalised accumulator acc [d_v], all f32; of an empty one m is -inf, l is 0 and acc anything.
 */
#ifndef LS_DEVICE_ATTENTION_H
#define LS_DEVICE_ATTENTION_H

#include <stdbool.h>

#include "device/device.h"
#include "longspan/attention.h"
#include "tensor/mask.h"
#include "tensor/scores.h"

/* The head dimension of v and o. */
static inline int64_t ls_value_dim(const struct ls_attention_shape *shape)
{
    return shape->d_v ? shape->d_v : shape->d;
}

/* Keys and values of 8 bits: a row of a head is its d numbers and their scale. Elements of a row of
 * k and of v, and their type. */
static inline bool ls_keys_are_quantized(const struct ls_attention_shape *shape)
{
    return shape->kv_type != LS_F32;
}

static inline int64_t ls_key_width(const struct ls_attention_shape *shape)
{
    return shape->d + (ls_keys_are_quantized(shape) ? LS_SCALE_BYTES : 0);
}

static inline int64_t ls_value_width(const struct ls_attention_shape *shape)
{
    return ls_value_dim(shape) + (ls_keys_are_quantized(shape) ? LS_SCALE_BYTES : 0);
}

static inline ls_dtype ls_key_type(const struct ls_attention_shape *shape)
{
    return ls_keys_are_quantized(shape) ? shape->kv_type : shape->type;
}

/* A leaf that is present in a tensor: its number in the whole sequence, its first row there. */
struct ls_leaf {
    int64_t number, row;
};

/* Leaves that are present, in the order of their numbers. */
struct ls_leaf_list {
    const struct ls_leaf *leaf;
    int64_t count;
};

/* Partial results of query rows: m, l [b, h, s_loc], acc [b, h, s_loc, d_v], contiguous. */
struct ls_row_states {
    float *m, *l, *acc;
};

/* So many queries of the heads that share a key, in the whole problem, are few: a device may have a
 * kernel of its own for them. The shape of a part says nothing, as a group of heads can be split.
 */
#define LS_FEW_ROWS 8

/* What an attention kernel is made for. */
struct ls_kernel_shape {
    struct ls_attention_shape global;
    struct ls_masks masks;
    struct ls_scores scores;
    int64_t k_leaves; /* the most that one call brings */
    bool few_rows;    /* of the whole problem: at most LS_FEW_ROWS queries meet each key */
    /* Exponents are counted from a row's own maximum in each leaf, which costs time on AMX:
     * rounding leaves the probability of a key that takes nearly all as it is, 1. Backward, whose
     * delta should be that of exact probabilities, wants it. */
    bool own_maximum;
    bool strict; /* a row's bits depend on what it is and sees, not on rows beside it */
};

/* What other calls found, which comes before or after everything so far in the tree. states may be
 * those that are written. */
struct ls_found {
    const struct ls_row_states *states;
    bool after;
};

/* Where gradients of biases by distance are added: exact sums (base/exact_sum.h), [heads from
 * first_head of all][scores.distances][LS_EXACT_LIMBS]. NULL: not wanted. */
struct ls_distance_sums {
    int64_t *limb;
    int64_t first_head;
};

/* What was taken out of quantized keys: mean [b, heads, d], of the key/value heads that query heads
 * from first_head of all on share, `group` each. NULL: nothing. */
struct ls_key_mean {
    const float *mean;
    int64_t heads, group, first_head;
};

/* What a call may change of what its kernel was made for. */
struct ls_kernel_change {
    struct ls_masks masks;
    uint64_t seed; /* of dropout */
    struct ls_distance_sums distances;
    struct ls_key_mean key_mean;
};

/* The queries meet some of the keys. Rows of a leaf that reaches beyond the end of its sequence
 * are those before the end. */
struct ls_kernel_call {
    struct ls_tensor *o, *lse;    /* finished here; NULL: stay in states */
    struct ls_tensor *o_lo;       /* what rounding took from o; NULL: not wanted */
    struct ls_row_states *states; /* written, if o and lse are not given */
    const struct ls_found *found; /* merged with the result of these keys, one after the other */
    int found_count;
    const struct ls_tensor *q, *k, *v;
    struct ls_leaf_list q_leaves, k_leaves;
    const struct ls_kernel_change *change; /* from this call on; NULL: none */
};

struct ls_attention_kernel;

struct ls_attention_ops {
    const char *(*name)(void *self, const struct ls_kernel_shape *shape);
    size_t (*bytes)(void *self, const struct ls_kernel_shape *shape);
    ls_status (*create)(struct ls_attention_kernel **out, void *self,
                        const struct ls_kernel_shape *shape);
    void (*destroy)(struct ls_attention_kernel *kernel);
    bool (*canonical)(const struct ls_attention_kernel *kernel);
    ls_status (*attend)(struct ls_queue *queue, struct ls_attention_kernel *kernel,
                        const struct ls_kernel_call *call);
    void (*merge)(struct ls_attention_kernel *kernel, struct ls_row_states into,
                  struct ls_row_states from, int64_t rows);
};

/* What kernels of this shape multiply with on this machine; static. */
const char *ls_attention_kernel_name(const struct ls_device *device, struct ls_kernel_shape shape);

/* Bytes of workspace that a kernel of this shape takes from the ledger; exact. */
size_t ls_attention_kernel_bytes(const struct ls_device *device, struct ls_kernel_shape shape);

/* The caller destroys the kernel; destroy accepts NULL. Errors: LS_ENOMEM, LS_EINTERNAL. */
ls_status ls_attention_kernel_create(struct ls_attention_kernel **out,
                                     const struct ls_device *device, struct ls_kernel_shape shape);
void ls_attention_kernel_destroy(const struct ls_device *device,
                                 struct ls_attention_kernel *kernel);

/* Whether a strict kernel found that its products depend on a row's place, so that every row has
 * to have its own. */
bool ls_attention_kernel_is_canonical(const struct ls_device *device,
                                      const struct ls_attention_kernel *kernel);

/* Allocates nothing. Fails with LS_EINTERNAL. */
void ls_attend(struct ls_queue *queue, struct ls_attention_kernel *kernel,
               const struct ls_kernel_call *call);

/* into = the merge of into and from, which comes after it in the tree; `rows` rows of all heads
 * together. */
void ls_merge(struct ls_queue *queue, struct ls_attention_kernel *kernel, struct ls_row_states into,
              struct ls_row_states from, int64_t rows);

#endif
