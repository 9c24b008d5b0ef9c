/* How much work and memory an attention is, from its shape and mask alone. */
#ifndef LS_PLAN_ATTENTION_SIZE_H
#define LS_PLAN_ATTENTION_SIZE_H

#include <stddef.h>

#include "device/attention.h"

/* Pairs (query, key) of one head that see each other; where entries or heads have masks of their
 * own, their mean. */
double ls_visible_pairs(const struct ls_masks *masks);

/* work [leaves of queries]: how many leaves of keys one of a leaf's queries sees, each of which is
 * a tile for 256 rows; of all masks together. */
void ls_leaf_work(int64_t *work, int64_t leaves, const struct ls_masks *masks);

/* Tiles with a visible pair, over all ranks: per kv head, each query leaf's rows of all the
 * group's heads in tiles of 256, against every leaf of keys that the query leaf sees; where heads
 * have masks of their own, of one head. The shape may be of some heads, from this one on. */
int64_t ls_attention_tiles(const struct ls_attention_shape *shape, const struct ls_masks *masks,
                           int64_t first_head);

/* Operations of one pair (query, key) of all heads, and what backward's are of them: three products
 * over d and two over d_v instead of one each. */
double ls_pair_flops(const struct ls_attention_shape *shape);
double ls_backward_work(const struct ls_attention_shape *shape);

/* Bytes of `rows` rows of K, of V, and of both together, in the storage type. */
size_t ls_key_bytes(const struct ls_attention_shape *shape, int64_t rows);
size_t ls_value_bytes(const struct ls_attention_shape *shape, int64_t rows);
size_t ls_key_value_bytes(const struct ls_attention_shape *shape, int64_t rows);

/* Bytes of the f32 partial results (m, l, acc) of `rows` query rows of every head. */
size_t ls_row_state_bytes(const struct ls_attention_shape *shape, int64_t rows);

/* Those that are the share of the rank with the largest share, where each rank takes its own
 * queries, or its own keys. */
double ls_most_pairs_of_queries(const struct ls_layout *queries, const struct ls_masks *masks);
double ls_most_pairs_of_keys(const struct ls_layout *keys, const struct ls_masks *masks);

/* What gives p ranks even work where each has its own queries and sees all keys: what a ring of
 * full or causal attention chooses. */
ls_layout_kind ls_layout_for_rings(bool causal, int p);

/* The most rows, and leaves, that a rank holds. */
int64_t ls_layout_most_rows(const struct ls_layout *layout);
int64_t ls_layout_most_leaves(const struct ls_layout *layout);

#endif
