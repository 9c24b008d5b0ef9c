#include "cpu/attention/strip.h"

#include <math.h>
#include <string.h>

#include "cpu/attention/decode.h"
#include "cpu/draw.h"
#include "cpu/exp2.h"

static size_t round_up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static size_t score_bytes(const struct products *products)
{
    const size_t rows = (size_t)products->strip;
    const size_t p = rows * (size_t)(products->p_stride * ls_dtype_size(products->type));

    if (products->p_offset) return round_up((size_t)products->p_offset * sizeof(float) + p);
    return round_up(rows * (size_t)products->score_stride * sizeof(float));
}

/* Floats of one partial result of a strip. */
static size_t node_floats(const struct products *products, struct head_dims pad)
{
    return (size_t)products->strip * (size_t)(pad.d_v + 2);
}

static int nodes(void)
{
    return forest_depth(CHUNK_LEAVES) - 1;
}

size_t cpu_strip_scratch_bytes(const struct products *products, struct head_dims pad)
{
    return score_bytes(products) + round_up(products->scratch_bytes()) +
           (size_t)nodes() * round_up(node_floats(products, pad) * sizeof(float));
}

ls_status cpu_strip_worker_init(struct strip_worker *w, const struct products *products, ls_isa isa,
                                struct head_dims pad, char *scratch)
{
    *w = (struct strip_worker){.products = products,
                               .simd = simd_of(isa),
                               .isa = isa,
                               .pad = pad,
                               .scores = (float *)scratch,
                               .forest = {.simd = simd_of(isa), .d = pad.d_v}};
    memset(scratch, 0, score_bytes(products)); /* rows beyond a short strip are multiplied too */
    scratch += score_bytes(products);
    for (int i = 1; i <= nodes(); i++) {
        float *node = (float *)scratch;
        const size_t rows = (size_t)products->strip, d_v = (size_t)pad.d_v;

        w->forest.node[i] = (struct ls_row_states){
            .acc = node, .m = node + rows * d_v, .l = node + rows * (d_v + 1)};
        scratch += round_up(node_floats(products, pad) * sizeof *node);
    }
    return products->create(&w->own, isa, pad, scratch);
}

void cpu_strip_worker_fini(struct strip_worker *w)
{
    if (w->own) w->products->destroy(w->own);
}

/* From the first key that any of the rows sees to the last one. */
static struct key_span seen_keys(const struct ls_leaf_keys *visible, int rows)
{
    struct ls_leaf_keys some = {0};

    if (!visible) return (struct key_span){.end = LS_LEAF};
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < LS_LEAF_WORDS; i++) some.word[i] |= visible[r].word[i];
    return (struct key_span){ls_leaf_keys_next(&some, 0, true), ls_leaf_keys_last(&some) + 1};
}

/* The operand as the strip that begins at row `first` sees it. */
static struct operand strip_operand(struct operand leaf, const struct products *products, int d_pad,
                                    int first)
{
    if (leaf.ahead) leaf.ahead += products->packed_bytes(d_pad) / TILE_ROWS * (size_t)first;
    return leaf;
}

/* Rows [first, first + rows)'s share of a leaf's visibility. */
static const struct ls_leaf_keys *strip_visible(const struct chunk *chunk, int leaf, int first)
{
    return chunk->visible[leaf] ? chunk->visible[leaf] + first : NULL;
}

/* Of the leaf whose first key is so far behind the query's place. */
static void add_biases(float *s, const struct ls_scores *scores, int64_t head, int64_t first)
{
    const float *bias = ls_distance_biases(scores, head);
    const int64_t most = scores->distances / 2;
    const int begin = ls_in_leaf(-most - first), end = ls_in_leaf(most + 1 - first);

    for (int j = 0; j < begin; j++) s[j] += bias[0];
#pragma omp simd
    for (int j = begin; j < end; j++) s[j] += bias[most + first + j];
    for (int j = end; j < LS_LEAF; j++) s[j] += bias[2 * most];
}

/* Of a leaf of which so many keys are there. */
static void add_pair_biases(float *s, const float *bias, int keys)
{
#pragma omp simd
    for (int j = 0; j < keys; j++) s[j] += bias[j];
}

static void make_logits(const struct strip_worker *w, const struct chunk *chunk, int leaf,
                        int first, int rows)
{
    const struct ls_scores *scores = chunk->scores;
    const int64_t first_key = chunk->first_key[leaf];

    for (int r = 0; r < rows; r++) {
        const struct score_row *row = &chunk->row[first + r];
        const struct logit_row logit = {.scale = fabsf(scores->scale),
                                        .soft_cap = scores->soft_cap,
                                        .slope = scores->alibi ? scores->alibi[row->head] : 0,
                                        .place = (float)(row->place - first_key),
                                        .shift = chunk->shift ? chunk->shift[first + r] : 0};

        float *s = w->scores + r * w->products->score_stride;

        w->simd->logits(s, &logit);
        if (scores->distance_bias) add_biases(s, scores, row->head, first_key - row->place);
        if (scores->bias)
            add_pair_biases(
                s, ls_pair_biases(scores, chunk->batch, row->head, row->position) + first_key,
                ls_in_leaf(scores->bias_keys - first_key));
    }
}

LS_CLONED static void multiply_scores(float *s, const float *factor)
{
    for (int j = 0; j < LS_LEAF; j++) s[j] *= factor[j];
}

/* Products with keys whose scales are not part of them. */
static void scale_products(const struct strip_worker *w, const float *k_scale, int rows)
{
    for (int r = 0; r < rows; r++)
        multiply_scores(w->scores + r * w->products->score_stride, k_scale);
}

/* Not right behind the softmax, which stores maxima 16 at a time and with a mask: reading them in
 * smaller parts then waits for that. */
LS_CLONED static void shift_maxima(float *m, const float *shift, int rows)
{
    for (int r = 0; r < rows; r++) m[r] = m[r] != -INFINITY ? m[r] + shift[r] * LOG2E : m[r];
}

static void keep_only(void *p, ls_dtype type, const uint8_t *kept, int n)
{
    uint16_t *const halves = p;
    uint32_t *const words = p;

    if (type == LS_BF16) {
#pragma omp simd
        for (int j = 0; j < n; j++) halves[j] &= (uint16_t)-kept[j];
    } else {
#pragma omp simd
        for (int j = 0; j < n; j++) words[j] &= -(uint32_t)kept[j];
    }
}

/* Probabilities of keys that dropout does not keep become 0. */
static void drop_probabilities(const struct strip_worker *w, const struct chunk *chunk, int leaf,
                               struct key_span keys, int first, int rows)
{
    const struct products *products = w->products;
    const size_t size = (size_t)ls_dtype_size(products->type);
    const int from = keys.first / 4 * 4;
    char *p = (char *)(w->scores + products->p_offset) + (size_t)from * size;
    uint8_t kept[LS_LEAF];

    for (int r = 0; r < rows; r++, p += (size_t)products->p_stride * size) {
        const struct score_row *row = &chunk->row[first + r];
        const struct ls_dropout dropout =
            ls_dropout_of_keys(chunk->scores, chunk->batch, row->head);
        const struct drawing drawing = drawing_of(&dropout, LS_RANDOM_DROPOUT, w->isa);

        draw(kept, &drawing, row->position, chunk->first_key[leaf] + from, keys.end - from);
        keep_only(p, products->type, kept, keys.end - from);
    }
}

/* The partial result of one strip and those keys of one leaf, from nothing. */
static ls_status attend_leaf(struct ls_row_states out, struct strip_worker *w,
                             const struct chunk *chunk, int leaf, struct key_span keys, int first,
                             int rows)
{
    const struct products *products = w->products;
    const int product_rows = w->full ? products->strip : rows;
    const size_t row = (size_t)w->pad.d * (size_t)ls_dtype_size(products->type);
    const char *q = (const char *)chunk->q + (size_t)first * row;
    const struct operand k = strip_operand(chunk->k[leaf], products, w->pad.d, first);
    const struct operand v = strip_operand(chunk->v[leaf], products, w->pad.d_v, first);
    struct softmax_rows softmax = {.p = w->scores + products->p_offset,
                                   .p_stride = products->p_stride,
                                   .m = out.m,
                                   .l = out.l,
                                   .s = w->scores,
                                   .s_stride = products->score_stride,
                                   .visible = strip_visible(chunk, leaf, first),
                                   .rows = rows,
                                   .scale = chunk->scale,
                                   .p_factor = chunk->v_scale[leaf],
                                   .s_factor = chunk->k_scale[leaf]};

    if (products->probabilities && chunk->clean[leaf] && !chunk->logits && !w->own_maximum) {
        LS_TRY(products->probabilities(&softmax, w->own, q, k, keys));
    } else {
        if (products->decode)
            cpu_decode_scores(w, chunk, leaf, keys);
        else
            LS_TRY(products->scores(w->scores, w->own, q, k, product_rows, keys));
        if (chunk->k_scale[leaf]) scale_products(w, chunk->k_scale[leaf], rows);
        if (chunk->logits) make_logits(w, chunk, leaf, first, rows);
        if (products->type == LS_BF16)
            w->simd->softmax_bf16(&softmax);
        else
            w->simd->softmax_f32(&softmax);
    }
    if (chunk->drops) drop_probabilities(w, chunk, leaf, keys, first, rows);
    progress_tick(chunk->clock);
    if (products->decode)
        cpu_decode_output(out.acc, w, chunk, leaf);
    else
        LS_TRY(products->output(out.acc, w->own, softmax.p, v, product_rows, keys));
    if (chunk->shift && !chunk->logits) shift_maxima(out.m, chunk->shift + first, rows);
    return LS_OK;
}

static ls_status attend_strip(struct ls_row_states out, struct strip_worker *w,
                              const struct chunk *chunk, int first)
{
    const int left = chunk->rows - first;
    const int rows = left < w->products->strip ? left : w->products->strip;

    w->forest.node[0] = (struct ls_row_states){
        .m = out.m + first, .l = out.l + first, .acc = out.acc + (size_t)(first * w->pad.d_v)};
    forest_start(&w->forest, rows);
    for (int leaf = 0; leaf < chunk->leaves; leaf++) {
        const struct key_span keys = chunk->seen[leaf]
                                         ? seen_keys(strip_visible(chunk, leaf, first), rows)
                                         : (struct key_span){0};

        if (keys.first >= keys.end) {
            forest_skip(&w->forest, 1);
            continue;
        }
        LS_TRY(attend_leaf(forest_next(&w->forest), w, chunk, leaf, keys, first, rows));
        forest_push(&w->forest);
        progress_tick(chunk->clock);
    }
    forest_fold(&w->forest);
    return LS_OK;
}

ls_status cpu_strip_attend(struct ls_row_states out, struct strip_worker *w,
                           const struct chunk *chunk)
{
    ls_status status = LS_OK;

    if (w->products->begin) w->products->begin();
    for (int first = 0; first < chunk->rows && status == LS_OK; first += w->products->strip)
        status = attend_strip(out, w, chunk, first);
    if (w->products->end) w->products->end();
    return status;
}
