/* Products in bf16 on AMX tiles. Against oneDNN: strips of 32 rows, whose scores stay near the
 * core, no more keys than are visible, no set-up per call, and exponentials between the tile
 * products, on units that these leave idle. */
#include "cpu/attention/products.h"

#if defined(__x86_64__)

#include <stdlib.h>

#include "cpu/attention/softmax_amx.h"
#include "cpu/pack_bf16.h"

#define DEPTH 32                    /* what one tile product sums over */
#define SCORE_STRIDE (LS_LEAF + 16) /* off the power of two, whose rows share cache sets */
#define PAIR_BYTES (2 * TILE_BYTES) /* right operand of one step: two tiles */

static size_t packed_bytes(int d_pad)
{
    return (size_t)LS_LEAF * (size_t)d_pad * sizeof(uint16_t);
}

static ls_status pack_k(void *packed, void *worker, const void *raw)
{
    pack_by_rows(packed, raw, ((struct plain_worker *)worker)->pad.d, pack_right_transposed);
    return LS_OK;
}

static ls_status pack_v(void *packed, void *worker, const void *raw)
{
    pack_by_columns(packed, raw, ((struct plain_worker *)worker)->pad.d_v, pack_right);
    return LS_OK;
}

/* A strip's share of a leaf is four lines for each pair of tiles of its own leaf. */
static inline void bring_nearer(const char **ahead)
{
    if (!*ahead) return;
    for (int i = 0; i < 4; i++, *ahead += 64) _mm_prefetch(*ahead, _MM_HINT_T1);
}

/* Sums that are still in tiles 0 to 3, two by two, and where they go: if they left before the next
 * products start, the tiles would stand idle. NULL: there are none. */
struct sums {
    char *out;
    ptrdiff_t stride; /* bytes */
};

/* One of them leaves its tile, which starts again from zero. */
#define TAKE_SUM(tile, sums, offset)                                                               \
    do {                                                                                           \
        if ((sums).out) TILE_STORE(tile, (sums).out + (offset), (sums).stride);                    \
        TILE_ZERO(tile);                                                                           \
    } while (0)

TARGET_AMX static inline void take_sums(struct sums sums, bool two_rows)
{
    TILE_STORE(0, sums.out, sums.stride);
    TILE_STORE(1, sums.out + 64, sums.stride);
    if (!two_rows) return;
    TILE_STORE(2, sums.out + 16 * sums.stride, sums.stride);
    TILE_STORE(3, sums.out + 16 * sums.stride + 64, sums.stride);
}

/* Two by two tiles of left x right, summed over `depths` steps into tiles 0 to 3, which `before`
 * leave; the second row of tiles is left out if there is none. Rows of left are left_stride bytes
 * apart. Meanwhile, `pace` pending rows a tile product. */
TARGET_AMX static inline __attribute__((always_inline)) void
multiply(struct sums before, const char *left, ptrdiff_t left_stride, const char *right, int depths,
         const char **ahead, struct pending *pending, int pace, bool two_rows, enum factors factors)
{
    const ptrdiff_t below = 16 * left_stride;

    for (int i = 0; i < depths; i++, left += 2 * DEPTH, right += PAIR_BYTES) {
        bring_nearer(ahead);
        TILE_LOAD(4, left, left_stride);
        TILE_LOAD(6, right, 64);
        if (i == 0) TAKE_SUM(0, before, 0);
        TILE_PRODUCT(0, 4, 6);
        take(pending, pace, factors);
        TILE_LOAD(7, right + TILE_BYTES, 64);
        if (i == 0) TAKE_SUM(1, before, 64);
        TILE_PRODUCT(1, 4, 7);
        take(pending, pace, factors);
        if (!two_rows) continue;
        TILE_LOAD(5, left + below, left_stride);
        if (i == 0) TAKE_SUM(2, before, 16 * before.stride);
        TILE_PRODUCT(2, 5, 6);
        take(pending, pace, factors);
        if (i == 0) TAKE_SUM(3, before, 16 * before.stride + 64);
        TILE_PRODUCT(3, 5, 7);
        take(pending, pace, factors);
    }
}

/* `blocks` blocks of 32 columns of left x right, side by side in out; those of right are
 * right_bytes apart. */
TARGET_AMX static void multiply_columns(struct sums out, const char *left, ptrdiff_t left_stride,
                                        const char *right, ptrdiff_t right_bytes, int depths,
                                        const char *ahead, int rows, int blocks)
{
    struct pending nothing = {0};
    struct sums sums = {NULL, out.stride};

    for (int block = 0; block < blocks; block++, right += right_bytes) {
        if (rows > 16)
            multiply(sums, left, left_stride, right, depths, &ahead, &nothing, 0, true, ONE_SCALE);
        else
            multiply(sums, left, left_stride, right, depths, &ahead, &nothing, 0, false, ONE_SCALE);
        sums.out = out.out + block * COLUMNS * 4;
    }
    take_sums(sums, rows > 16);
}

TARGET_AMX static ls_status scores(float *out, void *worker, const void *q, struct operand k,
                                   int rows, struct key_span keys)
{
    const int d_pad = ((struct plain_worker *)worker)->pad.d, depths = d_pad / DEPTH;
    const int block = keys.first / COLUMNS, end = (keys.end + COLUMNS - 1) / COLUMNS;
    const struct sums to = {(char *)(out + block * COLUMNS), SCORE_STRIDE * 4};
    const ptrdiff_t bytes = depths * PAIR_BYTES;

    multiply_columns(to, q, d_pad * 2, (const char *)k.packed + block * bytes, bytes, depths,
                     k.ahead, rows, end - block);
    return LS_OK;
}

TARGET_AMX static ls_status output(float *acc, void *worker, const void *p, struct operand v,
                                   int rows, struct key_span keys)
{
    const int d_pad = ((struct plain_worker *)worker)->pad.d_v, step = keys.first / DEPTH;
    const int depths = (keys.end + DEPTH - 1) / DEPTH - step;
    const struct sums to = {(char *)acc, d_pad * 4};

    multiply_columns(to, (const char *)p + step * 2 * DEPTH, P_STRIDE * 2,
                     (const char *)v.packed + step * PAIR_BYTES, LS_LEAF / DEPTH * PAIR_BYTES,
                     depths, v.ahead, rows, d_pad / COLUMNS);
    return LS_OK;
}

/* The first keys' largest score counts as one, unless it is so large that its rounding counts. */
#define P_LEAST 0.25f

/* Rows for which these keys were no measure, or whose scores are not finite: once more, and apart,
 * so that a row's bits do not depend on its neighbours. */
TARGET_AMX static ls_status repeat_rows(const struct softmax_rows *rows, void *worker,
                                        const void *q, struct operand k, struct key_span keys)
{
    bool scored = false;

    for (int r = 0; r < rows->rows; r++) {
        const bool sound = rows->m[r] > -INFINITY && rows->l[r] > P_LEAST && rows->l[r] < P_LIMIT;

        if (sound || ls_leaf_keys_are_none(keys_of_row(rows, r))) continue;
        if (!scored) LS_TRY(scores((float *)rows->s, worker, q, k, rows->rows, keys));
        scored = true;
        struct softmax_rows one = *rows;
        one.p = (uint16_t *)rows->p + r * P_STRIDE;
        one.m += r;
        one.l += r;
        one.s += r * SCORE_STRIDE;
        if (one.visible) one.visible += r;
        one.rows = 1;
        if (one.s_factor)
            for (int j = 0; j < LS_LEAF; j++) ((float *)one.s)[j] *= one.s_factor[j];
        cpu_simd_avx512bf16.softmax_bf16(&one);
    }
    return LS_OK;
}

/* 32 keys at a time: while tiles multiply one block, the exponentials of one before are taken. With
 * few tile products these are taken behind them, which is soon enough for the units to work side by
 * side, and the scores leave their tiles when the next block has begun; with many, between them. */
TARGET_AMX static inline __attribute__((always_inline)) void
interleave_with(struct softmax_strip *strip, const char *q, struct operand k, int depths,
                struct key_span keys, enum factors factors)
{
    const int first = keys.first / COLUMNS, end = (keys.end + COLUMNS - 1) / COLUMNS;
    const int pace = depths > 2 ? (8 + depths - 1) / depths : 0;
    const ptrdiff_t stride = depths * DEPTH * 2;
    const bool two_rows = strip->rows->rows > 16;
    const char *right = (const char *)k.packed + first * depths * PAIR_BYTES;
    struct sums sums = {NULL, COLUMNS * 4};
    struct pending pending = {0};

    for (int block = first; block < end; block++, right += depths * PAIR_BYTES) {
        if (!two_rows)
            multiply(sums, q, stride, right, depths, &k.ahead, &pending, pace, false, factors);
        else if (pace > 0)
            multiply(sums, q, stride, right, depths, &k.ahead, &pending, pace, true, factors);
        else
            multiply(sums, q, stride, right, depths, &k.ahead, &pending, 0, true, factors);
        take(&pending, STRIP, factors);
        if (sums.out) pending = complete_block(strip, block - 1, factors);
        sums.out = (char *)strip->block[block % 2];
        if (pace > 0) {
            take_sums(sums, two_rows);
            pending = complete_block(strip, block, factors);
            sums.out = NULL;
        }
    }
    if (sums.out) {
        take_sums(sums, two_rows);
        take(&pending, STRIP, factors);
        pending = complete_block(strip, end - 1, factors);
    }
    take(&pending, STRIP, factors);
}

TARGET_AMX static __attribute__((noinline)) void
interleave_with_factors(struct softmax_strip *strip, const char *q, struct operand k, int depths,
                        struct key_span keys)
{
    if (strip->rows->p_factor)
        interleave_with(strip, q, k, depths, keys, OF_KEYS_AND_VALUES);
    else
        interleave_with(strip, q, k, depths, keys, OF_KEYS);
}

TARGET_AMX static __attribute__((noinline)) void interleave(struct softmax_strip *strip,
                                                            const char *q, struct operand k,
                                                            int depths, struct key_span keys)
{
    interleave_with(strip, q, k, depths, keys, ONE_SCALE);
}

TARGET_AMX static ls_status probabilities(const struct softmax_rows *rows, void *worker,
                                          const void *q, struct operand k, struct key_span keys)
{
    const int depths = ((struct plain_worker *)worker)->pad.d / DEPTH;
    struct softmax_strip strip;

    open_strip(&strip, rows);
    if (factors_of_rows(rows) == ONE_SCALE)
        WITH_FTZ(interleave(&strip, q, k, depths, keys));
    else
        WITH_FTZ(interleave_with_factors(&strip, q, k, depths, keys));
    for (int first = 0; first < rows->rows; first += GROUP) {
        const int left = rows->rows - first;
        const __mmask16 present = left < GROUP ? (__mmask16)((1u << left) - 1) : 0xffff;
        __m512 sum[GROUP];

        for (int i = 0; i < GROUP; i++) sum[i] = _mm512_load_ps(strip.sum[first + i]);
        _mm512_mask_storeu_ps(rows->m + first, present, _mm512_load_ps(strip.m + first));
        _mm512_mask_storeu_ps(rows->l + first, present, sum_of_rows(sum));
    }
    k.ahead = NULL;
    return repeat_rows(rows, worker, q, k, keys);
}

/* Loading the shapes of tiles takes as long as ten tile products. */
TARGET_AMX static void begin(void)
{
    TILE_BEGIN();
}

TARGET_AMX static void end(void)
{
    TILE_END();
}

static bool fits(ls_isa isa, ls_dtype storage)
{
    return isa == LS_ISA_AMX && storage == LS_BF16;
}

const struct products PRODUCTS_AMX = {
    .name = "AMX bf16 tiles",
    .type = LS_BF16,
    .d_multiple = DEPTH,
    .strip = STRIP,
    .score_stride = SCORE_STRIDE,
    .p_offset = STRIP * SCORE_STRIDE,
    .p_stride = P_STRIDE,
    .fits = fits,
    .packed_bytes = packed_bytes,
    .scratch_bytes = cpu_no_scratch,
    .create = cpu_plain_worker_create,
    .destroy = free,
    .pack_k = pack_k,
    .pack_v = pack_v,
    .begin = begin,
    .end = end,
    .scores = scores,
    .output = output,
    .probabilities = probabilities,
};

#else
const struct products cpu_products_amx = {.name = "AMX bf16 tiles", .fits = cpu_fits_never};
#endif
