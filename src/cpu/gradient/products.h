/* The five products of attention's backward pass for one tile, a leaf of queries against a leaf of
 * keys. Each way of computing them is a row of the table in products.c.
 *   p  = exp(logit - lse)        dp = d_o v^T      ds = p (dp - delta)
 *   dv = p^T d_o                 dq = scale ds k   dk = scale ds^T q
 * p and ds are rounded to `type` where they enter a product, the rest is f32. */
#ifndef LS_CPU_GRADIENT_PRODUCTS_H
#define LS_CPU_GRADIENT_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cpu.h"
#include "cpu/gradient/sum_forest.h"
#include "cpu/head_dims.h"
#include "cpu/progress.h"
#include "device/gradient.h"

struct gradient_tile {
    const void *keys, *queries; /* packed */
    const float *lse;           /* [LS_LEAF], log2 units; +inf where there is no row, or it sees
                                 * nothing */
    const float *delta;         /* [LS_LEAF] */
    /* [LS_LEAF] the keys that a row sees; NULL: each sees all of LS_LEAF */
    const struct ls_leaf_keys *visible;
    const struct ls_leaf_keys *kept; /* [LS_LEAF] those that dropout leaves it; NULL: all */
    int rows, key_count;             /* in use, from the first one */
    float scale;
    /* what the rows take, of as many columns as operand rows, or fewer; of rows that are not in
     * use: anything */
    const struct sum_path *dq, *dk, *dv;
    struct progress_clock *clock; /* to be ticked between parts of a tile; may be NULL */
    /* what a later tile needs and this one does not, to be brought nearer meanwhile; NULL: none */
    const char *ahead;
    size_t ahead_bytes;

    /* for rows of the table that do more than plain scores */
    const struct ls_scores *scores;
    int64_t batch, head;            /* of the whole problem */
    int64_t first_query, first_key; /* positions in the whole sequence */
    const int64_t *place; /* [rows] of the queries among the keys; NULL: nothing goes by distance */
    double *distance; /* [scores->distances] gradients of biases of the head; NULL: not wanted */
    const bool *left_out; /* [LS_LEAF] keys that give nothing to those; NULL: none */
};

static inline bool gradient_tile_sees(const struct gradient_tile *tile, int query, int key)
{
    return !tile->visible || ls_leaf_keys_have(&tile->visible[query], key);
}

static inline bool gradient_tile_keeps(const struct gradient_tile *tile, int query, int key)
{
    return !tile->kept || ls_leaf_keys_have(&tile->kept[query], key);
}

/* From where a query stands to a key; 0 where nothing goes by distance. */
static inline int64_t gradient_tile_distance(const struct gradient_tile *tile, int query, int key)
{
    return tile->place ? tile->first_key + key - tile->place[query] : 0;
}

/* What a key at this distance gets behind the soft cap. */
static inline float gradient_distance_bias(const struct gradient_tile *tile, int64_t distance)
{
    const struct ls_scores *scores = tile->scores;
    float bias = 0;

    if (scores->alibi)
        bias -= scores->alibi[tile->head] * (float)(distance < 0 ? -distance : distance);
    if (scores->distance_bias)
        bias += ls_distance_biases(scores, tile->head)[ls_distance_at(scores, distance)];
    return bias;
}

/* All that a pair gets there. */
static inline float gradient_tile_bias(const struct gradient_tile *tile, int query, int key)
{
    const struct ls_scores *scores = tile->scores;
    const float bias = gradient_distance_bias(tile, gradient_tile_distance(tile, query, key));

    if (!scores->bias) return bias;
    return bias + ls_pair_biases(scores, tile->batch, tile->head,
                                 tile->first_query + query)[tile->first_key + key];
}

static inline void gradient_tile_note(const struct gradient_tile *tile, int64_t distance,
                                      float dlogit)
{
    if (tile->distance) tile->distance[ls_distance_at(tile->scores, distance)] += (double)dlogit;
}

/* Operand rows are pad.d elements of `type` (q, k) or pad.d_v (v, d_o), zero beyond d or d_v and
 * beyond the last row. */
struct gradient_products {
    const char *name;
    ls_dtype type;
    int d_multiple; /* d and d_v are padded to multiples of it */
    /* Rows up to which width a later tile's are brought nearer: those of wide ones keep what a tile
     * loads itself waiting for longer than they save, if its products are fast. */
    int widest_ahead;
    bool (*fits)(ls_isa isa, ls_dtype storage, const struct ls_scores *scores);

    /* of what one leaf's K and V, or Q and d_o, are packed into, and of one thread's scratch */
    size_t (*keys_bytes)(struct head_dims pad);
    size_t (*queries_bytes)(struct head_dims pad);
    size_t (*scratch_bytes)(struct head_dims pad);

    /* One a thread, created where OpenMP gives one thread. scratch is borrowed.
     * Errors: LS_ENOMEM, LS_EINTERNAL. */
    ls_status (*create)(void **out, ls_isa isa, struct head_dims pad, void *scratch);
    void (*destroy)(void *worker);

    ls_status (*pack_keys)(void *packed, void *worker, const void *k, const void *v);
    ls_status (*pack_queries)(void *packed, void *worker, const void *q, const void *d_o);

    /* Around any number of tiles, on one thread; NULL: nothing to do. */
    void (*begin)(void);
    void (*end)(void);
    ls_status (*tile)(void *worker, const struct gradient_tile *tile);
};

extern const struct gradient_products cpu_gradient_amx, cpu_gradient_avx512bf16,
    cpu_gradient_avx512, cpu_gradient_portable_bf16, cpu_gradient_portable_f32;

/* For rows that this machine's architecture cannot have. */
bool cpu_gradient_fits_never(ls_isa isa, ls_dtype storage, const struct ls_scores *scores);

/* The first row of the table that fits. */
const struct gradient_products *cpu_gradient_products_find(ls_isa isa, ls_dtype storage,
                                                           const struct ls_scores *scores);

#endif
