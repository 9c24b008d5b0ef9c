/* Products in bf16 on AMX tiles. Against oneDNN: strips of 32 rows, whose scores stay near the
 * core, no more keys than are visible, no set-up per call, and exponentials between the tile
 * products, on units that these leave idle. */
#include "cpu/products.h"

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

/* Two by two tiles of out, summed over `depths` steps. Rows of left are left_stride bytes apart,
 * of out out_stride floats; the second row of tiles is left out if there is none. */
TARGET_AMX static inline void multiply(float *out, ptrdiff_t out_stride, const char *left,
                                       ptrdiff_t left_stride, const char *right, int depths,
                                       const char **ahead, bool two_rows)
{
    const ptrdiff_t below = 16 * left_stride;

    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (int i = 0; i < depths; i++, left += 2 * DEPTH, right += PAIR_BYTES) {
        bring_nearer(ahead);
        TILE_LOAD(4, left, left_stride);
        TILE_LOAD(6, right, 64);
        TILE_LOAD(7, right + TILE_BYTES, 64);
        TILE_PRODUCT(0, 4, 6);
        TILE_PRODUCT(1, 4, 7);
        if (!two_rows) continue;
        TILE_LOAD(5, left + below, left_stride);
        TILE_PRODUCT(2, 5, 6);
        TILE_PRODUCT(3, 5, 7);
    }
    TILE_STORE(0, out, out_stride * 4);
    TILE_STORE(1, out + 16, out_stride * 4);
    if (!two_rows) return;
    TILE_STORE(2, out + 16 * out_stride, out_stride * 4);
    TILE_STORE(3, out + 16 * out_stride + 16, out_stride * 4);
}

TARGET_AMX static ls_status scores(float *out, void *worker, const void *q, struct operand k,
                                   int rows, struct key_span keys)
{
    const int d_pad = ((struct plain_worker *)worker)->d_pad, depths = d_pad / DEPTH;
    const int block = keys.first / COLUMNS;
    const char *right = (const char *)k.packed + block * depths * PAIR_BYTES;

    for (int key = block * COLUMNS; key < keys.end; key += COLUMNS, right += depths * PAIR_BYTES)
        multiply(out + key, SCORE_STRIDE, q, d_pad * 2, right, depths, &k.ahead, rows > 16);
    return LS_OK;
}

TARGET_AMX static ls_status output(float *acc, void *worker, const void *p, struct operand v,
                                   int rows, struct key_span keys)
{
    const int d_pad = ((struct plain_worker *)worker)->d_pad, step = keys.first / DEPTH;
    const int depths = (keys.end + DEPTH - 1) / DEPTH - step;
    const char *left = (const char *)p + step * 2 * DEPTH;
    const char *right = (const char *)v.packed + step * PAIR_BYTES;

    for (int column = 0; column < d_pad; column += COLUMNS, right += LS_LEAF / DEPTH * PAIR_BYTES)
        multiply(acc + column, d_pad, left, P_STRIDE * 2, right, depths, &v.ahead, rows > 16);
    return LS_OK;
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

/* Scores of 32 keys, and meanwhile the pending rows. */
TARGET_AMX static inline __attribute__((always_inline)) void
score_block(float *out, const char *q, const char *k, int depths, const char **ahead,
            struct pending *pending, bool two_rows)
{
    const int pace = (8 + depths - 1) / depths; /* rows a tile product */
    const ptrdiff_t stride = depths * DEPTH * 2;

    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (int i = 0; i < depths; i++, q += 2 * DEPTH, k += PAIR_BYTES) {
        bring_nearer(ahead);
        TILE_LOAD(4, q, stride);
        TILE_LOAD(6, k, 64);
        TILE_PRODUCT(0, 4, 6);
        take(pending, pace);
        TILE_LOAD(7, k + TILE_BYTES, 64);
        TILE_PRODUCT(1, 4, 7);
        take(pending, pace);
        if (!two_rows) continue;
        TILE_LOAD(5, q + 16 * stride, stride);
        TILE_PRODUCT(2, 5, 6);
        take(pending, pace);
        TILE_PRODUCT(3, 5, 7);
        take(pending, pace);
    }
    TILE_STORE(0, out, COLUMNS * 4);
    TILE_STORE(1, out + 16, COLUMNS * 4);
    if (!two_rows) return;
    TILE_STORE(2, out + 16 * COLUMNS, COLUMNS * 4);
    TILE_STORE(3, out + 16 * COLUMNS + 16, COLUMNS * 4);
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

/* Rows for which these keys were no measure, or whose scores are not finite: once more, and apart,
 * so that a row's bits do not depend on its neighbours. */
TARGET_AMX static ls_status repeat_rows(const struct softmax_rows *rows, void *worker,
                                        const void *q, struct operand k, struct key_span keys)
{
    bool scored = false;

    for (int r = 0; r < rows->rows; r++) {
        if ((rows->m[r] > -INFINITY && rows->l[r] < P_LIMIT) || sees_none(keys_of_row(rows, r)))
            continue;
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

/* 32 keys at a time: while tiles multiply one block, the exponentials of the one before are taken.
 * They are not on their way if a row does not see the whole block. */
TARGET_AMX static void interleave(struct softmax_strip *strip, const char *q, struct operand k,
                                  int depths, struct key_span keys)
{
    const struct softmax_rows *rows = strip->rows;
    int block = keys.first / COLUMNS;
    const char *right = (const char *)k.packed + block * depths * PAIR_BYTES;
    struct pending pending = {0};

    for (; block * COLUMNS < keys.end; block++, right += depths * PAIR_BYTES) {
        if (rows->rows > 16)
            score_block(strip->block[block % 2], q, right, depths, &k.ahead, &pending, true);
        else
            score_block(strip->block[block % 2], q, right, depths, &k.ahead, &pending, false);
        if (strip->starts[block]) start_rows(strip, block);
        pending = pending_block(strip, block);
        if (all_see(strip, block)) continue;
        take_masked(strip, block);
        pending.row = pending.end;
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
