/* Which keys a query shall see, in the words of options: causal, a window, a prefix, documents. */
#ifndef LS_TENSOR_MASK_RULE_H
#define LS_TENSOR_MASK_RULE_H

#include "base/status.h"
#include "tensor/mask.h"

/* With i' = i + shift, query i sees key j iff j < prefix, or
 *   i' - left <= j <= i' + right, and j is in the document of i' (if there are documents).
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
};

/* Everybody sees everything. */
struct ls_mask_rule ls_mask_rule_full(int64_t s_q, int64_t s_k);

/* Bands that its mask may need room for beside itself. */
int64_t ls_mask_rule_room(const struct ls_mask_rule *rule);

/* room [ls_mask_rule_room] is borrowed for the mask's life; NULL where that is 0. */
struct ls_mask ls_mask_rule_apply(const struct ls_mask_rule *rule, struct ls_band *room);

/* The same with bands in *bands [*room], which become more where that is too little; the caller
 * frees them. Errors: LS_ENOMEM. */
ls_status ls_mask_rule_make(struct ls_mask *out, struct ls_band **bands, int64_t *room,
                            const struct ls_mask_rule *rule);

#endif
