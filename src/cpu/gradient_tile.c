/* One tile: which of its pairs are seen, and by which way it is computed. */
#include "cpu/gradient.h"
#include "cpu/leaf.h"

struct ls_visible gradient_visible(const struct gradient_job *job, int64_t q_leaf)
{
    const struct ls_kernel_shape *shape = &job->kernel->shape.attention;
    const int64_t number = job->call->q_leaves.leaf[q_leaf].number;

    return ls_mask_rows(&shape->mask, number * LS_LEAF, leaf_rows(number, shape->global.s_q));
}

bool gradient_leaf_is_seen(const struct gradient_job *job, struct ls_visible visible,
                           int64_t k_leaf)
{
    const int64_t number = job->call->k_leaves.leaf[k_leaf].number;

    return ls_visible_count(visible, number * LS_LEAF,
                            leaf_rows(number, job->kernel->shape.attention.global.s_k)) > 0;
}

bool gradient_chunk_is_seen(const struct gradient_job *job, struct ls_visible visible,
                            int64_t chunk)
{
    const int64_t first = chunk * GRADIENT_CHUNK;

    for (int64_t j = first; j < first + GRADIENT_CHUNK && j < job->call->k_leaves.count; j++)
        if (gradient_leaf_is_seen(job, visible, j)) return true;
    return false;
}

/* NULL if each row sees every key of the leaf. */
static const struct ls_leaf_keys *row_visibility(struct ls_leaf_keys *out,
                                                 const struct ls_mask *mask,
                                                 const struct ls_leaf *q_leaf,
                                                 const struct ls_leaf *k_leaf, int rows, int keys)
{
    const int64_t first = q_leaf->number * LS_LEAF;

    if (ls_mask_is_full(mask, first, rows, k_leaf->number * LS_LEAF, keys)) return NULL;
    for (int r = 0; r < LS_LEAF; r++)
        out[r] = r < rows ? ls_visible_in_leaf(ls_mask_row(mask, first + r), k_leaf->number)
                          : (struct ls_leaf_keys){0};
    return out;
}

ls_status gradient_tile(const struct gradient_parts *out, struct gradient_job *job,
                        struct gradient_worker *w, int64_t head, int64_t q_leaf, int64_t k_leaf)
{
    const struct ls_gradient_kernel *kernel = job->kernel;
    const struct ls_kernel_shape *shape = &kernel->shape.attention;
    const struct ls_leaf *queries = &job->call->q_leaves.leaf[q_leaf];
    const struct ls_leaf *keys = &job->call->k_leaves.leaf[k_leaf];
    const int64_t q_slot = queries_slot(job, head, q_leaf), k_slot = keys_slot(job, head, k_leaf);
    const int rows = leaf_rows(queries->number, shape->global.s_q);
    const int key_count = leaf_rows(keys->number, shape->global.s_k);
    const struct gradient_tile tile = {
        .keys = kernel->keys.leaf + (size_t)k_slot * kernel->keys_bytes,
        .queries = kernel->packed.leaf + (size_t)q_slot * kernel->queries_bytes,
        .lse = kernel->queries[q_slot].lse,
        .delta = kernel->queries[q_slot].delta,
        .visible = row_visibility(w->visible, &shape->mask, queries, keys, rows, key_count),
        .rows = rows,
        .key_count = key_count,
        .scale = shape->scores.scale,
        .dq = out->dq,
        .dk = out->dk,
        .dv = out->dv,
        .clock = w->clock,
        .scores = &shape->scores,
        .batch = head / shape->global.h,
        .head = head % shape->global.h + shape->scores.first_head,
        .first_query = queries->number * LS_LEAF,
        .first_key = keys->number * LS_LEAF,
        .first_place = queries->number * LS_LEAF + shape->mask.shift,
    };

    w->tiles++;
    if (tile.visible && !(kernel->keys.clean[k_slot] && kernel->packed.clean[q_slot]))
        return gradient_mended_tile(job, w, &tile, queries, keys);
    return kernel->products->tile(w->own, &tile);
}
