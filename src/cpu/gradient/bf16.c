#include "cpu/gradient/products.h"

#if defined(__x86_64__)

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cpu/gradient/bf16.h"

#define SIDES (LS_LEAF / SIDE)
#define STRIP_BYTES (SIDES * STEP_BYTES) /* 32 keys or queries by a leaf */

struct worker {
    struct head_dims pad;
    float *scores, *dp;  /* of a block */
    char *p, *ds;        /* of a strip of 32 keys, for each 32 queries: left operands */
    char *ds_right;      /* for each 32 queries, for each 32 keys */
    float *sum, *turned; /* [SIDE][pad.d or pad.d_v] of dq, dk or dv, or [pad.d][SIDE] of dq */
};

/* Floats of sum and turned. */
static size_t sum_floats(struct head_dims pad)
{
    return SIDE * (size_t)(head_dims_widest(pad) + pad.d);
}

size_t cpu_bf16_scratch_bytes(struct head_dims pad)
{
    return (2 * SIDE * SIDE + sum_floats(pad)) * sizeof(float) + (2 + SIDES) * STRIP_BYTES;
}

ls_status cpu_bf16_worker_create(void **out, ls_isa isa, struct head_dims pad, void *scratch)
{
    struct worker *w = malloc(sizeof *w);
    float *blocks = scratch;
    float *sums = blocks + 2 * SIDE * SIDE;
    char *strips = (char *)(sums + sum_floats(pad));

    (void)isa;
    if (!w) return ls_fail(LS_ENOMEM, "gradient kernel: out of memory");
    *w = (struct worker){.pad = pad,
                         .scores = blocks,
                         .dp = blocks + SIDE * SIDE,
                         .p = strips,
                         .ds = strips + STRIP_BYTES,
                         .ds_right = strips + 2 * STRIP_BYTES,
                         .sum = sums,
                         .turned = sums + SIDE * head_dims_widest(pad)};
    *out = w;
    return LS_OK;
}

static size_t leaf_bytes(int d_pad)
{
    return (size_t)LS_LEAF * (size_t)d_pad * sizeof(uint16_t);
}

/* k, v, and k transposed, as left operands */
size_t cpu_bf16_keys_bytes(struct head_dims pad)
{
    return 2 * leaf_bytes(pad.d) + leaf_bytes(pad.d_v);
}

/* q and d_o transposed, and as they are, as right operands */
size_t cpu_bf16_queries_bytes(struct head_dims pad)
{
    return 2 * (leaf_bytes(pad.d) + leaf_bytes(pad.d_v));
}

ls_status cpu_bf16_pack_keys(void *packed, void *worker, const void *k, const void *v)
{
    const struct head_dims pad = ((struct worker *)worker)->pad;
    char *to = packed;

    to = pack_by_rows(to, k, pad.d, pack_left);
    to = pack_by_rows(to, v, pad.d_v, pack_left);
    pack_by_columns(to, k, pad.d, pack_left_transposed);
    return LS_OK;
}

ls_status cpu_bf16_pack_queries(void *packed, void *worker, const void *q, const void *d_o)
{
    const struct head_dims pad = ((struct worker *)worker)->pad;
    char *to = packed;

    to = pack_by_rows(to, q, pad.d, pack_right_transposed);
    to = pack_by_rows(to, d_o, pad.d_v, pack_right_transposed);
    to = pack_by_columns(to, q, pad.d, pack_right);
    pack_by_columns(to, d_o, pad.d_v, pack_right);
    return LS_OK;
}

/* out [SIDE][d_pad] from [d_pad][SIDE] */
TARGET_AVX512 static void turn(float *out, const float *in, int d_pad)
{
    for (int query = 0; query < SIDE; query += 16) {
        for (int e = 0; e < d_pad; e += 16) {
            __m512i x[16];

#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) x[i] = _mm512_load_si512(in + (e + i) * SIDE + query);
            transpose_16x16(x);
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + (query + i) * d_pad + e, x[i]);
        }
    }
}

/* Steps of a sum from the first block that is seen to the last. */
struct steps {
    int first, end;
};

/* A tile on its way. */
struct run {
    struct tile_lanes lanes;
    struct lane_keys seen, kept; /* where all are, not set */
    struct ahead ahead;
    struct worker *w;
    const struct gradient_tile *tile;
    multiply_block *multiply;
    struct steps queries, keys[SIDES]; /* of the strip of keys, and of each strip of queries */
};

/* What becomes of a block. */
struct block {
    const struct tile_lanes *lanes;
    const struct lane_keys *seen, *kept; /* NULL: all */
    const float *scores, *dp;            /* [SIDE][SIDE] */
    char *p, *ds, *ds_right;
    int key, query;
};

/* What is of q or k and what is of d_o or v take turns in packed leaves. */
static const char *operand(const void *packed, const struct run *run, int index)
{
    const struct head_dims pad = run->w->pad;

    return (const char *)packed + (size_t)((index + 1) / 2) * leaf_bytes(pad.d) +
           (size_t)(index / 2) * leaf_bytes(pad.d_v);
}

/* Of a key and sixteen queries. */
TARGET_AVX512BF16 static inline __attribute__((always_inline)) void
pair_lanes(__m512 *p, __m512 *ds, const struct block *b, int row, int lane, bool dropped)
{
    static const float coefficient[] = EXP2_DEGREE_4;
    const struct tile_lanes *lanes = b->lanes;
    const int at = row * SIDE + lane, query = b->query + lane;
    const __mmask16 seen = b->seen ? lanes_with(b->seen, b->key + row, query) : 0xffff;
    const __mmask16 kept = dropped ? lanes_with(b->kept, b->key + row, query) : 0xffff;
    const __m512 dp =
        _mm512_fmsub_ps(_mm512_maskz_mov_ps(kept, _mm512_load_ps(b->dp + at)),
                        _mm512_set1_ps(lanes->scale), _mm512_load_ps(lanes->delta + query));
    const __m512 x = probability_512(_mm512_load_ps(b->scores + at), _mm512_set1_ps(lanes->factor),
                                     _mm512_loadu_ps(lanes->lse + query), seen, coefficient, 4);

    *p = dropped ? _mm512_maskz_mul_ps(kept, x, _mm512_set1_ps(lanes->keep)) : x;
    *ds = _mm512_maskz_mul_ps(seen, x, dp);
}

/* p and ds of a block, two keys at a time. */
TARGET_AVX512BF16 static inline __attribute__((always_inline)) void take(const struct block *b,
                                                                         bool dropped)
{
    const __m512i first_lanes =
        _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                         37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i last_lanes = _mm512_add_epi16(first_lanes, _mm512_set1_epi16(16));

    for (int row = 0; row < SIDE; row += 2) {
        __m512i ds_of[2];

#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            __m512 p[2], ds[2];

            pair_lanes(&p[0], &ds[0], b, row + i, 0, dropped);
            pair_lanes(&p[1], &ds[1], b, row + i, 16, dropped);
            ds_of[i] = (__m512i)_mm512_cvtne2ps_pbh(ds[1], ds[0]);
            _mm512_store_si512(b->p + 64 * (row + i), (__m512i)_mm512_cvtne2ps_pbh(p[1], p[0]));
            _mm512_store_si512(b->ds + 64 * (row + i), ds_of[i]);
        }
        _mm512_store_si512(b->ds_right + 32 * row,
                           _mm512_permutex2var_epi16(ds_of[0], first_lanes, ds_of[1]));
        _mm512_store_si512(b->ds_right + PACKED_BYTES + 32 * row,
                           _mm512_permutex2var_epi16(ds_of[0], last_lanes, ds_of[1]));
    }
}

TARGET_AVX512BF16 static void take_block(const struct block *b)
{
    if (b->kept)
        take(b, true);
    else
        take(b, false);
}

/* 32 keys and 32 queries. */
TARGET_AVX512BF16 static void compute_block(struct run *run, int key, int query, enum sight sight)
{
    const struct worker *w = run->w;
    const int steps = w->pad.d / SIDE, v_steps = w->pad.d_v / SIDE;
    const ptrdiff_t k = key / SIDE * STEP_BYTES, q = query / SIDE * STEP_BYTES;
    const struct block block = {
        .lanes = &run->lanes,
        .seen = sight == SEES_SOME ? &run->seen : NULL,
        .kept = run->tile->kept ? &run->kept : NULL,
        .scores = w->scores,
        .dp = w->dp,
        .p = w->p + query / SIDE * STEP_BYTES,
        .ds = w->ds + query / SIDE * STEP_BYTES,
        .ds_right = w->ds_right + query / SIDE * STRIP_BYTES + key / SIDE * STEP_BYTES,
        .key = key,
        .query = query,
    };

    run->multiply(w->scores, SIDE, operand(run->tile->keys, run, 0) + k * steps,
                  operand(run->tile->queries, run, 0) + q * steps, steps);
    run->multiply(w->dp, SIDE, operand(run->tile->keys, run, 1) + k * v_steps,
                  operand(run->tile->queries, run, 1) + q * v_steps, v_steps);
    bring_nearer(&run->ahead);
    take_block(&block);
}

/* Nobody sees anything there. */
static void clear_block(const struct run *run, int key, int query)
{
    const struct worker *w = run->w;

    memset(w->p + query / SIDE * STEP_BYTES, 0, STEP_BYTES);
    memset(w->ds + query / SIDE * STEP_BYTES, 0, STEP_BYTES);
    memset(w->ds_right + query / SIDE * STRIP_BYTES + key / SIDE * STEP_BYTES, 0, STEP_BYTES);
}

static void extend(struct steps *steps, int block)
{
    if (steps->end == 0) steps->first = block;
    steps->end = block + 1;
}

/* 32 rows of dv or dk from p or ds and from d_o or q. */
static void sum_over_queries(const struct sum_path *to, int key, const struct run *run,
                             const char *left, const char *right, int d_pad)
{
    const struct steps steps = run->queries;
    const ptrdiff_t skipped = steps.first * STEP_BYTES;
    const struct sums sum = sum_path_room(to, key, SIDE, (struct sums){run->w->sum, d_pad});

    for (int e = 0; e < d_pad; e += SIDE, right += STRIP_BYTES)
        run->multiply(sum.at + e, sum.stride, left + skipped, right + skipped,
                      steps.end - steps.first);
    cpu_sum_path_take(to, key, SIDE, sum);
}

/* 32 rows of dq. */
static void sum_over_keys(const struct run *run, int query)
{
    const struct steps steps = run->keys[query / SIDE];
    const ptrdiff_t skipped = steps.first * STEP_BYTES;
    const char *k = operand(run->tile->keys, run, 2) + skipped;
    const char *ds = run->w->ds_right + query / SIDE * STRIP_BYTES + skipped;
    const struct sums sum =
        sum_path_room(run->tile->dq, query, SIDE, (struct sums){run->w->sum, run->w->pad.d});

    for (int e = 0; e < run->w->pad.d; e += SIDE, k += STRIP_BYTES)
        run->multiply(run->w->turned + e * SIDE, SIDE, k, ds, steps.end - steps.first);
    turn(sum.at, run->w->turned, run->w->pad.d);
    cpu_sum_path_take(run->tile->dq, query, SIDE, sum);
}

static void strip_of_keys(struct run *run, int key)
{
    const struct gradient_tile *tile = run->tile;
    const struct worker *w = run->w;

    run->queries = (struct steps){0};
    for (int query = 0; query < LS_LEAF; query += SIDE) {
        const enum sight sight = tile->visible ? lanes_sight(&run->seen, key, query) : SEES_ALL;

        if (sight == SEES_NOTHING) {
            clear_block(run, key, query);
            continue;
        }
        compute_block(run, key, query, sight);
        extend(&run->queries, query / SIDE);
        extend(&run->keys[query / SIDE], key / SIDE);
    }
    sum_over_queries(tile->dv, key, run, w->p, operand(tile->queries, run, 3), w->pad.d_v);
    sum_over_queries(tile->dk, key, run, w->ds, operand(tile->queries, run, 2), w->pad.d);
}

void cpu_bf16_tile(void *worker, const struct gradient_tile *tile, multiply_block *multiply)
{
    struct run run = {.w = worker,
                      .tile = tile,
                      .multiply = multiply,
                      .ahead = ahead_of_tile(tile, SIDES * SIDES)};

    lanes_of_tile(&run.lanes, tile);
    if (tile->visible) lane_keys(&run.seen, tile->visible);
    if (tile->kept) lane_keys(&run.kept, tile->kept);
    for (int key = 0; key < LS_LEAF; key += SIDE) {
        strip_of_keys(&run, key);
        progress_tick(tile->clock);
    }
    for (int query = 0; query < LS_LEAF; query += SIDE) sum_over_keys(&run, query);
}

#endif
