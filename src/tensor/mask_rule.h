/* Which keys a query shall see, in the words of options: causal, a window, a prefix, documents,
 * slices. */
#ifndef LS_TENSOR_MASK_RULE_H
#define LS_TENSOR_MASK_RULE_H

#include "base/status.h"
#include "longspan/attention.h"
#include "tensor/mask.h"

/* With i' = i + shift, query i sees key j iff j < prefix, or
 *   i' - left <= j <= i' + right, and j is in the document of i' (if there are documents);
 * and, if there are slices, only if the pair is in one of them.
 * Causal is right = 0. Queries from s_q on see nothing, and nobody sees keys from s_k on. */
struct ls_mask_rule {
    int64_t s_q, s_k;
    int64_t shift;       /* where query 0 stands among the keys */
    int64_t left, right; /* 0 to 2^60; INT64_MAX: no limit */
    int64_t prefix;      /* 0 to s_k */
    /* cumulative lengths [document_count + 1], first 0, last s_k or more; NULL: one document.
     * Borrowed. */
    const int64_t *documents;
    int64_t document_count;
    const struct ls_slice *slices; /* [slice_count], which were checked, or NULL. Borrowed. */
    int64_t slice_count;
};

/* Everybody sees everything. */
struct ls_mask_rule ls_mask_rule_full(int64_t s_q, int64_t s_k);

/* Whether what a query sees follows from its place alone; else it is listed, and one query may see
 * much more than another. */
static inline bool ls_mask_rule_is_even(const struct ls_mask_rule *rule)
{
    return !rule->documents && !rule->slices;
}

/* Of a rule without slices: bands that its mask may need room for beside itself. */
int64_t ls_mask_rule_room(const struct ls_mask_rule *rule);

/* Of a rule without slices; room [ls_mask_rule_room] is borrowed for the mask's life; NULL where
 * that is 0. */
struct ls_mask ls_mask_rule_apply(const struct ls_mask_rule *rule, struct ls_band *room);

/* The mask of any rule, with bands in *bands [*room], which become more where that is too little;
 * the caller frees them. Errors: LS_ENOMEM. */
ls_status ls_mask_rule_make(struct ls_mask *out, struct ls_band **bands, int64_t *room,
                            const struct ls_mask_rule *rule);

#endif
