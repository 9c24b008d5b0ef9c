/* One tile: which of its pairs are seen, and by which way it is computed. */
#include <endian.h>
#include <string.h>

#include "base/exact_sum.h"
#include "cpu/draw.h"
#include "cpu/gradient/gradient.h"

const struct ls_leaf_keys *cpu_gradient_visible(struct ls_leaf_keys *out,
                                                const struct ls_mask *mask, int64_t first, int rows,
                                                int64_t k_leaf)
{
    if (ls_mask_leaf(out, mask, first, rows, k_leaf)) return NULL;
    memset(out + rows, 0, (size_t)(LS_LEAF - rows) * sizeof *out);
    return out;
}

const int64_t *cpu_gradient_places(int64_t *out, const struct ls_scores *scores,
                                   const struct ls_mask *mask, int64_t first, int rows)
{
    if (!scores->alibi && !scores->distance_bias) return NULL;
    for (int r = 0; r < rows; r++) out[r] = ls_mask_place(mask, first + r);
    return out;
}

/* Eight bytes that are 0 or 1 as bits. */
static uint64_t bits_of(const uint8_t *bytes)
{
    uint64_t x;

    memcpy(&x, bytes, sizeof x);
    return le64toh(x) * 0x0102040810204080 >> 56;
}

const struct ls_leaf_keys *cpu_gradient_kept(struct ls_leaf_keys *out,
                                             const struct gradient_tile *tile, ls_isa isa)
{
    const struct ls_scores *scores = tile->scores;
    const struct ls_dropout dropout = ls_dropout_of_keys(scores, tile->batch, tile->head);
    uint8_t bytes[LS_LEAF];

    if (scores->dropout == 0) return NULL;
    const struct drawing drawing = drawing_of(&dropout, LS_RANDOM_DROPOUT, isa);
    for (int r = 0; r < tile->rows; r++) {
        uint64_t *bits = out[r].word;

        draw(bytes, &drawing, tile->first_query + r, tile->first_key, LS_LEAF);
        for (int i = 0; i < LS_LEAF_WORDS; i++) {
            bits[i] = 0;
            for (int j = 0; j < 8; j++) bits[i] |= bits_of(bytes + 64 * i + 8 * j) << 8 * j;
        }
    }
    return out;
}

/* A block of rows and keys at a time, since they stand the other way round. */
static void add_pair_biases(float *bias, const struct gradient_tile *tile, int first, int keys)
{
    enum { BLOCK = 16 };
    const int64_t stride = tile->scores->bias_keys;
    const float *from = ls_pair_biases(tile->scores, tile->batch, tile->head, tile->first_query) +
                        tile->first_key + first;

    for (int i0 = 0; i0 < tile->rows; i0 += BLOCK)
        for (int j0 = 0; j0 < keys; j0 += BLOCK)
            for (int i = i0; i < i0 + BLOCK && i < tile->rows; i++)
                for (int j = j0; j < j0 + BLOCK && j < keys; j++)
                    bias[j * LS_LEAF + i] += from[i * stride + j];
}

void cpu_gradient_biases(float *bias, const struct gradient_tile *tile, int first, int keys)
{
    const int left = tile->key_count - first, there = left < 0 ? 0 : left < keys ? left : keys;

    memset(bias, 0, (size_t)keys * LS_LEAF * sizeof *bias);
    for (int j = 0; tile->place && j < there; j++)
        for (int i = 0; i < tile->rows; i++)
            bias[j * LS_LEAF + i] =
                gradient_distance_bias(tile, gradient_tile_distance(tile, i, first + j));
    if (tile->scores->bias) add_pair_biases(bias, tile, first, there);
}

/* Tiles go on to the next leaf of keys of the chunk that the leaf of queries sees, or to leaves of
 * queries before it. */
static void look_ahead(struct gradient_tile *tile, const struct gradient_job *job, int64_t head,
                       int64_t q_leaf, int64_t k_leaf)
{
    const struct ls_gradient_kernel *kernel = job->kernel;
    const int64_t first = k_leaf / kernel->chunk * kernel->chunk;
    int64_t q = q_leaf, k = k_leaf;

    if (head_dims_widest(kernel->pad) > kernel->products->widest_ahead) return;
    do {
        if (++k < first + kernel->chunk && k < job->call->k_leaves.count) continue;
        k = first;
        q--;
    } while (q >= 0 && !gradient_leaf_is_seen(job, head, q, k));
    if (q == q_leaf) {
        tile->ahead = kernel->keys.leaf + (size_t)keys_slot(job, head, k) * kernel->keys_bytes;
        tile->ahead_bytes = kernel->keys_bytes;
    } else if (q >= 0) {
        tile->ahead =
            kernel->packed.leaf + (size_t)queries_slot(job, head, q) * kernel->queries_bytes;
        tile->ahead_bytes = kernel->queries_bytes;
    }
}

/* What a tile has found of its head's biases by distance, to the sums of all. */
static void hand_over_distances(const struct ls_gradient_kernel *kernel,
                                const struct gradient_tile *tile)
{
    const struct ls_scores *scores = tile->scores;
    const int64_t row = (tile->head - kernel->distances.first_head) * scores->distances;
    int64_t first = INT64_MAX, last = INT64_MIN; /* places of rows */

    for (int r = 0; r < tile->rows; r++) {
        if (tile->place[r] < first) first = tile->place[r];
        if (tile->place[r] > last) last = tile->place[r];
    }
    const int64_t end = ls_distance_at(scores, tile->first_key + LS_LEAF - 1 - first);

    for (int64_t i = ls_distance_at(scores, tile->first_key - last); i <= end; i++) {
        ls_exact_add(kernel->distances.limb + (row + i) * LS_EXACT_LIMBS, tile->distance[i]);
        tile->distance[i] = 0;
    }
}

ls_status cpu_gradient_tile(const struct gradient_paths *to, struct gradient_job *job,
                            struct gradient_worker *w, int64_t head, int64_t q_leaf, int64_t k_leaf)
{
    const struct ls_gradient_kernel *kernel = job->kernel;
    const struct ls_kernel_shape *shape = &kernel->shape.attention;
    const struct ls_leaf *queries = &job->call->q_leaves.leaf[q_leaf];
    const struct ls_leaf *keys = &job->call->k_leaves.leaf[k_leaf];
    const int64_t q_slot = queries_slot(job, head, q_leaf), k_slot = keys_slot(job, head, k_leaf);
    const int rows = leaf_rows(queries->number, shape->global.s_q);
    const int key_count = leaf_rows(keys->number, shape->global.s_k);
    const struct ls_mask *mask = gradient_mask(kernel, head);
    struct gradient_tile tile = {
        .keys = kernel->keys.leaf + (size_t)k_slot * kernel->keys_bytes,
        .queries = kernel->packed.leaf + (size_t)q_slot * kernel->queries_bytes,
        .lse = kernel->queries[q_slot].lse,
        .delta = kernel->queries[q_slot].delta,
        .visible =
            cpu_gradient_visible(w->visible, mask, queries->number * LS_LEAF, rows, keys->number),
        .rows = rows,
        .key_count = key_count,
        .scale = shape->scores.scale,
        .dq = &to->dq,
        .dk = &to->dk,
        .dv = &to->dv,
        .clock = w->clock,
        .scores = &shape->scores,
        .batch = head / shape->global.h,
        .head = head % shape->global.h + shape->scores.first_head,
        .first_query = queries->number * LS_LEAF,
        .first_key = keys->number * LS_LEAF,
        .place =
            cpu_gradient_places(w->place, &shape->scores, mask, queries->number * LS_LEAF, rows),
        .distance = kernel->distances.limb ? w->distance : NULL,
    };

    tile.kept = cpu_gradient_kept(w->kept, &tile, kernel->cpu.isa);
    look_ahead(&tile, job, head, q_leaf, k_leaf);
    w->tiles++;
    LS_TRY(tile.visible && !(kernel->keys.clean[k_slot] && kernel->packed.clean[q_slot])
               ? cpu_gradient_mended_tile(job, w, &tile, queries, keys)
               : kernel->products->tile(w->own, &tile));
    if (tile.distance) hand_over_distances(kernel, &tile);
    return LS_OK;
}
