/* Products in bf16 on AMX tiles. Against oneDNN: strips of 32 rows, whose scores stay near the
 * core, no more keys than are visible, no set-up per call, and exponentials between the tile
 * products, on units that these leave idle. */
#include "cpu/attention/products.h"

#if defined(__x86_64__)

#include <math.h>
#include <stdlib.h>

#include "cpu/amx_tiles.h"
#include "cpu/pack_bf16.h"
#include "cpu/softmax_avx512.h"

#define STRIP 32   /* two tiles of rows */
#define DEPTH 32   /* what one tile product sums over */
#define COLUMNS 32 /* two tiles of columns */
#define BLOCKS (LS_LEAF / COLUMNS)
#define SCORE_STRIDE (LS_LEAF + 16) /* off the power of two, whose rows share cache sets */
#define PAIR_BYTES (2 * TILE_BYTES) /* right operand of one step: two tiles */
#define P_STRIDE (LS_LEAF + 32)

static size_t packed_bytes(int d_pad)
{
    return (size_t)LS_LEAF * (size_t)d_pad * sizeof(uint16_t);
}

static ls_status pack_k(void *packed, void *worker, const void *raw)
{
    pack_by_rows(packed, raw, ((struct plain_worker *)worker)->d_pad, pack_right_transposed);
    return LS_OK;
}

static ls_status pack_v(void *packed, void *worker, const void *raw)
{
    pack_by_columns(packed, raw, ((struct plain_worker *)worker)->d_pad, pack_right);
    return LS_OK;
}

/* A strip's share of a leaf is four lines for each pair of tiles of its own leaf. */
static inline void bring_nearer(const char **ahead)
{
    if (!*ahead) return;
    for (int i = 0; i < 4; i++, *ahead += 64) _mm_prefetch(*ahead, _MM_HINT_T1);
}

/* A strip on its way from scores to probabilities. */
struct softmax_strip {
    float block[2][STRIP * COLUMNS]; /* scores of 32 keys: one being written, one being read */
    float sum[STRIP][16];            /* lanes */
    float m[STRIP], origin[STRIP];   /* 0 for a row that sees nothing */
    uint32_t starts[BLOCKS];         /* rows, as bits, whose first key is in the block */
    struct ls_leaf_keys common;      /* keys that each row sees */
    const struct softmax_rows *rows;
} __attribute__((aligned(64)));

/* Rows of a block whose exponentials are still to be taken. */
struct pending {
    struct softmax_strip *strip;
    const float *s;
    uint16_t *p;
    int row, end;
};

static inline struct pending pending_block(struct softmax_strip *strip, int block)
{
    return (struct pending){.strip = strip,
                            .s = strip->block[block % 2],
                            .p = (uint16_t *)strip->rows->p + block * COLUMNS,
                            .end = strip->rows->rows > 16 ? 32 : 16};
}

/* Of the next row, of which the keys in `seen` are visible. */
TARGET_AMX static inline void exponentials(struct pending *pending, const __mmask16 seen[2])
{
    static const float coefficient[] = EXP2_DEGREE_4;
    const struct softmax_strip *strip = pending->strip;
    const int row = pending->row++;
    const __m512 factor = _mm512_set1_ps(strip->rows->scale);
    const __m512 origin = _mm512_set1_ps(strip->origin[row]);
    float *sum = pending->strip->sum[row];
    __m512 x[2];

    for (int i = 0; i < 2; i++) {
        const __m512 s = _mm512_load_ps(pending->s + row * COLUMNS + 16 * i);
        x[i] = _mm512_fmsub_ps(s, factor, origin);
        if (seen) x[i] = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), seen[i], x[i]);
        x[i] = exp2_512(x[i], coefficient, 4);
    }
    _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), _mm512_add_ps(x[0], x[1])));
    _mm512_store_si512(pending->p + row * P_STRIDE, (__m512i)_mm512_cvtne2ps_pbh(x[1], x[0]));
}

TARGET_AMX static inline void take(struct pending *pending, int rows)
{
    for (int i = 0; i < rows && pending->row < pending->end; i++) exponentials(pending, NULL);
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
         const char **ahead, struct pending *pending, int pace, bool two_rows)
{
    const ptrdiff_t below = 16 * left_stride;

    for (int i = 0; i < depths; i++, left += 2 * DEPTH, right += PAIR_BYTES) {
        bring_nearer(ahead);
        TILE_LOAD(4, left, left_stride);
        TILE_LOAD(6, right, 64);
        if (i == 0) TAKE_SUM(0, before, 0);
        TILE_PRODUCT(0, 4, 6);
        take(pending, pace);
        TILE_LOAD(7, right + TILE_BYTES, 64);
        if (i == 0) TAKE_SUM(1, before, 64);
        TILE_PRODUCT(1, 4, 7);
        take(pending, pace);
        if (!two_rows) continue;
        TILE_LOAD(5, left + below, left_stride);
        if (i == 0) TAKE_SUM(2, before, 16 * before.stride);
        TILE_PRODUCT(2, 5, 6);
        take(pending, pace);
        if (i == 0) TAKE_SUM(3, before, 16 * before.stride + 64);
        TILE_PRODUCT(3, 5, 7);
        take(pending, pace);
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
            multiply(sums, left, left_stride, right, depths, &ahead, &nothing, 0, true);
        else
            multiply(sums, left, left_stride, right, depths, &ahead, &nothing, 0, false);
        sums.out = out.out + block * COLUMNS * 4;
    }
    take_sums(sums, rows > 16);
}

TARGET_AMX static ls_status scores(float *out, void *worker, const void *q, struct operand k,
                                   int rows, struct key_span keys)
{
    const int d_pad = ((struct plain_worker *)worker)->d_pad, depths = d_pad / DEPTH;
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
    const int d_pad = ((struct plain_worker *)worker)->d_pad, step = keys.first / DEPTH;
    const int depths = (keys.end + DEPTH - 1) / DEPTH - step;
    const struct sums to = {(char *)acc, d_pad * 4};

    multiply_columns(to, (const char *)p + step * 2 * DEPTH, P_STRIDE * 2,
                     (const char *)v.packed + step * PAIR_BYTES, LS_LEAF / DEPTH * PAIR_BYTES,
                     depths, v.ahead, rows, d_pad / COLUMNS);
    return LS_OK;
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static int larger(int a, int b)
{
    return a > b ? a : b;
}

/* Nothing has been seen yet; which block starts which rows, and what all of them see. */
TARGET_AMX static __attribute__((noinline)) void open_strip(struct softmax_strip *strip,
                                                            const struct softmax_rows *rows)
{
    struct ls_leaf_keys *common = &strip->common;

    strip->rows = rows;
    *common = (struct ls_leaf_keys){.prefix = LS_LEAF, .to = LS_LEAF};
    memset(strip->starts, 0, sizeof strip->starts);
    if (!rows->visible) strip->starts[0] = UINT32_MAX;
    for (int row = 0; row < rows->rows && rows->visible; row++) {
        const struct ls_leaf_keys seen = keys_of_row(rows, row);
        const int first = seen.prefix > 0 ? 0 : seen.from;

        if (!sees_none(seen)) strip->starts[first / COLUMNS] |= UINT32_C(1) << row;
        common->prefix = (int16_t)smaller(common->prefix, seen.prefix);
        common->from = (int16_t)larger(common->from, seen.from);
        common->to = (int16_t)smaller(common->to, seen.to);
    }
    for (int first = 0; first < STRIP; first += GROUP) {
        _mm512_store_ps(strip->m + first, _mm512_set1_ps(-INFINITY));
        _mm512_store_ps(strip->origin + first, _mm512_setzero_ps());
    }
    for (int row = 0; row < STRIP; row++) _mm512_store_ps(strip->sum[row], _mm512_setzero_ps());
}

static inline bool all_see(const struct softmax_strip *strip, int block)
{
    const struct ls_leaf_keys *common = &strip->common;
    const int first = block * COLUMNS, end = first + COLUMNS;

    return end <= common->prefix || (first >= common->from && end <= common->to);
}

/* Exponents are counted from the largest score of a row's first 32 keys: those of the first block
 * in which it sees one. */
TARGET_AMX static __attribute__((noinline)) void start_rows(struct softmax_strip *strip, int block)
{
    const struct softmax_rows *rows = strip->rows;
    const bool whole = all_see(strip, block);
    const __m512 nothing = _mm512_set1_ps(-INFINITY);

    for (int first = 0; first < rows->rows; first += GROUP) {
        const __mmask16 starts = (__mmask16)(strip->starts[block] >> first);
        __m512 top[GROUP];

        if (!starts) continue;
        for (int i = 0; i < GROUP; i++) {
            const float *s = strip->block[block % 2] + (first + i) * COLUMNS;
            __m512 x[] = {_mm512_load_ps(s), _mm512_load_ps(s + 16)};

            if (!whole && first + i < rows->rows) {
                const __mmask32 seen = seen_pair(block, keys_of_row(rows, first + i));
                x[0] = _mm512_mask_mov_ps(nothing, (__mmask16)seen, x[0]);
                x[1] = _mm512_mask_mov_ps(nothing, (__mmask16)(seen >> 16), x[1]);
            }
            top[i] = _mm512_max_ps(x[0], x[1]);
        }
        const __m512 highest = maximum_of_rows(top);
        const __mmask16 some = starts & _mm512_cmp_ps_mask(highest, nothing, _CMP_NEQ_UQ);
        const __m512 m = _mm512_mul_ps(highest, _mm512_set1_ps(rows->scale));
        _mm512_mask_store_ps(strip->m + first, some, m);
        _mm512_mask_store_ps(strip->origin + first, some, m);
    }
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

        if (sound || sees_none(keys_of_row(rows, r))) continue;
        if (!scored) LS_TRY(scores((float *)rows->s, worker, q, k, rows->rows, keys));
        scored = true;
        struct softmax_rows one = *rows;
        one.p = (uint16_t *)rows->p + r * P_STRIDE;
        one.m += r;
        one.l += r;
        one.s += r * SCORE_STRIDE;
        if (one.visible) one.visible += r;
        one.rows = 1;
        simd_avx512bf16.softmax_bf16(&one);
    }
    return LS_OK;
}

/* All rows, each with the keys of the block that it sees. Apart, so that masks take no registers of
 * the blocks that all rows see. */
TARGET_AMX static __attribute__((noinline)) void take_masked(struct softmax_strip *strip, int block)
{
    struct pending pending = pending_block(strip, block);

    while (pending.row < strip->rows->rows) {
        const __mmask32 seen = seen_pair(block, keys_of_row(strip->rows, pending.row));
        exponentials(&pending, (const __mmask16[]){(__mmask16)seen, (__mmask16)(seen >> 16)});
    }
}

/* The scores of one block are complete: its rows are pending then, or done already if some do not
 * see the whole block. */
TARGET_AMX static inline __attribute__((always_inline)) struct pending
complete_block(struct softmax_strip *strip, int block)
{
    struct pending pending = pending_block(strip, block);

    if (strip->starts[block]) start_rows(strip, block);
    if (all_see(strip, block)) return pending;
    take_masked(strip, block);
    pending.row = pending.end;
    return pending;
}

/* 32 keys at a time: while tiles multiply one block, the exponentials of one before are taken. With
 * few tile products these are taken behind them, which is soon enough for the units to work side by
 * side, and the scores leave their tiles when the next block has begun; with many, between them. */
TARGET_AMX static void interleave(struct softmax_strip *strip, const char *q, struct operand k,
                                  int depths, struct key_span keys)
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
            multiply(sums, q, stride, right, depths, &k.ahead, &pending, pace, false);
        else if (pace > 0)
            multiply(sums, q, stride, right, depths, &k.ahead, &pending, pace, true);
        else
            multiply(sums, q, stride, right, depths, &k.ahead, &pending, 0, true);
        take(&pending, STRIP);
        if (sums.out) pending = complete_block(strip, block - 1);
        sums.out = (char *)strip->block[block % 2];
        if (pace > 0) {
            take_sums(sums, two_rows);
            pending = complete_block(strip, block);
            sums.out = NULL;
        }
    }
    if (sums.out) {
        take_sums(sums, two_rows);
        take(&pending, STRIP);
        pending = complete_block(strip, end - 1);
    }
    take(&pending, STRIP);
}

TARGET_AMX static ls_status probabilities(const struct softmax_rows *rows, void *worker,
                                          const void *q, struct operand k, struct key_span keys)
{
    const int depths = ((struct plain_worker *)worker)->d_pad / DEPTH;
    struct softmax_strip strip;

    open_strip(&strip, rows);
    WITH_FTZ(interleave(&strip, q, k, depths, keys));
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
    .scratch_bytes = no_scratch,
    .create = plain_worker_create,
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
const struct products products_amx = {.name = "AMX bf16 tiles", .fits = fits_never};
#endif
