/* Which keys a query shall see, in the words of options: causal, a window, a prefix, documents,
 * slices, pairs. */
#ifndef LS_TENSOR_MASK_RULE_H
#define LS_TENSOR_MASK_RULE_H

#include "base/status.h"
#include "longspan/attention.h"
#include "tensor/mask.h"

/* Of one entry of a batch, and perhaps of one head. With i' = i + shift, query i sees key j iff j <
 * k_first + prefix, or i' - left <= j <= i' + right, and j is in the document of i' (if there are
 * documents); and, if there are slices, only if the pair is in one of them; and only if its bit is
 * set. Causal is right = 0. Queries before q_first and from s_q on see nothing, and nobody sees
 * keys before k_first and from s_k on. */
struct ls_mask_rule {
    int64_t s_q, s_k;
    int64_t q_first, k_first;
    int64_t shift;       /* where query 0 stands among the keys */
    int64_t left, right; /* 0 to 2^60; INT64_MAX: no limit */
    int64_t prefix;      /* 0 to s_k */
    /* cumulative lengths [document_count + 1] from k_first on, first 0; NULL: one document.
     * Borrowed. */
    const int64_t *documents;
    int64_t document_count;
    /* of the queries, as many, from q_first on: each document of queries sees that of keys of the
     * same number, and i' = i + a shift of its own, by which the last query of a document stands
     * at its last key or, with align_start, the first query pair_offset behind its first key. NULL:
     * the document of query i is that of i'. Borrowed. */
    const int64_t *q_documents;
    bool align_start;
    int64_t pair_offset;
    const struct ls_slice *slices; /* [slice_count], which were checked, or NULL. Borrowed. */
    int64_t slice_count;
    struct ls_pair_bits bits;
};

/* Everybody sees everything. */
struct ls_mask_rule ls_mask_rule_full(int64_t s_q, int64_t s_k);

/* Whether what a query sees follows from its place alone; else it is listed, and one query may see
 * much more than another. */
static inline bool ls_mask_rule_is_even(const struct ls_mask_rule *rule)
{
    return !rule->documents && !rule->slices && !rule->bits.first_row;
}

/* Bands that the mask of a rule without slices may have. */
int64_t ls_mask_rule_room(const struct ls_mask_rule *rule);

/* Of a rule without slices; room [ls_mask_rule_room] is borrowed for the mask's life; NULL where
 * that is 1. */
struct ls_mask ls_mask_rule_apply(const struct ls_mask_rule *rule, struct ls_band *room);

/* Masks, and the memory of their bands, which grows and is used again; zeros: none. */
struct ls_mask_set {
    struct ls_mask *mask; /* [room] */
    struct ls_mask_bands {
        struct ls_band *band;
        int64_t room;
        bool *some; /* of pair_bits.h */
        int64_t some_room;
    } * bands; /* [room] */
    int64_t room;
};

/* out->mask = the masks of rules [ls_masks_count(out)], in the memory of the set.
 * Errors: LS_ENOMEM. */
ls_status ls_mask_set_make(struct ls_masks *out, struct ls_mask_set *set,
                           const struct ls_mask_rule *rules);
void ls_mask_set_free(struct ls_mask_set *set);

#endif
