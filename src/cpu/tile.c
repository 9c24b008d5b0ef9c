/* One tile of query rows against leaves of keys, chunk by chunk. */
#include <math.h>
#include <string.h>

#include "cpu/kernel.h"

/* Keys [0, n) of the whole sequence are visible at this query position. */
static int64_t visible_keys(const struct ls_attention_kernel *kernel, int64_t position)
{
    const struct ls_attention_shape *s = &kernel->shape.global;
    const int64_t n = kernel->shape.causal ? position + s->s_k - s->s_q + 1 : s->s_k;

    return n < 0 ? 0 : n < s->s_k ? n : s->s_k;
}

int64_t visible_leaves(const struct ls_attention_kernel *kernel, const struct ls_kernel_call *call,
                       const struct ls_leaf *query_leaf)
{
    const int rows = leaf_rows(query_leaf->number, kernel->shape.global.s_q);
    const int64_t keys = visible_keys(kernel, query_leaf->number * LS_LEAF + rows - 1);
    int64_t n = call->k_leaves.count;

    while (n > 0 && call->k_leaves.leaf[n - 1].number * LS_LEAF >= keys) n--;
    return n;
}

/* Keys of one leaf that each row sees; NULL if every row sees all 256. */
static const int16_t *row_visibility(const struct ls_attention_kernel *kernel, int16_t *out,
                                     const struct tile *tile, const struct ls_leaf *leaf)
{
    const int64_t start = leaf->number * LS_LEAF;

    if (visible_keys(kernel, tile->leaf->number * LS_LEAF) - start >= LS_LEAF) return NULL;
    for (int r = 0; r < tile->rows; r++) {
        const int64_t n = visible_keys(kernel, tile_row(kernel, tile, r).position) - start;
        out[r] = (int16_t)(n < 0 ? 0 : n < LS_LEAF ? n : LS_LEAF);
    }
    return out;
}

/* A chunk, and whether one of its leaves has a NaN or infinity in V that some row must not see:
 * a masked key's probability is 0, and 0 x inf is not. */
static bool make_chunk(struct chunk *out, const struct ls_attention_kernel *kernel,
                       const struct worker *w, const struct ls_kernel_call *call,
                       const struct tile *tile, int64_t slot, int64_t first, int leaves)
{
    bool poisoned = false;

    *out = (struct chunk){.q = w->q,
                          .rows = tile->rows,
                          .leaves = leaves,
                          .scale = kernel->scale_log2,
                          .clock = w->clock};
    for (int j = 0; j < leaves; j++) {
        const size_t at = (size_t)(slot + first + j);

        out->k[j] = kernel->packed.k + at * kernel->packed_bytes;
        out->v[j] = kernel->packed.v + at * kernel->packed_bytes;
        out->visible[j] = row_visibility(kernel, w->visible + j * TILE_ROWS, tile,
                                         &call->k_leaves.leaf[first + j]);
        poisoned |= out->visible[j] && !kernel->packed.clean[at];
    }
    return poisoned;
}

/* Row r alone, its last leaf packed again without the keys that it does not see. The kernel reads
 * a strip of queries from row r on; what lies behind the last row is this worker's as well. */
static ls_status attend_row(struct ls_row_states out, const struct ls_attention_kernel *kernel,
                            struct worker *w, const struct ls_kernel_call *call,
                            const struct tile *tile, const struct chunk *chunk, int64_t first,
                            int r)
{
    const size_t row_bytes = (size_t)kernel->d_pad * (size_t)ls_dtype_size(kernel->products->type);
    struct chunk one = *chunk;

    one.rows = 1;
    one.q = (const char *)chunk->q + (size_t)r * row_bytes;
    one.leaves = 0;
    for (int j = 0; j < chunk->leaves; j++) {
        const int seen = chunk->visible[j] ? chunk->visible[j][r] : LS_LEAF;

        if (seen == 0) break;
        one.leaves++;
        one.visible[j] = seen == LS_LEAF ? NULL : chunk->visible[j] + r;
        if (seen == LS_LEAF) continue;
        gather_leaf(kernel, w, call->v, &call->k_leaves.leaf[first + j], tile->pair, seen);
        LS_TRY(kernel->products->pack_v(w->patched, w->strip.own, w->raw));
        one.v[j] = w->patched;
    }
    if (one.leaves == 0) {
        out.m[r] = -INFINITY;
        return LS_OK;
    }
    LS_TRY(strip_attend(w->spare, &w->strip, &one));
    out.m[r] = w->spare.m[0];
    out.l[r] = w->spare.l[0];
    memcpy(out.acc + (size_t)r * (size_t)kernel->d_pad, w->spare.acc,
           (size_t)kernel->d_pad * sizeof *out.acc);
    return LS_OK;
}

ls_status fold_tile(struct ls_row_states *out, struct ls_attention_kernel *kernel, struct worker *w,
                    const struct ls_kernel_call *call, const struct tile *tile, int64_t wave_first,
                    int64_t from, int64_t to)
{
    const int64_t visible = visible_leaves(kernel, call, tile->leaf);
    const int64_t end = to < visible ? to : visible;
    const int64_t slot = (tile->pair - wave_first) * call->k_leaves.count;

    forest_start(&w->forest, tile->rows);
    for (int64_t first = from; first < end; first += CHUNK_LEAVES) {
        const int leaves = end - first < CHUNK_LEAVES ? (int)(end - first) : CHUNK_LEAVES;
        const struct ls_row_states node = forest_next(&w->forest);
        struct chunk chunk;

        if (make_chunk(&chunk, kernel, w, call, tile, slot, first, leaves)) {
            for (int r = 0; r < tile->rows; r++)
                LS_TRY(attend_row(node, kernel, w, call, tile, &chunk, first, r));
        } else {
            LS_TRY(strip_attend(node, &w->strip, &chunk));
        }
        w->tiles += leaves;
        forest_push(&w->forest);
    }
    *out = forest_fold(&w->forest);
    if (from >= end)
        for (int r = 0; r < tile->rows; r++) out->m[r] = -INFINITY;
    return LS_OK;
}
