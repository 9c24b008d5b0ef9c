/* The attention kernel of the CPU: what its files share. A call packs the keys, then deals tiles
 * of query rows to the threads; each tile folds its leaves by the tree (forest.h). */
#ifndef LS_CPU_ATTENTION_KERNEL_H
#define LS_CPU_ATTENTION_KERNEL_H

#include <stdatomic.h>

#include "cpu/attention/leaf.h"
#include "cpu/attention/places.h"
#include "cpu/attention/strip.h"
#include "cpu/device.h"

/* Leaves of a call's keys that some row of a leaf of queries sees: so many, none of them at or
 * behind this place in the list. */
struct seen_leaves {
    int64_t count, end;
};

/* agenda.c: what a call has to do under each of the masks, and for pairs (batch, kv head) that
 * differ in these: all or, where heads of an entry have one mask, one of each entry, or one. */
struct agenda {
    struct seen_leaves *sees; /* [masks][leaves of queries] */
    int64_t *order;     /* [pairs][..] places of leaves of queries, those that see the most first */
    int64_t *keys;      /* [pairs][..] places of leaves of keys that somebody sees */
    int64_t *key_count; /* [pairs] */
    int64_t most_keys;  /* the most of these */
};

/* A tile: rows [first, first + rows) of those that the group's heads have in one query leaf,
 * head after head, each `pitch` rows behind the one before. */
struct tile {
    int64_t pair; /* batch x h_kv + kv head */
    const struct ls_leaf *leaf;
    struct seen_leaves sees;
    int pitch;
    int first, rows;
};

/* Of a packed leaf of 8-bit keys and values, the scales that its numbers are without, which scores
 * and probabilities are multiplied by. */
struct leaf_scales {
    struct scales_apart {
        float of_row[LS_LEAF];
        bool any; /* some are not 1 */
    } k, v;
};

/* What a thread has of its own. */
struct worker {
    struct strip_worker strip;
    char *q; /* [TILE_ROWS][pad.d], packed rows of a tile */
    struct forest forest;
    char *raw;                 /* [LS_LEAF][pad.d or pad.d_v], a leaf on its way into packed form */
    char *patched;             /* [CHUNK_LEAVES] packed leaves of V (tile.c) */
    struct ls_leaf_keys *leaf; /* [LS_LEAF], what each row of a leaf of queries sees */
    struct ls_leaf_keys *visible; /* [CHUNK_LEAVES][TILE_ROWS] */
    struct score_row *score_row;  /* [TILE_ROWS] */
    struct scales_apart *scales;  /* [CHUNK_LEAVES] of values that are patched */
    float *shift;                 /* [TILE_ROWS] what a mean of keys adds to each row's logits */
    struct ls_row_states spare;   /* [TILE_ROWS] */
    struct progress_clock *clock; /* of the first thread, else NULL */
    struct ls_profile profile;
    int64_t tiles;
} __attribute__((aligned(64)));

/* Packed leaves of the (batch, kv head) pairs of one wave. */
struct packed {
    char *k, *v;                /* [pair][leaf], kernel->k_bytes or v_bytes each */
    uint8_t *clean;             /* [pair][leaf]: V is below V_LIMIT, without NaN */
    struct leaf_scales *scales; /* [pair][leaf], if the kernel has any */
};

struct ls_attention_kernel {
    struct ls_kernel_shape shape;
    const struct products *products;
    const struct simd *simd;
    struct cpu cpu;
    struct head_dims pad;
    int64_t group;       /* query heads per kv head */
    float softmax_scale; /* |scale| log2(e); where scores become logits first, log2(e) */
    bool are_products;   /* they do not */
    bool negate;         /* scale < 0: queries change sign instead */
    bool
        canonical; /* every row has a place of its own in tiles, and strips are full (row_bits.c) */
    size_t k_bytes, v_bytes; /* of packed leaves */
    bool quantized;          /* keys and values are of 8 bits */
    bool has_scales;         /* that bf16 products are without (pack.c) */
    struct ls_key_mean key_mean;
    int64_t wave; /* pairs packed at once */
    struct packed packed;
    struct agenda agenda;
    struct worker *worker;       /* [threads] */
    int64_t split_states;        /* partial tiles that can wait for each other */
    struct ls_row_states *split; /* [split_states] */
    void *memory;
};

/* Rows of a query leaf that lie between the places of two heads' first rows in tiles: a tile has
 * rows under one mask. */
static inline int rows_of_a_head(const struct ls_attention_kernel *kernel, int leaf_rows)
{
    return kernel->canonical || kernel->shape.masks.heads > 1 ? LS_LEAF : leaf_rows;
}

/* Of the agenda: the number of a pair, and how many there are. */
static inline int64_t agenda_pair(const struct ls_attention_kernel *kernel, int64_t pair)
{
    const struct ls_masks *masks = &kernel->shape.masks;
    const int64_t h_kv = kernel->shape.global.h_kv;

    if (masks->heads == 1) return masks->entries == 1 ? 0 : pair / h_kv;
    return masks->entries == 1 ? pair % h_kv : pair;
}

static inline int64_t agenda_pairs(const struct ls_attention_kernel *kernel)
{
    return agenda_pair(kernel, kernel->shape.global.b * kernel->shape.global.h_kv - 1) + 1;
}

/* The first pair of this number. */
static inline int64_t agenda_first(const struct ls_attention_kernel *kernel, int64_t number)
{
    return kernel->shape.masks.heads == 1 ? number * kernel->shape.global.h_kv : number;
}

/* Masks of a pair: one, or those of its query heads; and which of them a row of its tiles has. */
static inline int64_t masks_of_a_pair(const struct ls_attention_kernel *kernel)
{
    return kernel->shape.masks.heads == 1 ? 1 : kernel->group;
}

static inline int64_t mask_of_a_row(const struct ls_attention_kernel *kernel, int folded, int pitch)
{
    return kernel->shape.masks.heads == 1 ? 0 : folded / pitch;
}

/* Mask number i of a pair. */
static inline const struct ls_mask *mask_of_pair(const struct ls_attention_kernel *kernel,
                                                 int64_t pair, int64_t i)
{
    const int64_t h_kv = kernel->shape.global.h_kv;

    return ls_masks_of(&kernel->shape.masks, pair / h_kv,
                       kernel->shape.scores.first_head + pair % h_kv * kernel->group + i);
}

/* What all queries of a tile see by. */
static inline const struct ls_mask *mask_of(const struct ls_attention_kernel *kernel,
                                            const struct tile *tile)
{
    return mask_of_pair(kernel, tile->pair, mask_of_a_row(kernel, tile->first, tile->pitch));
}

/* Places of leaves that a leaf of queries sees: the next run from this one on (places.h). */
static inline struct ls_range seen_places(const struct ls_attention_kernel *kernel,
                                          const struct ls_kernel_call *call,
                                          const struct ls_mask *mask, const struct ls_leaf *queries,
                                          int64_t place)
{
    return cpu_seen_places(mask, queries, leaf_rows(queries->number, kernel->shape.global.s_q),
                           &call->k_leaves, place);
}

/* Where a row of a tile stands. */
struct tile_row {
    int64_t batch, head, row; /* row of the tensor */
    int64_t position;         /* in the whole sequence */
};

static inline struct tile_row tile_row(const struct ls_attention_kernel *kernel,
                                       const struct tile *tile, int r)
{
    const struct ls_attention_shape *s = &kernel->shape.global;
    const int folded = tile->first + r, row = folded % tile->pitch;

    return (struct tile_row){
        .batch = tile->pair / s->h_kv,
        .head = tile->pair % s->h_kv * kernel->group + folded / tile->pitch,
        .row = tile->leaf->row + row,
        .position = tile->leaf->number * LS_LEAF + row,
    };
}

/* agenda.c: fills in kernel->agenda. */
void cpu_make_agenda(struct ls_attention_kernel *kernel, const struct ls_kernel_call *call);

/* pack.c: leaf `index` of the call's keys for one pair of the wave that begins at wave_first. */
ls_status cpu_pack_leaf(struct ls_attention_kernel *kernel, struct worker *w,
                        const struct ls_kernel_call *call, int64_t wave_first, int64_t pair,
                        int64_t index);
/* A leaf of keys or values of one kv head that comes into w->raw. */
struct leaf_source {
    const struct ls_tensor *from;
    const struct ls_leaf *leaf;
    int64_t pair;
    const struct ls_leaf_keys *keep; /* other rows become zero */
    int d_pad;
    struct scales_apart *scales; /* received, if the kernel has any, else NULL */
    char *packed;                /* where the rows go after that, which is brought near meanwhile */
};

/* Tells whether the values are below V_LIMIT, without NaN. */
bool cpu_gather_values(const struct ls_attention_kernel *kernel, struct worker *w,
                       const struct leaf_source *of);
/* The rows of a tile into w->q, and what the mean of keys adds to their logits into w->shift. */
void cpu_gather_queries(const struct ls_attention_kernel *kernel, struct worker *w,
                        const struct ls_tensor *q, const struct tile *tile);

/* tile.c: folds leaves [from, to) of the call's keys, from a multiple of CHUNK_LEAVES, as far as
 * the tile sees them. The result is borrowed from w->forest; its rows may all be empty. */
ls_status cpu_fold_tile(struct ls_row_states *out, struct ls_attention_kernel *kernel,
                        struct worker *w, const struct ls_kernel_call *call,
                        const struct tile *tile, int64_t wave_first, int64_t from, int64_t to);

/* finish.c: merges a tile's result with each of call->found in turn, and writes it to call->states
 * or, with its head's sink, divided and rounded, to o and lse. */
void cpu_finish_tile(const struct ls_attention_kernel *kernel, struct worker *w,
                     const struct ls_kernel_call *call, const struct tile *tile,
                     struct ls_row_states result);

/* row_bits.c: sets *same to whether a row of each product has the same bits wherever it stands in a
 * strip, and in a strip of any height. Errors: LS_ENOMEM, LS_EINTERNAL. */
ls_status cpu_rows_keep_bits(bool *same, const struct strip_worker *w);

#endif
