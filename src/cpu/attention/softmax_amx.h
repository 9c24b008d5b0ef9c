/* From scores to probabilities block by block, as tiles complete them: which rows begin in a block,
 * where their exponents are counted from, and exponentials that are taken a row at a time, between
 * the tile products of the next block. For products_amx.c. */
#ifndef LS_CPU_ATTENTION_SOFTMAX_AMX_H
#define LS_CPU_ATTENTION_SOFTMAX_AMX_H

#include <math.h>

#include "cpu/amx_tiles.h"
#include "cpu/simd.h"
#include "cpu/softmax_avx512.h"

#define STRIP 32   /* two tiles of rows */
#define COLUMNS 32 /* two tiles of columns */
#define BLOCKS (LS_LEAF / COLUMNS)
#define P_STRIDE (LS_LEAF + 32)

/* A strip on its way from scores to probabilities. */
struct softmax_strip {
    float block[2][STRIP * COLUMNS]; /* scores of 32 keys: one being written, one being read */
    float sum[STRIP][16];            /* lanes */
    float m[STRIP], origin[STRIP];   /* 0 for a row that sees nothing */
    float factor[LS_LEAF];      /* of scores, if there are any: the scale times that of a key */
    uint32_t starts[BLOCKS];    /* rows, as bits, whose first key is in the block */
    struct ls_leaf_keys common; /* keys that each row sees */
    const struct softmax_rows *rows;
} __attribute__((aligned(64)));

/* What multiplies scores and probabilities: one scale; factors of keys for scores; and for both. */
enum factors { ONE_SCALE, OF_KEYS, OF_KEYS_AND_VALUES };

static inline enum factors factors_of_rows(const struct softmax_rows *rows)
{
    return rows->p_factor ? OF_KEYS_AND_VALUES : rows->s_factor ? OF_KEYS : ONE_SCALE;
}

/* Rows of a block whose exponentials are still to be taken. */
struct pending {
    struct softmax_strip *strip;
    const float *s;
    uint16_t *p;
    int row, end;
    int key; /* the block's first */
};

static inline struct pending pending_block(struct softmax_strip *strip, int block)
{
    return (struct pending){.strip = strip,
                            .s = strip->block[block % 2],
                            .p = (uint16_t *)strip->rows->p + block * COLUMNS,
                            .end = strip->rows->rows > 16 ? 32 : 16,
                            .key = block * COLUMNS};
}

/* Those of a block's keys. */
struct block_factors {
    __m512 s[2], p[2];
};

TARGET_AMX static inline __attribute__((always_inline)) struct block_factors
block_factors(const struct softmax_strip *strip, int key, enum factors factors)
{
    const __m512 scale = _mm512_set1_ps(strip->rows->scale);
    struct block_factors out = {.s = {scale, scale}};

    for (int i = 0; i < 2 && factors != ONE_SCALE; i++) {
        const int at = key + 16 * i;

        out.s[i] = _mm512_load_ps(strip->factor + at);
        if (factors == OF_KEYS_AND_VALUES) out.p[i] = _mm512_loadu_ps(strip->rows->p_factor + at);
    }
    return out;
}

/* Of the next row, of which the keys in `seen` are visible. */
TARGET_AMX static inline __attribute__((always_inline)) void
exponentials(struct pending *pending, const __mmask16 seen[2], const struct block_factors *of,
             enum factors factors)
{
    static const float coefficient[] = EXP2_DEGREE_4;
    const struct softmax_strip *strip = pending->strip;
    const int row = pending->row++;
    const __m512 origin = _mm512_set1_ps(strip->origin[row]);
    float *sum = pending->strip->sum[row];
    __m512 x[2];

    for (int i = 0; i < 2; i++) {
        const __m512 s = _mm512_load_ps(pending->s + row * COLUMNS + 16 * i);
        x[i] = _mm512_fmsub_ps(s, of->s[i], origin);
        if (seen) x[i] = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), seen[i], x[i]);
        x[i] = exp2_512(x[i], coefficient, 4);
    }
    _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), _mm512_add_ps(x[0], x[1])));
    if (factors == OF_KEYS_AND_VALUES) {
        x[0] = _mm512_maskz_mul_ps(seen ? seen[0] : 0xffff, x[0], of->p[0]);
        x[1] = _mm512_maskz_mul_ps(seen ? seen[1] : 0xffff, x[1], of->p[1]);
    }
    _mm512_store_si512(pending->p + row * P_STRIDE, (__m512i)_mm512_cvtne2ps_pbh(x[1], x[0]));
}

TARGET_AMX static inline __attribute__((always_inline)) void take(struct pending *pending, int rows,
                                                                  enum factors factors)
{
    if (rows == 0 || pending->row >= pending->end) return;
    const struct block_factors of = block_factors(pending->strip, pending->key, factors);

    for (int i = 0; i < rows && pending->row < pending->end; i++)
        exponentials(pending, NULL, &of, factors);
}

TARGET_AMX static void set_factors(struct softmax_strip *strip)
{
    const float *of_keys = strip->rows->s_factor;
    const __m512 scale = _mm512_set1_ps(strip->rows->scale);

    for (int key = 0; key < LS_LEAF; key += 16) {
        const __m512 factor =
            of_keys ? _mm512_mul_ps(_mm512_loadu_ps(of_keys + key), scale) : scale;
        _mm512_store_ps(strip->factor + key, factor);
    }
}

/* Nothing has been seen yet; which block starts which rows, and what all of them see. */
TARGET_AMX static __attribute__((noinline)) void open_strip(struct softmax_strip *strip,
                                                            const struct softmax_rows *rows)
{
    struct ls_leaf_keys *common = &strip->common;

    strip->rows = rows;
    *common = ls_leaf_keys_first[LS_LEAF];
    memset(strip->starts, 0, sizeof strip->starts);
    if (!rows->visible) strip->starts[0] = UINT32_MAX;
    for (int row = 0; row < rows->rows && rows->visible; row++) {
        const struct ls_leaf_keys *seen = keys_of_row(rows, row);
        const int first = ls_leaf_keys_next(seen, 0, true);

        if (first < LS_LEAF) strip->starts[first / COLUMNS] |= UINT32_C(1) << row;
        for (int i = 0; i < LS_LEAF_WORDS; i++) common->word[i] &= seen->word[i];
    }
    for (int first = 0; first < STRIP; first += GROUP) {
        _mm512_store_ps(strip->m + first, _mm512_set1_ps(-INFINITY));
        _mm512_store_ps(strip->origin + first, _mm512_setzero_ps());
    }
    for (int row = 0; row < STRIP; row++) _mm512_store_ps(strip->sum[row], _mm512_setzero_ps());
    if (factors_of_rows(rows) != ONE_SCALE) set_factors(strip);
}

static inline bool all_see(const struct softmax_strip *strip, int block)
{
    return seen_pair(block, &strip->common) == UINT32_MAX;
}

/* Exponents are counted from the largest score of a row's first 32 keys: those of the first block
 * in which it sees one. */
TARGET_AMX static __attribute__((noinline)) void start_rows(struct softmax_strip *strip, int block)
{
    const struct softmax_rows *rows = strip->rows;
    const bool whole = all_see(strip, block), scaled = rows->s_factor != NULL;
    const struct block_factors of =
        block_factors(strip, block * COLUMNS, scaled ? OF_KEYS : ONE_SCALE);
    const __m512 nothing = _mm512_set1_ps(-INFINITY);

    for (int first = 0; first < rows->rows; first += GROUP) {
        const __mmask16 starts = (__mmask16)(strip->starts[block] >> first);
        __m512 top[GROUP];

        if (!starts) continue;
        for (int i = 0; i < GROUP; i++) {
            const float *s = strip->block[block % 2] + (first + i) * COLUMNS;
            __m512 x[] = {_mm512_load_ps(s), _mm512_load_ps(s + 16)};

            if (scaled) {
                x[0] = _mm512_mul_ps(x[0], of.s[0]);
                x[1] = _mm512_mul_ps(x[1], of.s[1]);
            }

            if (!whole && first + i < rows->rows) {
                const __mmask32 seen = seen_pair(block, keys_of_row(rows, first + i));
                x[0] = _mm512_mask_mov_ps(nothing, (__mmask16)seen, x[0]);
                x[1] = _mm512_mask_mov_ps(nothing, (__mmask16)(seen >> 16), x[1]);
            }
            top[i] = _mm512_max_ps(x[0], x[1]);
        }
        const __m512 highest = maximum_of_rows(top);
        const __mmask16 some = starts & _mm512_cmp_ps_mask(highest, nothing, _CMP_NEQ_UQ);
        const __m512 m = scaled ? highest : _mm512_mul_ps(highest, _mm512_set1_ps(rows->scale));
        _mm512_mask_store_ps(strip->m + first, some, m);
        _mm512_mask_store_ps(strip->origin + first, some, m);
    }
}

TARGET_AMX static inline __attribute__((always_inline)) void
take_seen(struct softmax_strip *strip, int block, enum factors factors)
{
    struct pending pending = pending_block(strip, block);
    const struct block_factors of = block_factors(strip, pending.key, factors);

    while (pending.row < strip->rows->rows) {
        const __mmask32 seen = seen_pair(block, keys_of_row(strip->rows, pending.row));
        exponentials(&pending, (const __mmask16[]){(__mmask16)seen, (__mmask16)(seen >> 16)}, &of,
                     factors);
    }
}

/* All rows, each with the keys of the block that it sees. Apart, so that masks take no registers of
 * the blocks that all rows see. */
TARGET_AMX static __attribute__((noinline)) void take_masked(struct softmax_strip *strip, int block)
{
    take_seen(strip, block, ONE_SCALE);
}

TARGET_AMX static __attribute__((noinline)) void
take_masked_with_factors(struct softmax_strip *strip, int block)
{
    if (strip->rows->p_factor)
        take_seen(strip, block, OF_KEYS_AND_VALUES);
    else
        take_seen(strip, block, OF_KEYS);
}

/* The scores of one block are complete: its rows are pending then, or done already if some do not
 * see the whole block. */
TARGET_AMX static inline __attribute__((always_inline)) struct pending
complete_block(struct softmax_strip *strip, int block, enum factors factors)
{
    struct pending pending = pending_block(strip, block);

    if (strip->starts[block]) start_rows(strip, block);
    if (all_see(strip, block)) return pending;
    if (factors == ONE_SCALE)
        take_masked(strip, block);
    else
        take_masked_with_factors(strip, block);
    pending.row = pending.end;
    return pending;
}

#endif
