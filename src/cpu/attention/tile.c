/* One tile of query rows against leaves of keys, chunk by chunk. */
#include <math.h>
#include <string.h>

#include "cpu/attention/kernel.h"

/* A tile on its way through the keys. */
struct fold {
    struct ls_attention_kernel *kernel;
    struct worker *w;
    const struct ls_kernel_call *call;
    const struct tile *tile;
    const struct ls_mask *mask;
    int64_t slot;         /* of the call's first leaf among those that are packed */
    int64_t begin, end;   /* places of the first chunk, and behind the last leaf */
    struct ls_range seen; /* places that are seen, those met last or next */
};

/* Whether the leaf at this place, not before those asked about so far, is seen; if not,
 * fold->seen.from is the next one that is. */
static bool is_seen(struct fold *fold, int64_t place)
{
    if (place >= fold->seen.to)
        fold->seen = seen_places(fold->kernel, fold->call, fold->mask, fold->tile->leaf, place);
    return place >= fold->seen.from && place < fold->seen.to;
}

/* The first chunk at this place, which begins one, or behind it that has a leaf that is seen. */
static int64_t next_chunk(struct fold *fold, int64_t place)
{
    const int64_t next = is_seen(fold, place) ? place : fold->seen.from;

    return next > place ? next / CHUNK_LEAVES * CHUNK_LEAVES : place;
}

static struct fold open_fold(struct ls_attention_kernel *kernel, struct worker *w,
                             const struct ls_kernel_call *call, const struct tile *tile,
                             int64_t wave_first, int64_t from, int64_t to)
{
    struct fold fold = {
        .kernel = kernel,
        .w = w,
        .call = call,
        .tile = tile,
        .mask = mask_of(kernel, tile),
        .slot = (tile->pair - wave_first) * call->k_leaves.count,
        .end = to < tile->sees.end ? to : tile->sees.end,
    };

    fold.begin = next_chunk(&fold, from);
    return fold;
}

/* Keys of leaf j of a chunk that each row sees; NULL if every row sees all 256. */
static const struct ls_leaf_keys *row_visibility(struct fold *fold, int j, int64_t leaf)
{
    const struct tile *tile = fold->tile;
    struct ls_leaf_keys *out = fold->w->visible + j * TILE_ROWS;
    const int rows = leaf_rows(tile->leaf->number, fold->kernel->shape.global.s_q);

    if (ls_mask_leaf(fold->w->leaf, fold->mask, tile->leaf->number * LS_LEAF, rows, leaf))
        return NULL;
    for (int r = 0, row = tile->first % tile->pitch; r < tile->rows; r++) {
        out[r] = fold->w->leaf[row];
        if (++row == tile->pitch) row = 0;
    }
    return out;
}

static struct operand packed_leaf(const char *leaves, size_t bytes, int64_t at, int64_t later)
{
    return (struct operand){.packed = leaves + (size_t)at * bytes,
                            .ahead = leaves + (size_t)later * bytes};
}

static struct key_rows rows_in_place(const struct fold *fold, const struct ls_tensor *t,
                                     const struct ls_leaf *leaf)
{
    const int64_t pair = fold->tile->pair, h_kv = fold->kernel->shape.global.h_kv;

    return (struct key_rows){.first = element(t, pair / h_kv, leaf->row, pair % h_kv),
                             .stride = t->stride[1] * ls_dtype_size(t->type),
                             .type = t->type,
                             .d = (int)t->dim[3] - (fold->kernel->quantized ? LS_SCALE_BYTES : 0)};
}

/* Leaf j of the chunk at `first`, where the caller has it. What a row does not see is not read for
 * it, and so cannot be unclean. */
static void place_rows(struct chunk *out, const struct fold *fold, int64_t first, int j)
{
    const struct ls_leaf *leaf = &fold->call->k_leaves.leaf[first + j];

    out->k_rows[j] = rows_in_place(fold, fold->call->k, leaf);
    out->v_rows[j] = rows_in_place(fold, fold->call->v, leaf);
    out->clean[j] = true;
}

/* NULL: none is. */
static const float *factors(const struct scales_apart *scales)
{
    return scales->any ? scales->of_row : NULL;
}

/* Leaf j of the chunk at `first`, packed; after it comes one of the next chunk or, of another tile,
 * one near the first. */
static void place_packed(struct chunk *out, const struct fold *fold, int64_t first, int j)
{
    const struct packed *packed = &fold->kernel->packed;
    const size_t k_bytes = fold->kernel->k_bytes, v_bytes = fold->kernel->v_bytes;
    const int64_t next = first + j + CHUNK_LEAVES, at = fold->slot + first + j;
    const int64_t later = fold->slot + (next < fold->end ? next : fold->begin + j);

    out->k[j] = packed_leaf(packed->k, k_bytes, at, later);
    out->v[j] = packed_leaf(packed->v, v_bytes, at, later);
    out->clean[j] = packed->clean[at];
    if (!fold->kernel->has_scales) return;
    out->k_scale[j] = factors(&packed->scales[at].k);
    out->v_scale[j] = factors(&packed->scales[at].v);
}

/* A chunk, and whether one of its leaves may have a NaN or infinity in V that some row must not
 * see: a masked key's probability is 0, and 0 x inf is not. */
static bool make_chunk(struct chunk *out, struct fold *fold, int64_t first)
{
    const struct ls_attention_kernel *kernel = fold->kernel;
    const int64_t left = fold->end - first;
    bool poisoned = false;

    *out = (struct chunk){.q = fold->w->q,
                          .rows = fold->tile->rows,
                          .leaves = left < CHUNK_LEAVES ? (int)left : CHUNK_LEAVES,
                          .scale = kernel->softmax_scale,
                          .clock = fold->w->clock,
                          .scores = &kernel->shape.scores,
                          .logits = !kernel->are_products,
                          .drops = kernel->shape.scores.dropout > 0,
                          .row = fold->w->score_row,
                          .shift = kernel->key_mean.mean ? fold->w->shift : NULL,
                          .batch = fold->tile->pair / kernel->shape.global.h_kv};
    for (int j = 0; j < out->leaves; j++) {
        const int64_t number = fold->call->k_leaves.leaf[first + j].number;

        out->seen[j] = is_seen(fold, first + j);
        if (!out->seen[j]) continue;
        out->visible[j] = row_visibility(fold, j, number);
        out->first_key[j] = number * LS_LEAF;
        if (kernel->products->decode)
            place_rows(out, fold, first, j);
        else
            place_packed(out, fold, first, j);
        poisoned |= (out->visible[j] || kernel->shape.scores.dropout > 0) && !out->clean[j];
    }
    return poisoned;
}

/* Values, in w->raw, of keys that dropout does not keep for a row become 0. */
static void clear_dropped(struct worker *w, const struct chunk *chunk, int j,
                          const struct score_row *row, size_t row_bytes)
{
    bool kept[LS_LEAF];

    ls_dropout_kept(kept, chunk->scores, chunk->batch, row->head, row->position,
                    chunk->first_key[j], LS_LEAF);
    for (int key = 0; key < LS_LEAF; key++)
        if (!kept[key]) memset(w->raw + (size_t)key * row_bytes, 0, row_bytes);
}

/* V of leaf j of the chunk at `first`, packed again without the keys that row r does not see. */
static ls_status patch_values(struct chunk *one, const struct fold *fold, int64_t first, int j,
                              const struct ls_leaf_keys *seen, int r)
{
    const struct ls_attention_kernel *kernel = fold->kernel;
    struct worker *w = fold->w;
    char *patched = w->patched + (size_t)j * kernel->v_bytes;
    const size_t size = (size_t)ls_dtype_size(kernel->products->type);
    const size_t row_bytes = (size_t)kernel->pad.d_v * size;

    struct scales_apart *scales = kernel->has_scales ? &w->scales[j] : NULL;
    const struct leaf_source of = {.from = fold->call->v,
                                   .leaf = &fold->call->k_leaves.leaf[first + j],
                                   .pair = fold->tile->pair,
                                   .keep = seen,
                                   .d_pad = kernel->pad.d_v,
                                   .scales = scales,
                                   .packed = patched};

    one->clean[j] = cpu_gather_values(kernel, w, &of);
    if (scales) one->v_scale[j] = factors(scales);
    if (kernel->shape.scores.dropout > 0) clear_dropped(w, one, j, &w->score_row[r], row_bytes);
    one->v[j] = (struct operand){.packed = patched};
    return kernel->products->pack_v(patched, w->strip.own, w->raw);
}

/* Row r, without what it does not see in leaves that are not clean: alone, or, where rows have
 * places, behind the rows of its strip. The kernel reads a strip of queries from there on; what
 * lies behind the last row is this worker's as well. */
static ls_status attend_row(struct ls_row_states out, const struct fold *fold,
                            const struct chunk *chunk, int64_t first, int r)
{
    const struct ls_attention_kernel *kernel = fold->kernel;
    const size_t d = (size_t)kernel->pad.d, d_v = (size_t)kernel->pad.d_v;
    const size_t size = (size_t)ls_dtype_size(kernel->products->type);
    const int start = kernel->canonical ? r - r % kernel->products->strip : r;
    const bool dropout = kernel->shape.scores.dropout > 0;
    struct worker *w = fold->w;
    struct chunk one = *chunk;

    one.rows = r - start + 1;
    one.q = (const char *)chunk->q + (size_t)start * d * size;
    one.row = chunk->row + start;
    if (chunk->shift) one.shift = chunk->shift + start;
    for (int j = 0; j < chunk->leaves; j++) {
        const struct ls_leaf_keys *seen =
            chunk->visible[j] ? &chunk->visible[j][r] : &ls_leaf_keys_first[LS_LEAF];

        if (!chunk->seen[j]) continue;
        one.seen[j] = !ls_leaf_keys_are_none(seen);
        if (chunk->visible[j]) one.visible[j] = chunk->visible[j] + start;
        if (one.seen[j] && !chunk->clean[j] && (!ls_leaf_keys_are_all(seen) || dropout))
            LS_TRY(patch_values(&one, fold, first, j, seen, r));
    }
    LS_TRY(cpu_strip_attend(w->spare, &w->strip, &one));
    out.m[r] = w->spare.m[r - start];
    out.l[r] = w->spare.l[r - start];
    memcpy(out.acc + (size_t)r * d_v, w->spare.acc + (size_t)(r - start) * d_v,
           d_v * sizeof *out.acc);
    return LS_OK;
}

static void list_score_rows(struct score_row *out, const struct ls_attention_kernel *kernel,
                            const struct tile *tile)
{
    const struct ls_mask *mask = mask_of(kernel, tile);

    for (int r = 0; r < tile->rows; r++) {
        const struct tile_row at = tile_row(kernel, tile, r);

        out[r] = (struct score_row){.head = kernel->shape.scores.first_head + at.head,
                                    .position = at.position,
                                    .place = ls_mask_place(mask, at.position)};
    }
}

static ls_status fold_chunk(struct ls_row_states out, struct fold *fold, int64_t first)
{
    struct chunk chunk;
    const bool poisoned = make_chunk(&chunk, fold, first);

    for (int j = 0; j < chunk.leaves; j++) fold->w->tiles += chunk.seen[j];
    if (!poisoned) return cpu_strip_attend(out, &fold->w->strip, &chunk);
    for (int r = 0; r < fold->tile->rows; r++) LS_TRY(attend_row(out, fold, &chunk, first, r));
    return LS_OK;
}

ls_status cpu_fold_tile(struct ls_row_states *out, struct ls_attention_kernel *kernel,
                        struct worker *w, const struct ls_kernel_call *call,
                        const struct tile *tile, int64_t wave_first, int64_t from, int64_t to)
{
    struct fold fold = open_fold(kernel, w, call, tile, wave_first, from, to);
    struct forest *forest = &w->forest;

    if (!ls_scores_are_plain(&kernel->shape.scores)) list_score_rows(w->score_row, kernel, tile);
    forest_start(forest, tile->rows);
    for (int64_t first = fold.begin; first < fold.end;
         first = next_chunk(&fold, first + CHUNK_LEAVES)) {
        forest_skip(forest, (first - from) / CHUNK_LEAVES - forest->pushed);
        LS_TRY(fold_chunk(forest_next(forest), &fold, first));
        forest_push(forest);
    }
    *out = forest_fold(forest);
    return LS_OK;
}
