/* Products of a few query rows with keys where the caller has them: a table for each instruction
 * set. */
#ifndef LS_CPU_ATTENTION_DECODE_PRODUCTS_H
#define LS_CPU_ATTENTION_DECODE_PRODUCTS_H

#include "cpu/attention/products.h"
#include "longspan/attention.h"
#include "tensor/dtype.h"

/* The two products, for 1 or DECODE_STRIP rows of queries. Rows of q and acc are padded to
 * DECODE_LANES floats, those of s and p are LS_LEAF apart. Of the keys nothing but `keys` is read,
 * of s nothing else is written, and no result depends on other rows or keys. */
struct decode_products {
    /* s = q k^T */
    void (*scores)(float *s, const float *q, int rows, const struct key_rows *k,
                   struct key_span keys);
    /* acc += p v, key after key */
    void (*output)(float *acc, const float *p, int rows, const struct key_rows *v,
                   struct key_span keys);
};

#define DECODE_LANES 16
#define DECODE_STRIP 4
#define DECODE_AHEAD 1024   /* bytes */
#define DECODE_AHEAD_ROWS 8 /* of 16-bit numbers; others take half the time, or twice */

/* Rows of q or acc lie so many floats apart. */
static inline int decode_pitch(const struct key_rows *rows)
{
    return (rows->d + DECODE_LANES - 1) / DECODE_LANES * DECODE_LANES;
}

/* As a constant where the type is one. */
static inline int decode_size(ls_dtype type)
{
    return type == LS_F32 ? 4 : ls_dtype_is_of_8_bits(type) ? 1 : 2;
}

static inline size_t decode_bytes(const struct key_rows *rows)
{
    return (size_t)rows->d * (size_t)ls_dtype_size(rows->type) +
           (ls_dtype_is_of_8_bits(rows->type) ? LS_SCALE_BYTES : 0);
}

/* What the numbers of a row are multiplied by, where it has one. */
static inline float decode_scale(const struct key_rows *rows, const char *row)
{
    float scale;

    __builtin_memcpy(&scale, row + rows->d, sizeof scale);
    return scale;
}

/* With a row, what comes a little later is asked for; too early, and it is slower than never. */
static inline void decode_prefetch(const struct key_rows *rows, const char *row)
{
    const size_t bytes = decode_bytes(rows);
    const bool side_by_side = rows->stride == (ptrdiff_t)bytes;
    const int rows_ahead = 2 * DECODE_AHEAD_ROWS / decode_size(rows->type);
    const char *later = row + (side_by_side ? DECODE_AHEAD : rows_ahead * rows->stride);

    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(later + i);
}

extern const struct decode_products cpu_decode_generic, cpu_decode_avx2, cpu_decode_avx512;

#endif
