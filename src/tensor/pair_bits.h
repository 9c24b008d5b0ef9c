/* Any set of pairs (query, key), such as those that a mask of the caller's own leaves: a bit each.
 */
#ifndef LS_TENSOR_PAIR_BITS_H
#define LS_TENSOR_PAIR_BITS_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/leaf_keys.h"

/* The bit of query i and key j is bit j % 8, lowest first, of byte j / 8 of row i. Borrowed. */
struct ls_pair_bits {
    const uint8_t *first_row; /* NULL: all pairs */
    int64_t rows, row_bytes;
    /* [leaves of queries][k_leaves] whether some pair of two leaves is among them; NULL: it is not
     * known */
    const bool *some;
    int64_t k_leaves;
};

/* Whether the pair is among them. */
static inline bool ls_pair_bits_have(const struct ls_pair_bits *bits, int64_t i, int64_t j)
{
    return !bits->first_row || (bits->first_row[i * bits->row_bytes + j / 8] >> j % 8 & 1);
}

/* some [leaves of queries][leaves of keys], of all that there are. */
void ls_pair_bits_map(bool *some, const struct ls_pair_bits *bits);

/* False if it is known that none of queries [first, first + rows) has a pair with one of keys
 * [key, key + keys) among them. */
static inline bool ls_pair_bits_may_meet(const struct ls_pair_bits *bits, int64_t first,
                                         int64_t rows, int64_t key, int64_t keys)
{
    const int64_t q_leaf = first / LS_LEAF, k_leaf = key / LS_LEAF;

    if (!bits->some || (first + rows - 1) / LS_LEAF != q_leaf ||
        (key + keys - 1) / LS_LEAF != k_leaf)
        return true;
    return bits->some[q_leaf * bits->k_leaves + k_leaf];
}

/* The first key in [from, to) whose pair with query i is among them, or, if not `present`, is not;
 * none: to. */
int64_t ls_pair_bits_next(const struct ls_pair_bits *bits, int64_t i, int64_t from, int64_t to,
                          bool present);

/* How many keys in [from, to) have a pair with query i among them. */
int64_t ls_pair_bits_count(const struct ls_pair_bits *bits, int64_t i, int64_t from, int64_t to);

/* Keys of the leaf whose pairs with query i are among them; bits->first_row is not NULL. Those
 * behind the end of the row are not. */
struct ls_leaf_keys ls_pair_bits_leaf(const struct ls_pair_bits *bits, int64_t i, int64_t leaf);

#endif
