/* Which keys a query sees, by positions in the whole sequence. Every mask is the same few numbers:
 * with i' = i + shift, query i sees key j iff j < prefix, or
 *   i' - left <= j <= i' + right, and j is in the document of i' (if there are documents).
 * Causal is right = 0. Queries from s_q on see nothing, and nobody sees keys from s_k on. Keys seen
 * are so two runs, [0, prefix) and [from, to), and from and to never fall from one query to the
 * next that there is. */
#ifndef LS_TENSOR_MASK_H
#define LS_TENSOR_MASK_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/leaf_keys.h"

struct ls_mask {
    int64_t s_q, s_k;
    int64_t shift;       /* where query 0 stands among the keys */
    int64_t left, right; /* 0 to 2^62; INT64_MAX: no limit */
    int64_t prefix;      /* 0 to s_k */
    /* cumulative lengths [document_count + 1], first 0, last s_k or more; NULL: one document.
     * Borrowed. */
    const int64_t *documents;
    int64_t document_count;
};

/* Keys [0, prefix) and [from, to); 0 <= prefix <= from <= to. */
struct ls_visible {
    int64_t prefix, from, to;
};

/* Everybody sees everything. */
struct ls_mask ls_mask_full(int64_t s_q, int64_t s_k);
struct ls_mask ls_mask_causal(int64_t s_q, int64_t s_k);

/* Keys that query i sees, none if there is no such query. A query that stands before the first or
 * behind the last document sees the prefix alone. */
struct ls_visible ls_mask_row(const struct ls_mask *mask, int64_t i);

/* out [rows] = what each of queries [first, first + rows) sees. */
void ls_mask_list(struct ls_visible *out, const struct ls_mask *mask, int64_t first, int64_t rows);

/* Keys that one of queries [first, first + rows) sees; rows >= 1, some of which there may not be.
 */
struct ls_visible ls_mask_rows(const struct ls_mask *mask, int64_t first, int64_t rows);

/* How many of keys [first, first + keys) these are, and whether it is any. */
int64_t ls_visible_count(struct ls_visible visible, int64_t first, int64_t keys);

/* Keys that each of queries [first, first + rows) sees; rows >= 1. */
struct ls_visible ls_mask_common(const struct ls_mask *mask, int64_t first, int64_t rows);

/* Whether each of queries [first, first + rows) sees each of keys [key, key + keys). */
bool ls_mask_is_full(const struct ls_mask *mask, int64_t first, int64_t rows, int64_t key,
                     int64_t keys);

/* Which of these keys are in a leaf. */
static inline struct ls_leaf_keys ls_visible_in_leaf(struct ls_visible visible, int64_t leaf)
{
    const int64_t first = leaf * LS_LEAF;
    const struct ls_leaf_keys *prefix = &ls_leaf_keys_first[ls_in_leaf(visible.prefix - first)];
    struct ls_leaf_keys keys = ls_leaf_keys_run(visible.from - first, visible.to - first);

    for (int i = 0; i < LS_LEAF_WORDS; i++) keys.word[i] |= prefix->word[i];
    return keys;
}

#endif
