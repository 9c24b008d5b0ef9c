/* Blocks in f32: rows of a left block against vectors of columns, as many of both as the registers
 * of an instruction set hold. */
#include "cpu/linear/products.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "cpu/softmax_avx512.h"

#define TARGET_AVX2 __attribute__((target("avx2,fma")))

/* ---- AVX-512: 8 rows by 32 columns */

TARGET_AVX512 static inline void multiply_rows_avx512(float *out, const float *left,
                                                      const float *right, int depth)
{
    enum { ROWS = 8 };
    __m512 sum[ROWS][2];

#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
#pragma GCC unroll 2
    for (int e = 0; e < depth; e++, left += LINEAR_SIDE, right += LINEAR_SIDE) {
        const __m512 b0 = _mm512_load_ps(right), b1 = _mm512_load_ps(right + 16);

#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            const __m512 a = _mm512_set1_ps(left[r]);

            sum[r][0] = _mm512_fmadd_ps(a, b0, sum[r][0]);
            sum[r][1] = _mm512_fmadd_ps(a, b1, sum[r][1]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
        _mm512_store_ps(out + r * LINEAR_SIDE, sum[r][0]);
        _mm512_store_ps(out + r * LINEAR_SIDE + 16, sum[r][1]);
    }
}

static void multiply_avx512(float *out, const void *left, const void *right, int steps)
{
    for (int row = 0; row < LINEAR_SIDE; row += 8)
        multiply_rows_avx512(out + row * LINEAR_SIDE, (const float *)left + row, right,
                             steps * LINEAR_SIDE);
}

static bool fits_avx512(ls_isa isa, ls_dtype storage)
{
    (void)storage;
    return isa >= LS_ISA_AVX512;
}

const struct linear_products cpu_linear_avx512 = {.name = "AVX-512 f32 blocks",
                                                  .type = LS_F32,
                                                  .fits = fits_avx512,
                                                  .pack_left = cpu_linear_pack_f32,
                                                  .pack_right = cpu_linear_pack_f32,
                                                  .multiply = multiply_avx512};

/* ---- AVX2: 4 rows by 16 columns */

TARGET_AVX2 static inline void multiply_rows_avx2(float *out, const float *left, const float *right,
                                                  int depth)
{
    enum { ROWS = 4 };
    __m256 sum[ROWS][2];

#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
#pragma GCC unroll 2
    for (int e = 0; e < depth; e++, left += LINEAR_SIDE, right += LINEAR_SIDE) {
        const __m256 b0 = _mm256_load_ps(right), b1 = _mm256_load_ps(right + 8);

#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            const __m256 a = _mm256_set1_ps(left[r]);

            sum[r][0] = _mm256_fmadd_ps(a, b0, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(a, b1, sum[r][1]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
        _mm256_store_ps(out + r * LINEAR_SIDE, sum[r][0]);
        _mm256_store_ps(out + r * LINEAR_SIDE + 8, sum[r][1]);
    }
}

static void multiply_avx2(float *out, const void *left, const void *right, int steps)
{
    for (int column = 0; column < LINEAR_SIDE; column += 16)
        for (int row = 0; row < LINEAR_SIDE; row += 4)
            multiply_rows_avx2(out + row * LINEAR_SIDE + column, (const float *)left + row,
                               (const float *)right + column, steps * LINEAR_SIDE);
}

static bool fits_avx2(ls_isa isa, ls_dtype storage)
{
    (void)storage;
    return isa >= LS_ISA_AVX2;
}

const struct linear_products cpu_linear_avx2 = {.name = "AVX2 f32 blocks",
                                                .type = LS_F32,
                                                .fits = fits_avx2,
                                                .pack_left = cpu_linear_pack_f32,
                                                .pack_right = cpu_linear_pack_f32,
                                                .multiply = multiply_avx2};

#else
const struct linear_products cpu_linear_avx512 = {.name = "AVX-512 f32 blocks",
                                                  .fits = cpu_linear_fits_never};
const struct linear_products cpu_linear_avx2 = {.name = "AVX2 f32 blocks",
                                                .fits = cpu_linear_fits_never};
#endif

/* ---- any CPU: 4 rows by 8 columns, vectors of 16 bytes */

typedef float four __attribute__((vector_size(16)));

static inline void multiply_rows_generic(float *out, const float *left, const float *right,
                                         int depth)
{
    enum { ROWS = 4 };
    four sum[ROWS][2] = {0};

    for (int e = 0; e < depth; e++, left += LINEAR_SIDE, right += LINEAR_SIDE) {
        const four b0 = *(const four *)(const void *)right;
        const four b1 = *(const four *)(const void *)(right + 4);

#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            sum[r][0] += left[r] * b0;
            sum[r][1] += left[r] * b1;
        }
    }
    for (int r = 0; r < ROWS; r++) {
        *(four *)(void *)(out + r * LINEAR_SIDE) = sum[r][0];
        *(four *)(void *)(out + r * LINEAR_SIDE + 4) = sum[r][1];
    }
}

static void multiply_generic(float *out, const void *left, const void *right, int steps)
{
    for (int column = 0; column < LINEAR_SIDE; column += 8)
        for (int row = 0; row < LINEAR_SIDE; row += 4)
            multiply_rows_generic(out + row * LINEAR_SIDE + column, (const float *)left + row,
                                  (const float *)right + column, steps * LINEAR_SIDE);
}

static bool fits_generic(ls_isa isa, ls_dtype storage)
{
    (void)isa;
    (void)storage;
    return true;
}

const struct linear_products cpu_linear_generic = {.name = "f32 blocks",
                                                   .type = LS_F32,
                                                   .fits = fits_generic,
                                                   .pack_left = cpu_linear_pack_f32,
                                                   .pack_right = cpu_linear_pack_f32,
                                                   .multiply = multiply_generic};
