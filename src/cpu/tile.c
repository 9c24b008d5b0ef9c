/* One tile of query rows against leaves of keys, chunk by chunk. */
#include <math.h>
#include <string.h>

#include "cpu/kernel.h"

/* Keys [0, n) of the whole sequence are visible at this query position. */
static int64_t visible_keys(const struct ls_attention_kernel *kernel, int64_t position)
{
    return ls_mask_row(&kernel->shape.mask, position).to;
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

static struct operand packed_leaf(const char *leaves, size_t bytes, size_t at, size_t later)
{
    return (struct operand){.packed = leaves + at * bytes, .ahead = leaves + later * bytes};
}

/* A chunk, after which comes the next one or, of another tile, the first; and whether one of its
 * leaves may have a NaN or infinity in V that some row must not see: a masked key's probability is
 * 0, and 0 x inf is not. */
static bool make_chunk(struct chunk *out, const struct ls_attention_kernel *kernel,
                       const struct worker *w, const struct ls_kernel_call *call,
                       const struct tile *tile, int64_t slot, int64_t first, int64_t end)
{
    const int64_t left = end - first;
    const int leaves = left < CHUNK_LEAVES ? (int)left : CHUNK_LEAVES;
    bool poisoned = false;

    *out = (struct chunk){.q = w->q,
                          .rows = tile->rows,
                          .leaves = leaves,
                          .scale = kernel->scale_log2,
                          .clock = w->clock};
    for (int j = 0; j < leaves; j++) {
        const size_t at = (size_t)(slot + first + j);
        const size_t later = j + CHUNK_LEAVES < left ? at + CHUNK_LEAVES : (size_t)(slot + j);

        out->k[j] = packed_leaf(kernel->packed.k, kernel->packed_bytes, at, later);
        out->v[j] = packed_leaf(kernel->packed.v, kernel->packed_bytes, at, later);
        out->visible[j] = row_visibility(kernel, w->visible + j * TILE_ROWS, tile,
                                         &call->k_leaves.leaf[first + j]);
        out->clean[j] = kernel->packed.clean[at];
        poisoned |= out->visible[j] && !out->clean[j];
    }
    return poisoned;
}

/* Row r, its last leaf packed again without the keys that it does not see: alone, or, where rows
 * have places, behind the rows of its strip. The kernel reads a strip of queries from there on;
 * what lies behind the last row is this worker's as well. */
static ls_status attend_row(struct ls_row_states out, const struct ls_attention_kernel *kernel,
                            struct worker *w, const struct ls_kernel_call *call,
                            const struct tile *tile, const struct chunk *chunk, int64_t first,
                            int r)
{
    const size_t row_bytes = (size_t)kernel->d_pad * (size_t)ls_dtype_size(kernel->products->type);
    const int start = kernel->canonical ? r - r % kernel->products->strip : r;
    struct chunk one = *chunk;

    one.rows = r - start + 1;
    one.q = (const char *)chunk->q + (size_t)start * row_bytes;
    one.leaves = 0;
    for (int j = 0; j < chunk->leaves; j++) {
        const int seen = chunk->visible[j] ? chunk->visible[j][r] : LS_LEAF;

        if (seen == 0) break;
        one.leaves++;
        one.visible[j] = seen == LS_LEAF ? NULL : chunk->visible[j] + start;
        if (seen == LS_LEAF) continue;
        one.clean[j] =
            gather_values(kernel, w, call->v, &call->k_leaves.leaf[first + j], tile->pair, seen);
        LS_TRY(kernel->products->pack_v(w->patched, w->strip.own, w->raw));
        one.v[j] = (struct operand){.packed = w->patched};
    }
    if (one.leaves == 0) {
        out.m[r] = -INFINITY;
        return LS_OK;
    }
    LS_TRY(strip_attend(w->spare, &w->strip, &one));
    out.m[r] = w->spare.m[r - start];
    out.l[r] = w->spare.l[r - start];
    memcpy(out.acc + (size_t)r * (size_t)kernel->d_pad,
           w->spare.acc + (size_t)(r - start) * (size_t)kernel->d_pad,
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
        const struct ls_row_states node = forest_next(&w->forest);
        struct chunk chunk;

        if (make_chunk(&chunk, kernel, w, call, tile, slot, first, end)) {
            for (int r = 0; r < tile->rows; r++)
                LS_TRY(attend_row(node, kernel, w, call, tile, &chunk, first, r));
        } else {
            LS_TRY(strip_attend(node, &w->strip, &chunk));
        }
        w->tiles += chunk.leaves;
        forest_push(&w->forest);
    }
    *out = forest_fold(&w->forest);
    if (from >= end)
        for (int r = 0; r < tile->rows; r++) out->m[r] = -INFINITY;
    return LS_OK;
}
