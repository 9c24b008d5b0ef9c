/* Products in bf16 on AMX tiles. Against oneDNN: strips of 32 rows, whose scores stay near the
 * core, no more keys than are visible, and no set-up per call. */
#include "cpu/products.h"

#if defined(__x86_64__)

#include <stdlib.h>

#include "cpu/amx_tiles.h"

#define STRIP 32                    /* two tiles of rows */
#define DEPTH 32                    /* what one tile product sums over */
#define COLUMNS 32                  /* two tiles of columns */
#define SCORE_STRIDE (LS_LEAF + 16) /* off the power of two, whose rows share cache sets */
#define PAIR_BYTES (2 * TILE_BYTES) /* right operand of one step: two tiles */

static size_t packed_bytes(int d_pad)
{
    return (size_t)LS_LEAF * (size_t)d_pad * sizeof(uint16_t);
}

/* Rows of 16 dwords become columns. */
TARGET_AMX static inline void transpose_16x16(__m512i x[16])
{
    __m512i y[16];

#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    /* now x[4 g + c] has columns c, c + 4, c + 8, c + 12 of rows 4 g to 4 g + 3 */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        y[c] = _mm512_shuffle_i32x4(x[c], x[c + 4], 0x88);
        y[c + 4] = _mm512_shuffle_i32x4(x[c], x[c + 4], 0xdd);
        y[c + 8] = _mm512_shuffle_i32x4(x[c + 8], x[c + 12], 0x88);
        y[c + 12] = _mm512_shuffle_i32x4(x[c + 8], x[c + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        x[c] = _mm512_shuffle_i32x4(y[c], y[c + 8], 0x88);
        x[c + 8] = _mm512_shuffle_i32x4(y[c], y[c + 8], 0xdd);
        x[c + 4] = _mm512_shuffle_i32x4(y[c + 4], y[c + 12], 0x88);
        x[c + 12] = _mm512_shuffle_i32x4(y[c + 4], y[c + 12], 0xdd);
    }
}

/* Tiles [16 pairs of head dimensions][16 keys], a pair of tiles for each (32 keys, depth). */
TARGET_AMX static ls_status pack_k(void *packed, void *worker, const void *raw)
{
    const int d_pad = ((struct plain_worker *)worker)->d_pad;
    char *to = packed;

    for (int block = 0; block < LS_LEAF; block += COLUMNS) {
        for (int depth = 0; depth < d_pad; depth += DEPTH) {
            for (int key = block; key < block + COLUMNS; key += 16, to += TILE_BYTES) {
                const uint16_t *from = (const uint16_t *)raw + key * d_pad + depth;
                __m512i x[16];

#pragma GCC unroll 16
                for (int i = 0; i < 16; i++) x[i] = _mm512_loadu_si512(from + i * d_pad);
                transpose_16x16(x);
#pragma GCC unroll 16
                for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + 64 * i, x[i]);
            }
        }
    }
    return LS_OK;
}

/* Tiles [16 pairs of keys][16 columns], a pair of tiles for each (32 columns, depth). */
TARGET_AMX static ls_status pack_v(void *packed, void *worker, const void *raw)
{
    const int d_pad = ((struct plain_worker *)worker)->d_pad;
    char *to = packed;

    for (int block = 0; block < d_pad; block += COLUMNS) {
        for (int depth = 0; depth < LS_LEAF; depth += DEPTH) {
            for (int column = block; column < block + COLUMNS; column += 16) {
                const uint16_t *from = (const uint16_t *)raw + depth * d_pad + column;

                for (int pair = 0; pair < 16; pair++, from += 2 * d_pad, to += 64) {
                    const __m512i even =
                        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)from));
                    const __m512i odd =
                        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(from + d_pad)));
                    _mm512_storeu_si512(to, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
                }
            }
        }
    }
    return LS_OK;
}

/* Two by two tiles of out, summed over `depths` steps. Rows of left are left_stride bytes apart,
 * of out out_stride floats; the second row of tiles is left out if there is none. */
TARGET_AMX static inline void multiply(float *out, ptrdiff_t out_stride, const char *left,
                                       ptrdiff_t left_stride, const char *right, int depths,
                                       bool two_rows)
{
    const ptrdiff_t below = 16 * left_stride;

    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (int i = 0; i < depths; i++, left += 2 * DEPTH, right += PAIR_BYTES) {
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

TARGET_AMX static ls_status scores(float *out, void *worker, const void *q, const void *packed_k,
                                   int rows, int keys)
{
    const int d_pad = ((struct plain_worker *)worker)->d_pad, depths = d_pad / DEPTH;
    const char *k = packed_k;

    for (int key = 0; key < keys; key += COLUMNS, k += depths * PAIR_BYTES)
        multiply(out + key, SCORE_STRIDE, q, d_pad * 2, k, depths, rows > 16);
    return LS_OK;
}

TARGET_AMX static ls_status output(float *acc, void *worker, const void *p, const void *packed_v,
                                   int rows, int keys)
{
    const int d_pad = ((struct plain_worker *)worker)->d_pad, depths = (keys + DEPTH - 1) / DEPTH;
    const char *v = packed_v;

    for (int column = 0; column < d_pad; column += COLUMNS, v += LS_LEAF / DEPTH * PAIR_BYTES)
        multiply(acc + column, d_pad, p, SCORE_STRIDE * 4, v, depths, rows > 16);
    return LS_OK;
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
    .p_stride = 2 * SCORE_STRIDE,
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
};

#else
const struct products products_amx = {.name = "AMX bf16 tiles", .fits = fits_never};
#endif
