/* Backward's tile in f32 by AVX-512. Against oneDNN's products: probabilities and gradients of
 * scores are taken while the sums they come from are in registers, blocks of 64 keys by 64 queries
 * stay in the first-level cache, and blocks that nobody sees are left out. */
#include "cpu/gradient_products.h"

#if defined(__x86_64__)

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cpu/gradient_avx512.h"
#include "cpu/pack_f32.h"

#define BLOCK 64 /* keys, and queries */
#define BLOCKS (LS_LEAF / BLOCK)
#define ROWS 8                                   /* of a product in registers */
#define PARTS (2 * BLOCK / ROWS * BLOCK / PANEL) /* of scores and dp of a block */

/* What a leaf is packed into: for each 64 rows k, and k and v transposed, or q and d_o, in panels
 * of 32 columns, [columns / 32][rows][32]. So what the next block needs comes next; and queries,
 * which pass by for each chunk of keys, are there but once. */
static size_t block_floats(int d_pad)
{
    return (size_t)BLOCK * (size_t)d_pad;
}

static size_t keys_bytes(int d_pad)
{
    return BLOCKS * 3 * block_floats(d_pad) * sizeof(float);
}

static size_t queries_bytes(int d_pad)
{
    return BLOCKS * 2 * block_floats(d_pad) * sizeof(float);
}

/* A thread's own. */
struct worker {
    int d_pad;
    float *dk, *dv; /* [BLOCK][d_pad] */
    float *dq;      /* [LS_LEAF][d_pad] */
};

static size_t scratch_bytes(int d_pad)
{
    return (2 + BLOCKS) * block_floats(d_pad) * sizeof(float);
}

static ls_status create(void **out, ls_isa isa, int d_pad, void *scratch)
{
    struct worker *w = malloc(sizeof *w);
    float *sums = scratch;

    (void)isa;
    if (!w) return ls_fail(LS_ENOMEM, "gradient kernel: out of memory");
    *w = (struct worker){.d_pad = d_pad,
                         .dk = sums,
                         .dv = sums + block_floats(d_pad),
                         .dq = sums + 2 * block_floats(d_pad)};
    *out = w;
    return LS_OK;
}

static ls_status pack_keys(void *packed, void *worker, const void *k, const void *v)
{
    const int d_pad = ((struct worker *)worker)->d_pad;
    float *to = packed;

    for (int row = 0; row < LS_LEAF; row += BLOCK) {
        to = pack_panels(to, (const float *)k + row * d_pad, BLOCK, d_pad);
        to = pack_transposed(to, (const float *)k + row * d_pad, BLOCK, d_pad);
        to = pack_transposed(to, (const float *)v + row * d_pad, BLOCK, d_pad);
    }
    return LS_OK;
}

static ls_status pack_queries(void *packed, void *worker, const void *q, const void *d_o)
{
    const int d_pad = ((struct worker *)worker)->d_pad;
    float *to = packed;

    for (int row = 0; row < LS_LEAF; row += BLOCK) {
        to = pack_panels(to, (const float *)q + row * d_pad, BLOCK, d_pad);
        to = pack_panels(to, (const float *)d_o + row * d_pad, BLOCK, d_pad);
    }
    return LS_OK;
}

/* A block on its way. */
struct block {
    float p[BLOCK * BLOCK], ds[BLOCK * BLOCK]; /* [query][key] */
    struct tile_lanes lanes;
    bool masked;
    bool keys_begun, queries_begun[BLOCKS]; /* whether their sums have been written */
    int d_pad, key, query;
    struct sums dk, dv, dq; /* of the block's keys; of all queries */
    struct ahead ahead;
} __attribute__((aligned(64)));

/* sum += left x right: element (r, i) of left is at r row + i step, row i of right at 32 i. */
TARGET_AVX512 static inline __attribute__((always_inline)) void
multiply(__m512 sum[ROWS][2], const float *left, int row, int step, const float *right, int depth)
{
#pragma GCC unroll 2
    for (int i = 0; i < depth; i++, left += step, right += PANEL) {
        const __m512 b0 = _mm512_load_ps(right), b1 = _mm512_load_ps(right + 16);

#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            const __m512 a = _mm512_set1_ps(left[r * row]);
            sum[r][0] = _mm512_fmadd_ps(a, b0, sum[r][0]);
            sum[r][1] = _mm512_fmadd_ps(a, b1, sum[r][1]);
        }
    }
}

/* Eight rows, 32 columns each panel, against 32 keys. */
TARGET_AVX512 static inline __attribute__((always_inline)) void
multiply_heads(__m512 sum[ROWS][2], const float *rows, const float *keys, int d_pad)
{
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    for (int e = 0; e < d_pad; e += PANEL, rows += BLOCK * PANEL, keys += PANEL * PANEL)
        multiply(sum, rows, PANEL, 1, keys, PANEL);
}

TARGET_AVX512 static inline __attribute__((always_inline)) void
block_p(struct block *b, int row, int column, const float *q, const float *k)
{
    static const float coefficient[] = EXP2_DEGREE_5;
    const __m512 factor = _mm512_set1_ps(b->lanes.factor);
    __m512 sum[ROWS][2];

    multiply_heads(sum, q + row * PANEL, k + column * b->d_pad, b->d_pad);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
        const int query = b->query + row + r;
        const __m512 lse = _mm512_set1_ps(b->lanes.lse[query]);

#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const int at = column + 16 * half;
            const __mmask16 seen =
                b->masked ? seen_mask((b->key + at) / 16, keys_of_query(&b->lanes, query)) : 0xffff;

            _mm512_store_ps(b->p + (row + r) * BLOCK + at,
                            probability_512(sum[r][half], factor, lse, seen, coefficient, 5));
        }
    }
}

TARGET_AVX512 static inline __attribute__((always_inline)) void
block_ds(struct block *b, int row, int column, const float *d_o, const float *v)
{
    const __m512 scale = _mm512_set1_ps(b->lanes.scale);
    __m512 sum[ROWS][2];

    multiply_heads(sum, d_o + row * PANEL, v + column * b->d_pad, b->d_pad);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
        const __m512 delta = _mm512_set1_ps(b->lanes.delta[b->query + row + r]);

#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const int at = (row + r) * BLOCK + column + 16 * half;
            _mm512_store_ps(b->ds + at, _mm512_mul_ps(_mm512_load_ps(b->p + at),
                                                      _mm512_fmsub_ps(sum[r][half], scale, delta)));
        }
    }
}

/* out [BLOCK][d_pad] = left x right, in panels, or added to it. */
TARGET_AVX512 static inline __attribute__((always_inline)) void
add_product(float *out, bool add, const float *left, int row, int step, const float *right,
            int d_pad)
{
    for (int column = 0; column < d_pad; column += PANEL, right += BLOCK * PANEL) {
        for (int first = 0; first < BLOCK; first += ROWS) {
            float *to = out + first * d_pad + column;
            __m512 sum[ROWS][2];

#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
            multiply(sum, left + first * row, row, step, right, BLOCK);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++, to += d_pad) {
                if (add) {
                    sum[r][0] = _mm512_add_ps(_mm512_loadu_ps(to), sum[r][0]);
                    sum[r][1] = _mm512_add_ps(_mm512_loadu_ps(to + 16), sum[r][1]);
                }
                _mm512_storeu_ps(to, sum[r][0]);
                _mm512_storeu_ps(to + 16, sum[r][1]);
            }
        }
    }
}

TARGET_AVX512 static void compute_block(struct block *b, const struct gradient_tile *tile)
{
    const size_t part = block_floats(b->d_pad);
    const float *k = (const float *)tile->keys + b->key / BLOCK * 3 * part;
    const float *k_t = k + part, *v_t = k_t + part;
    const float *q = (const float *)tile->queries + b->query / BLOCK * 2 * part, *d_o = q + part;

    for (int column = 0; column < BLOCK; column += PANEL) {
        for (int row = 0; row < BLOCK; row += ROWS) {
            block_p(b, row, column, q, k_t);
            bring_nearer(&b->ahead);
        }
        for (int row = 0; row < BLOCK; row += ROWS) {
            block_ds(b, row, column, d_o, v_t);
            bring_nearer(&b->ahead);
        }
    }
    bool *query_begun = &b->queries_begun[b->query / BLOCK];
    add_product(b->dv.at, b->keys_begun, b->p, 1, BLOCK, d_o, b->d_pad);
    add_product(b->dk.at, b->keys_begun, b->ds, 1, BLOCK, q, b->d_pad);
    add_product(b->dq.at + b->query * b->d_pad, *query_begun, b->ds, BLOCK, 1, k, b->d_pad);
    b->keys_begun = *query_begun = true;
}

/* Rows [first, first + BLOCK) of dq, dk or dv; zero if no pair of them is seen. */
static void hand_over(const struct sum_path *to, int first, struct sums sum, bool begun)
{
    if (!begun) memset(sum.at, 0, block_floats((int)sum.stride) * sizeof *sum.at);
    sum_path_take(to, first, BLOCK, sum);
}

static ls_status compute_tile(void *worker, const struct gradient_tile *tile)
{
    const struct worker *w = worker;
    struct block b = {.d_pad = w->d_pad, .ahead = ahead_of_tile(tile, BLOCKS * BLOCKS * PARTS)};

    lanes_of_tile(&b.lanes, tile);
    b.dq = sum_path_room(tile->dq, 0, LS_LEAF, (struct sums){w->dq, w->d_pad});
    for (b.key = 0; b.key < tile->key_count; b.key += BLOCK) {
        b.keys_begun = false;
        b.dk = sum_path_room(tile->dk, b.key, BLOCK, (struct sums){w->dk, w->d_pad});
        b.dv = sum_path_room(tile->dv, b.key, BLOCK, (struct sums){w->dv, w->d_pad});
        for (b.query = 0; b.query < tile->rows; b.query += BLOCK) {
            const enum sight sight = block_sight(&b.lanes, b.key, BLOCK, b.query, BLOCK);

            if (sight == SEES_NOTHING) continue;
            b.masked = sight == SEES_SOME;
            compute_block(&b, tile);
            progress_tick(tile->clock);
        }
        hand_over(tile->dv, b.key, b.dv, b.keys_begun);
        hand_over(tile->dk, b.key, b.dk, b.keys_begun);
    }
    for (int query = 0; query < tile->rows; query += BLOCK)
        hand_over(tile->dq, query, (struct sums){b.dq.at + query * w->d_pad, w->d_pad},
                  b.queries_begun[query / BLOCK]);
    return LS_OK;
}

static bool fits(ls_isa isa, ls_dtype storage, const struct ls_scores *scores)
{
    (void)storage;
    return isa >= LS_ISA_AVX512 && ls_scores_are_plain(scores);
}

const struct gradient_products gradient_avx512 = {
    .name = "AVX-512 f32 blocks",
    .type = LS_F32,
    .d_multiple = PANEL,
    .fits = fits,
    .keys_bytes = keys_bytes,
    .queries_bytes = queries_bytes,
    .scratch_bytes = scratch_bytes,
    .create = create,
    .destroy = free,
    .pack_keys = pack_keys,
    .pack_queries = pack_queries,
    .tile = compute_tile,
};

#else
const struct gradient_products gradient_avx512 = {.name = "AVX-512 f32 blocks",
                                                  .fits = gradient_fits_never};
#endif
