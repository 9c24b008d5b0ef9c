/* Some of the keys of one leaf, such as those that a row sees: one bit each. */
#ifndef LS_TENSOR_LEAF_KEYS_H
#define LS_TENSOR_LEAF_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "longspan/layout.h"

#define LS_LEAF_WORDS (LS_LEAF / 64)

/* Key j is bit j % 64 of word j / 64. */
struct ls_leaf_keys {
    uint64_t word[LS_LEAF_WORDS];
};

static inline int ls_in_leaf(int64_t key)
{
    return key < 0 ? 0 : key > LS_LEAF ? LS_LEAF : (int)key;
}

/* [n]: the first n keys, n from 0 to LS_LEAF. */
extern const struct ls_leaf_keys ls_leaf_keys_first[LS_LEAF + 1];

/* Keys [from, to); limits beyond the leaf are cut to it. */
static inline struct ls_leaf_keys ls_leaf_keys_run(int64_t from, int64_t to)
{
    const struct ls_leaf_keys *before = &ls_leaf_keys_first[ls_in_leaf(from)];
    struct ls_leaf_keys run = ls_leaf_keys_first[ls_in_leaf(to)];

    for (int i = 0; i < LS_LEAF_WORDS; i++) run.word[i] &= ~before->word[i];
    return run;
}

static inline bool ls_leaf_keys_have(const struct ls_leaf_keys *keys, int j)
{
    return keys->word[j / 64] >> j % 64 & 1;
}

/* Keys [first, first + n), lowest bit first; n <= 64 divides 64, and first. */
static inline uint64_t ls_leaf_keys_bits(const struct ls_leaf_keys *keys, int first, int n)
{
    return keys->word[first / 64] >> first % 64 & ~UINT64_C(0) >> (64 - n);
}

static inline bool ls_leaf_keys_are_all(const struct ls_leaf_keys *keys)
{
    return (keys->word[0] & keys->word[1] & keys->word[2] & keys->word[3]) == ~UINT64_C(0);
}

static inline bool ls_leaf_keys_are_none(const struct ls_leaf_keys *keys)
{
    return (keys->word[0] | keys->word[1] | keys->word[2] | keys->word[3]) == 0;
}

/* The first key from `from` on that is among them, or, if not `present`, that is not; LS_LEAF:
 * none. */
int ls_leaf_keys_next(const struct ls_leaf_keys *keys, int from, bool present);

/* The last of them; -1: none. */
int ls_leaf_keys_last(const struct ls_leaf_keys *keys);

#endif
