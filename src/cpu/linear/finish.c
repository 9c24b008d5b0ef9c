/* What is done with a block of sums on its way into y: bias, rounding, GELU. */
#include <string.h>

#include "cpu/gelu.h"
#include "cpu/linear/linear.h"
#include "tensor/bf16.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

/* Where a block goes; strides in elements. */
struct target {
    void *y, *z; /* z NULL: not wanted */
    int64_t y_stride, z_stride;
    int rows, columns;
};

/* So many elements of a row of a block: most have all, whose number the compiler knows. */
INLINE void store_row(void *to, const void *from, int columns, size_t size)
{
    if (columns == LINEAR_SIDE)
        memcpy(to, from, LINEAR_SIDE * size);
    else
        memcpy(to, from, (size_t)columns * size);
}

/* What is not needed before backward goes past the caches, where it would take the room of what is
 * multiplied; whole lines only. */
INLINE void store_row_aside(void *to, const void *from, int columns, size_t size)
{
#if defined(__x86_64__)
    if (columns == LINEAR_SIDE && (uintptr_t)to % 64 == 0) {
        for (size_t i = 0; i < LINEAR_SIDE * size / sizeof(__m128i); i++)
            _mm_stream_si128((__m128i *)to + i, _mm_loadu_si128((const __m128i *)from + i));
        return;
    }
#endif
    store_row(to, from, columns, size);
}

/* A block on its way through GELU: z as it is stored, and the exponent. */
struct curved {
    float z[LINEAR_AREA], whole[LINEAR_AREA], fraction[LINEAR_AREA];
};

INLINE void find_exponents(struct curved *block, int rows)
{
#pragma omp simd
    for (int i = 0; i < rows * LINEAR_SIDE; i++) {
        const struct gelu_exponent x = gelu_exponent(block->z[i]);

        block->whole[i] = x.whole;
        block->fraction[i] = x.fraction;
    }
}

INLINE float gelu_at(const struct curved *block, int i)
{
    return gelu_of_exponent(block->z[i],
                            (struct gelu_exponent){block->whole[i], block->fraction[i]});
}

/* Rounds what was computed from bf16: NaN among it has no bits that rounding could carry. */
INLINE float round_to_bf16(float x)
{
    const uint32_t bits = bits_of_f32(x);

    return f32_of_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000);
}

INLINE uint16_t upper_half(float x)
{
    return (uint16_t)(bits_of_f32(x) >> 16);
}

LS_CLONED static void finish_bf16(const struct target *t, const float *sum, const float *bias)
{
    for (int r = 0; r < t->rows; r++, sum += LINEAR_SIDE) {
        uint16_t out[LINEAR_SIDE];

#pragma omp simd
        for (int j = 0; j < LINEAR_SIDE; j++) out[j] = upper_half(round_to_bf16(sum[j] + bias[j]));
        store_row((uint16_t *)t->y + r * t->y_stride, out, t->columns, sizeof *out);
    }
}

LS_CLONED static void finish_bf16_gelu(const struct target *t, const float *sum, const float *bias)
{
    struct curved block;

    for (int r = 0; r < t->rows; r++) {
        float *z = block.z + r * LINEAR_SIDE;
        uint16_t out[LINEAR_SIDE];

#pragma omp simd
        for (int j = 0; j < LINEAR_SIDE; j++) {
            z[j] = round_to_bf16(sum[r * LINEAR_SIDE + j] + bias[j]);
            out[j] = upper_half(z[j]);
        }
        if (t->z) store_row_aside((uint16_t *)t->z + r * t->z_stride, out, t->columns, sizeof *out);
    }
    find_exponents(&block, t->rows);
    for (int r = 0; r < t->rows; r++) {
        uint16_t out[LINEAR_SIDE];

#pragma omp simd
        for (int j = 0; j < LINEAR_SIDE; j++)
            out[j] = upper_half(round_to_bf16(gelu_at(&block, r * LINEAR_SIDE + j)));
        store_row((uint16_t *)t->y + r * t->y_stride, out, t->columns, sizeof *out);
    }
}

LS_CLONED static void finish_f32(const struct target *t, const float *sum, const float *bias)
{
    for (int r = 0; r < t->rows; r++, sum += LINEAR_SIDE) {
        float out[LINEAR_SIDE];

#pragma omp simd
        for (int j = 0; j < LINEAR_SIDE; j++) out[j] = sum[j] + bias[j];
        store_row((float *)t->y + r * t->y_stride, out, t->columns, sizeof *out);
    }
}

LS_CLONED static void finish_f32_gelu(const struct target *t, const float *sum, const float *bias)
{
    struct curved block;

    for (int r = 0; r < t->rows; r++) {
        float *z = block.z + r * LINEAR_SIDE;

#pragma omp simd
        for (int j = 0; j < LINEAR_SIDE; j++) z[j] = sum[r * LINEAR_SIDE + j] + bias[j];
        if (t->z) store_row_aside((float *)t->z + r * t->z_stride, z, t->columns, sizeof *z);
    }
    find_exponents(&block, t->rows);
    for (int r = 0; r < t->rows; r++) {
        float out[LINEAR_SIDE];

#pragma omp simd
        for (int j = 0; j < LINEAR_SIDE; j++) out[j] = gelu_at(&block, r * LINEAR_SIDE + j);
        store_row((float *)t->y + r * t->y_stride, out, t->columns, sizeof *out);
    }
}

static int at_most_a_side(int64_t n)
{
    return n < LINEAR_SIDE ? (int)n : LINEAR_SIDE;
}

static void load_bias(float out[LINEAR_SIDE], const struct ls_tensor *bias, int64_t column,
                      int columns)
{
    memset(out, 0, LINEAR_SIDE * sizeof *out);
    if (!bias) return;
    for (int j = 0; j < columns; j++)
        out[j] = bias->type == LS_BF16 ? f32_of_bf16(((const uint16_t *)bias->data)[column + j])
                                       : ((const float *)bias->data)[column + j];
}

void cpu_linear_finish(const struct linear_finish *finish, const float *block, int64_t row,
                       int64_t column)
{
    const struct ls_tensor *y = finish->y, *z = finish->z;
    const struct target target = {
        .y = linear_element(y, row, column),
        .z = z ? linear_element(z, row, column) : NULL,
        .y_stride = y->stride[0],
        .z_stride = z ? z->stride[0] : 0,
        .rows = at_most_a_side(y->dim[0] - row),
        .columns = at_most_a_side(y->dim[1] - column),
    };
    float bias[LINEAR_SIDE];

    load_bias(bias, finish->bias, column, target.columns);
    if (y->type == LS_BF16)
        (finish->gelu ? finish_bf16_gelu : finish_bf16)(&target, block, bias);
    else
        (finish->gelu ? finish_f32_gelu : finish_f32)(&target, block, bias);
}

void cpu_linear_end_finish(void)
{
#if defined(__x86_64__)
    _mm_sfence();
#endif
}
