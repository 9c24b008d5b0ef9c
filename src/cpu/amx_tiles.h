/* The tile instructions that the AMX kernel uses, and their meaning in C for machines without
 * them (LS_AMX_EMULATED). Every tile is 16 rows of 64 bytes. */
#ifndef LS_CPU_AMX_TILES_H
#define LS_CPU_AMX_TILES_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TILE_BYTES 1024

/* The table rows that attention/products_amx.c, gradient/amx.c and linear/amx.c define; the tests
 * build them a second time, emulated. */
#ifdef LS_AMX_EMULATED
#define PRODUCTS_AMX products_amx_emulated
#define GRADIENT_AMX gradient_amx_emulated
#define LINEAR_AMX linear_amx_emulated
#else
#define PRODUCTS_AMX cpu_products_amx
#define GRADIENT_AMX cpu_gradient_amx
#define LINEAR_AMX cpu_linear_amx
#endif

#ifndef LS_AMX_EMULATED

#define TARGET_AMX                                                                                 \
    __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))

/* Palette 1, eight tiles of 16 x 64 bytes. */
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) tile_shapes = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

#define TILE_BEGIN() _tile_loadconfig(&tile_shapes)
#define TILE_END() _tile_release()
#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, from, stride) _tile_loadd(t, from, stride)
#define TILE_STORE(t, to, stride) _tile_stored(t, to, stride)
#define TILE_PRODUCT(c, a, b) _tile_dpbf16ps(c, a, b)

#else

#define TARGET_AMX __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))

static _Thread_local unsigned char tile_register[8][TILE_BYTES];

static inline void tile_move(void *to, ptrdiff_t to_stride, const void *from, ptrdiff_t from_stride)
{
    for (int r = 0; r < 16; r++)
        memcpy((char *)to + r * to_stride, (const char *)from + r * from_stride, 64);
}

static inline float tile_element(const unsigned char *tile, int row, int column)
{
    uint16_t half;
    memcpy(&half, tile + 64 * row + 2 * column, sizeof half);
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* c += a b, where row k of b holds the pairs (2k, 2k + 1) of each of its 16 columns */
static inline void tile_product(unsigned char *c, const unsigned char *a, const unsigned char *b)
{
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 16; j++) {
            float sum;
            memcpy(&sum, c + 64 * i + 4 * j, sizeof sum);
            for (int k = 0; k < 32; k++)
                sum += tile_element(a, i, k) * tile_element(b, k / 2, 2 * j + k % 2);
            memcpy(c + 64 * i + 4 * j, &sum, sizeof sum);
        }
    }
}

#define TILE_BEGIN() memset(tile_register, 0xff, sizeof tile_register)
#define TILE_END() TILE_BEGIN()
#define TILE_ZERO(t) memset(tile_register[t], 0, TILE_BYTES)
#define TILE_LOAD(t, from, stride) tile_move(tile_register[t], 64, from, stride)
#define TILE_STORE(t, to, stride) tile_move(to, stride, tile_register[t], 64)
#define TILE_PRODUCT(c, a, b) tile_product(tile_register[c], tile_register[a], tile_register[b])

#endif
#endif
