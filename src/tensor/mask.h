/* Which keys a query sees, by positions in the whole sequence: a union of bands, no two of which
 * share a pair, of which single pairs may be left out, by a bit for each. What is asked for becomes
 * these once (tensor/mask_rule.h), and nobody else asks for anything else. */
#ifndef LS_TENSOR_MASK_H
#define LS_TENSOR_MASK_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/leaf_keys.h"
#include "tensor/pair_bits.h"

/* Query i in [q_from, q_to) sees key j in [k_from, k_to) iff low <= j - i <= high. */
struct ls_band {
    int64_t q_from, q_to, k_from, k_to;
    int64_t low, high; /* LS_FAR on either side: no limit */
    int64_t shift;     /* where query 0 would stand among the keys: for what goes by distance */
    int64_t reach;     /* the largest q_to up to this band */
};

#define LS_FAR ((int64_t)1 << 61) /* beyond every distance */

static inline bool ls_band_has(const struct ls_band *band, int64_t i, int64_t j)
{
    return band->q_from <= i && i < band->q_to && band->k_from <= j && j < band->k_to &&
           band->low <= j - i && j - i <= band->high;
}

struct ls_mask {
    int64_t s_q, s_k;
    int64_t q_first;      /* queries before it are not there, as those from s_q on */
    int64_t shift;        /* of queries that are in no band */
    int64_t count;        /* of bands, by q_from */
    struct ls_band *band; /* borrowed; NULL: there is no more than one, and it is here: */
    struct ls_band one;
    struct ls_pair_bits bits; /* pairs that are in none of these are not seen */
};

/* Of the entries of a batch and of heads. Borrowed. */
struct ls_masks {
    const struct ls_mask *mask; /* [entries][heads] */
    int64_t entries;            /* as many as the batch has, or 1: the same for all */
    int64_t heads;              /* as many as the problem has, from first_head on, or 1 */
    int64_t first_head;
};

static inline int64_t ls_masks_count(const struct ls_masks *masks)
{
    return masks->entries * masks->heads;
}

/* Of a head by its number among all there are. */
static inline const struct ls_mask *ls_masks_of(const struct ls_masks *masks, int64_t entry,
                                                int64_t head)
{
    return &masks->mask[(masks->entries > 1 ? entry * masks->heads : 0) +
                        (masks->heads > 1 ? head - masks->first_head : 0)];
}

/* out = the pairs that both bands have, of the shift of a; returns whether there is one. */
bool ls_band_both(struct ls_band *out, const struct ls_band *a, const struct ls_band *b);

/* One pair of a band that has any: of its first query that sees a key, the first key. */
void ls_band_first(int64_t *i, int64_t *j, const struct ls_band *band);

/* Appends a band that has s_q and s_k as limits, and low <= high; its q_from is not below that of
 * those before it. One without queries or keys is left out. All those of one query have one shift.
 */
void ls_mask_add(struct ls_mask *mask, struct ls_band band);

/* Bands that follow each other, from a first one up to another. */
struct ls_bands {
    const struct ls_band *from, *to;
};

/* All those of one of queries [first, end), some others perhaps. */
struct ls_bands ls_mask_bands(const struct ls_mask *mask, int64_t first, int64_t end);

/* Keys, or leaves of them: [from, to); none if they are equal. */
struct ls_range {
    int64_t from, to;
};

/* Keys of the band that one of queries [first, end) sees, whatever the bits. */
struct ls_range ls_band_keys(const struct ls_band *band, int64_t first, int64_t end);

/* Where query i stands among the keys. */
int64_t ls_mask_place(const struct ls_mask *mask, int64_t i);

/* Whether query i is there. */
static inline bool ls_mask_has(const struct ls_mask *mask, int64_t i)
{
    return mask->q_first <= i && i < mask->s_q;
}

/* Whether query i sees key j; how many of keys [first, first + keys) it sees. */
bool ls_mask_sees(const struct ls_mask *mask, int64_t i, int64_t j);
int64_t ls_mask_count(const struct ls_mask *mask, int64_t i, int64_t first, int64_t keys);

/* Whether one of queries [first, first + rows) sees one of keys [key, key + keys). */
bool ls_mask_meets(const struct ls_mask *mask, int64_t first, int64_t rows, int64_t key,
                   int64_t keys);

/* Leaves from `leaf` on of which one of queries [first, first + rows) sees a key, as far as they
 * follow each other: the next run of them. */
struct ls_range ls_mask_leaves(const struct ls_mask *mask, int64_t first, int64_t rows,
                               int64_t leaf);

/* out [rows] = keys of the leaf that each of queries [first, first + rows) sees. Returns whether
 * each sees all of LS_LEAF; out may then be as it was. */
bool ls_mask_leaf(struct ls_leaf_keys *out, const struct ls_mask *mask, int64_t first, int rows,
                  int64_t leaf);

#endif
