/* Backward's tile from the products of gemm.h and plain C: every instruction set, type and option.
 * Scores are taken transposed, keys in rows and queries in lanes, so that p^T and ds^T are
 * operands as they come. A product is always one of two shapes and a row stands at the same place
 * in it, so a row's bits cannot depend on what is beside it. */
#include <stdlib.h>

#include "base/cpu.h"
#include "base/status.h"
#include "cpu/carve.h"
#include "cpu/gemm.h"
#include "cpu/gradient/gradient.h"
#include "cpu/gradient/pair.h"
#include "tensor/dtype.h"

#define STRIP 64

/* Products of rows of so many elements. */
struct of_width {
    int d_pad;
    struct gemm *scores; /* [STRIP, d] x [d, 256] */
    struct gemm *sums;   /* [STRIP, 256] x [256, d] */
};

struct portable_worker {
    ls_dtype type;
    struct head_dims pad;
    struct of_width keys, values; /* with q or k, with d_o or v */
    void *scratch;
    float *score, *dp; /* [STRIP][LS_LEAF] */
    float *bias;       /* the same, of what is added behind the soft cap */
    char *p;           /* [STRIP][LS_LEAF] of p^T */
    char *ds_t;        /* [STRIP][LS_LEAF] of ds^T */
    char *ds;          /* [LS_LEAF][LS_LEAF] */
    float *sum;        /* [STRIP][pad.d or pad.d_v] of dq, dk or dv */
};

static size_t row_bytes(ls_dtype type, int d_pad)
{
    return (size_t)d_pad * (size_t)ls_dtype_size(type);
}

/* oneDNN pads a packed operand to blocks of at most 64. */
static size_t packed_bytes(ls_dtype type, int d_pad)
{
    return LS_LEAF * row_bytes(type, (d_pad + 63) / 64 * 64);
}

/* k and v as they are, k packed */
static size_t keys_bytes(ls_dtype type, struct head_dims pad)
{
    return LS_LEAF * row_bytes(type, pad.d + pad.d_v) + packed_bytes(type, pad.d);
}

/* q and d_o, each packed transposed and as they are */
static size_t queries_bytes(ls_dtype type, struct head_dims pad)
{
    return 2 * (packed_bytes(type, pad.d) + packed_bytes(type, pad.d_v));
}

static size_t place(struct portable_worker *w, char *base)
{
    struct cursor cursor = {.base = base};
    const size_t element = (size_t)ls_dtype_size(w->type);

    w->scratch = carve(&cursor, GEMM_SCRATCH);
    w->score = carve(&cursor, STRIP * LS_LEAF * sizeof *w->score);
    w->dp = carve(&cursor, STRIP * LS_LEAF * sizeof *w->dp);
    w->bias = carve(&cursor, STRIP * LS_LEAF * sizeof *w->bias);
    w->p = carve(&cursor, STRIP * LS_LEAF * element);
    w->ds_t = carve(&cursor, STRIP * LS_LEAF * element);
    w->ds = carve(&cursor, LS_LEAF * LS_LEAF * element);
    w->sum = carve(&cursor, STRIP * (size_t)head_dims_widest(w->pad) * sizeof *w->sum);
    return cursor.used;
}

static size_t scratch_bytes(ls_dtype type, struct head_dims pad)
{
    struct portable_worker w = {.type = type, .pad = pad};

    return place(&w, NULL);
}

static ls_status create_product(struct gemm **out, ls_dtype type, int d_pad,
                                const struct gemm_shape *shape)
{
    LS_TRY(cpu_gemm_create(out, type, shape));
    if (cpu_gemm_packed_bytes(*out) > packed_bytes(type, d_pad))
        return ls_fail(LS_EINTERNAL,
                       GEMM_NAME " packs a leaf of head dim %d into %zu bytes, not %zu", d_pad,
                       cpu_gemm_packed_bytes(*out), packed_bytes(type, d_pad));
    return LS_OK;
}

static void destroy(void *worker)
{
    struct portable_worker *w = worker;

    cpu_gemm_destroy(w->values.sums);
    cpu_gemm_destroy(w->values.scores);
    cpu_gemm_destroy(w->keys.sums);
    cpu_gemm_destroy(w->keys.scores);
    free(w);
}

static ls_status create_products(struct of_width *out, ls_dtype type, int d_pad)
{
    const struct gemm_shape scores = {.m = STRIP,
                                      .n = LS_LEAF,
                                      .k = d_pad,
                                      .a_stride = d_pad,
                                      .b_stride = d_pad,
                                      .transposed = true};
    const struct gemm_shape sums = {
        .m = STRIP, .n = d_pad, .k = LS_LEAF, .a_stride = LS_LEAF, .b_stride = d_pad};

    out->d_pad = d_pad;
    LS_TRY(create_product(&out->scores, type, d_pad, &scores));
    return create_product(&out->sums, type, d_pad, &sums);
}

static ls_status create(void **out, ls_isa isa, struct head_dims pad, void *scratch, ls_dtype type)
{
    struct portable_worker *w = calloc(1, sizeof *w);
    ls_status status;

    if (!w) return ls_fail(LS_ENOMEM, "gradient kernel: out of memory");
    w->type = type;
    w->pad = pad;
    place(w, scratch);
    cpu_gemm_limit_isa(isa);
    LS_TRY_GOTO(status, create_products(&w->keys, type, pad.d), free_worker);
    LS_TRY_GOTO(status, create_products(&w->values, type, pad.d_v), free_worker);
    *out = w;
    return LS_OK;
free_worker:
    destroy(w);
    return status;
}

static ls_status pack_keys(void *packed, void *worker, const void *k, const void *v)
{
    struct portable_worker *w = worker;
    const size_t k_bytes = LS_LEAF * row_bytes(w->type, w->pad.d);
    const size_t v_bytes = LS_LEAF * row_bytes(w->type, w->pad.d_v);
    char *to = packed;

    memcpy(to, k, k_bytes);
    memcpy(to + k_bytes, v, v_bytes);
    return cpu_gemm_pack(to + k_bytes + v_bytes, w->keys.sums, k);
}

static ls_status pack_queries(void *packed, void *worker, const void *q, const void *d_o)
{
    struct portable_worker *w = worker;
    const size_t q_bytes = packed_bytes(w->type, w->pad.d);
    const size_t both = q_bytes + packed_bytes(w->type, w->pad.d_v);
    char *to = packed;

    LS_TRY(cpu_gemm_pack(to, w->keys.scores, q));
    LS_TRY(cpu_gemm_pack(to + q_bytes, w->values.scores, d_o));
    LS_TRY(cpu_gemm_pack(to + both, w->keys.sums, q));
    return cpu_gemm_pack(to + both + q_bytes, w->values.sums, d_o);
}

/* Row `key` of the tile: p takes the place of scores and ds of dp. */
LS_CLONED static void plain_row(float *score, float *dp, const struct gradient_tile *tile)
{
    const float *lse = tile->lse, *delta = tile->delta;
    const float scale = tile->scale;

#pragma omp simd
    for (int i = 0; i < LS_LEAF; i++) {
        const struct gradient_pair pair =
            gradient_of_plain(score[i], dp[i], lse[i], delta[i], scale);

        score[i] = pair.p;
        dp[i] = pair.ds;
    }
}

/* The same with biases; dlogit [LS_LEAF] besides. */
LS_CLONED static void biased_row(float *score, float *dp, float *dlogit, const float *bias,
                                 const struct gradient_tile *tile)
{
    const float *lse = tile->lse, *delta = tile->delta;
    const float scale = tile->scale;

#pragma omp simd
    for (int i = 0; i < LS_LEAF; i++) {
        const struct gradient_pair pair =
            gradient_of_biased(score[i], dp[i], lse[i], delta[i], scale, bias[i]);

        score[i] = pair.p;
        dp[i] = pair.ds;
        dlogit[i] = pair.dlogit;
    }
}

static void bent_row(float *score, float *dp, float *dlogit, const float *bias,
                     const struct gradient_tile *tile, int key)
{
    for (int i = 0; i < tile->rows; i++) {
        if (!gradient_tile_sees(tile, i, key)) continue;
        const struct gradient_pair pair =
            gradient_of_pair(score[i], dp[i], tile->lse[i], tile->delta[i], tile->scores,
                             tile->scale, bias[i], gradient_tile_keeps(tile, i, key));

        score[i] = pair.p;
        dp[i] = pair.ds;
        dlogit[i] = pair.dlogit;
    }
}

/* To the biases by distance, unless the key counts elsewhere. */
static void note_row(const float *dlogit, const struct gradient_tile *tile, int key)
{
    if (!tile->distance || (tile->left_out && tile->left_out[key])) return;
    for (int i = 0; i < tile->rows; i++)
        if (gradient_tile_sees(tile, i, key))
            gradient_tile_note(tile, gradient_tile_distance(tile, i, key), dlogit[i]);
}

static void scored_row(float *score, float *dp, const float *bias, const struct gradient_tile *tile,
                       int key)
{
    float dlogit[LS_LEAF];

    if (tile->scores->soft_cap == 0 && !tile->kept)
        biased_row(score, dp, dlogit, bias, tile);
    else
        bent_row(score, dp, dlogit, bias, tile, key);
    note_row(dlogit, tile, key);
}

/* Whatever stands at pairs that are not seen becomes 0. */
static void mask_row(float *score, float *dp, const struct gradient_tile *tile, int key)
{
    for (int i = 0; i < LS_LEAF; i++) {
        const bool seen = i < tile->rows && gradient_tile_sees(tile, i, key);

        score[i] = seen ? score[i] : 0.0f;
        dp[i] = seen ? dp[i] : 0.0f;
    }
}

/* ds^T becomes columns of ds, a few rows of these at a time. */
static void transpose(void *out, const void *in, ls_dtype type, int first)
{
    for (int rows = 0; rows < LS_LEAF; rows += 16)
        for (int j = 0; j < STRIP; j++)
            for (int i = rows; i < rows + 16; i++)
                if (type == LS_BF16)
                    ((uint16_t *)out)[i * LS_LEAF + first + j] =
                        ((const uint16_t *)in)[j * LS_LEAF + i];
                else
                    ((float *)out)[i * LS_LEAF + first + j] = ((const float *)in)[j * LS_LEAF + i];
}

/* Keys [first, first + STRIP) of the tile: p^T and ds^T, and ds into its columns. */
static void strip_gradients(struct portable_worker *w, const struct gradient_tile *tile, int first)
{
    const bool plain = ls_scores_are_plain(tile->scores);

    if (!plain) cpu_gradient_biases(w->bias, tile, first, STRIP);
    for (int j = 0; j < STRIP; j++) {
        float *score = w->score + j * LS_LEAF, *dp = w->dp + j * LS_LEAF;

        if (plain)
            plain_row(score, dp, tile);
        else
            scored_row(score, dp, w->bias + j * LS_LEAF, tile, first + j);
        if (!plain || tile->visible || first + j >= tile->key_count)
            mask_row(score, dp, tile, first + j);
        if (j % 16 == 15) progress_tick(tile->clock);
    }
    ls_dtype_convert(w->p, w->type, w->score, LS_F32, STRIP * LS_LEAF);
    ls_dtype_convert(w->ds_t, w->type, w->dp, LS_F32, STRIP * LS_LEAF);
    transpose(w->ds, w->ds_t, w->type, first);
}

static ls_status multiply(float *c, struct portable_worker *w, struct gemm *gemm, const void *a,
                          const void *packed, const struct gradient_tile *tile)
{
    LS_TRY(cpu_gemm_run(c, gemm, a, packed, w->scratch));
    progress_tick(tile->clock);
    return LS_OK;
}

/* Rows [first, first + STRIP) of dq, dk or dv. */
static ls_status sum_strip(const struct sum_path *to, int first, struct portable_worker *w,
                           const struct of_width *with, const void *a, const void *packed,
                           const struct gradient_tile *tile)
{
    LS_TRY(multiply(w->sum, w, with->sums, a, packed, tile));
    cpu_sum_path_take(to, first, STRIP, (struct sums){w->sum, with->d_pad});
    return LS_OK;
}

static ls_status tile_strip(struct portable_worker *w, const struct gradient_tile *tile, int first)
{
    const size_t k_row = row_bytes(w->type, w->pad.d), v_row = row_bytes(w->type, w->pad.d_v);
    const size_t q_packed = packed_bytes(w->type, w->pad.d);
    const size_t both = q_packed + packed_bytes(w->type, w->pad.d_v);
    const char *k = (const char *)tile->keys + (size_t)first * k_row;
    const char *v = (const char *)tile->keys + LS_LEAF * k_row + (size_t)first * v_row;
    const char *q = tile->queries, *d_o = q + q_packed;

    LS_TRY(multiply(w->score, w, w->keys.scores, k, q, tile));
    LS_TRY(multiply(w->dp, w, w->values.scores, v, d_o, tile));
    strip_gradients(w, tile, first);
    LS_TRY(sum_strip(tile->dk, first, w, &w->keys, w->ds_t, q + both, tile));
    return sum_strip(tile->dv, first, w, &w->values, w->p, d_o + both, tile);
}

static ls_status tile(void *worker, const struct gradient_tile *tile)
{
    struct portable_worker *w = worker;
    const char *k = (const char *)tile->keys + LS_LEAF * row_bytes(w->type, w->pad.d + w->pad.d_v);

    for (int first = 0; first < LS_LEAF; first += STRIP) LS_TRY(tile_strip(w, tile, first));
    for (int first = 0; first < LS_LEAF; first += STRIP)
        LS_TRY(sum_strip(tile->dq, first, w, &w->keys,
                         w->ds + (size_t)first * row_bytes(w->type, LS_LEAF), k, tile));
    return LS_OK;
}

/* clang-format off */
#define OF_TYPE(name, type_)                                                                       \
    static size_t keys_bytes_##name(struct head_dims pad) { return keys_bytes(type_, pad); }       \
    static size_t queries_bytes_##name(struct head_dims pad) { return queries_bytes(type_, pad); } \
    static size_t scratch_bytes_##name(struct head_dims pad) { return scratch_bytes(type_, pad); } \
    static ls_status create_##name(void **out, ls_isa isa, struct head_dims pad, void *scratch)    \
    {                                                                                              \
        return create(out, isa, pad, scratch, type_);                                              \
    }
/* clang-format on */

OF_TYPE(bf16, LS_BF16)
OF_TYPE(f32, LS_F32)

static bool fits_bf16(ls_isa isa, ls_dtype storage, const struct ls_scores *scores)
{
    (void)scores;
    return storage == LS_BF16 && cpu_gemm_has_type(isa, LS_BF16) && ls_cpu_bf16_pays(isa);
}

static bool fits_any(ls_isa isa, ls_dtype storage, const struct ls_scores *scores)
{
    (void)isa;
    (void)storage;
    (void)scores;
    return true;
}

const struct gradient_products cpu_gradient_portable_bf16 = {
    .name = GEMM_NAME " bf16 gradient products",
    .type = LS_BF16,
    .d_multiple = 16,
    .fits = fits_bf16,
    .keys_bytes = keys_bytes_bf16,
    .queries_bytes = queries_bytes_bf16,
    .scratch_bytes = scratch_bytes_bf16,
    .create = create_bf16,
    .destroy = destroy,
    .pack_keys = pack_keys,
    .pack_queries = pack_queries,
    .tile = tile,
};

const struct gradient_products cpu_gradient_portable_f32 = {
    .name = GEMM_NAME " f32 gradient products",
    .type = LS_F32,
    .d_multiple = 16,
    .fits = fits_any,
    .keys_bytes = keys_bytes_f32,
    .queries_bytes = queries_bytes_f32,
    .scratch_bytes = scratch_bytes_f32,
    .create = create_f32,
    .destroy = destroy,
    .pack_keys = pack_keys,
    .pack_queries = pack_queries,
    .tile = tile,
};
