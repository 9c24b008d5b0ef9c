/* The part of decode_avx2.c and decode_avx512.c that is the same for vectors of any length. Who
 * includes it has defined
 *   TARGET, INLINE   what comes before a function of this instruction set, and one to be inlined
 *   vector, LANES    of floats
 *   vector load(const char *row, int e, int d, bool whole, ls_dtype type)
 *                    elements of a row from e on, or those before d and then zeros
 *   read_lanes, write_lanes, all_lanes, multiply_add
 * and defines few_scores: the scores of 1 or DECODE_STRIP rows. */
#ifndef LS_CPU_ATTENTION_DECODE_VECTOR_H
#define LS_CPU_ATTENTION_DECODE_VECTOR_H

#define KEYS_AT_ONCE 8 /* of V */

INLINE void few_scores(float *s, const float *q, int rows, const struct key_rows *k,
                       struct key_span keys, ls_dtype type);

INLINE void add_products(vector sum[DECODE_STRIP], const float *q, int pitch, int rows, vector k)
{
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) sum[r] = multiply_add(read_lanes(q + r * pitch), k, sum[r]);
}

/* Probabilities times the scales of the rows of values, KEYS_AT_ONCE for each row of queries. */
INLINE void take_weights(float *weight, const float *p, int rows, const struct key_rows *v,
                         const char *row, int keys)
{
    for (int j = 0; j < keys; j++) {
        const float scale = decode_scale(v, row + j * v->stride);

        for (int r = 0; r < rows; r++) weight[r * KEYS_AT_ONCE + j] = p[r * LS_LEAF + j] * scale;
    }
}

/* The columns of a vector from e on, of some keys, for some rows. */
INLINE void add_columns(float *acc, const float *weight, int apart, int rows,
                        const struct key_rows *v, const char *row, int keys, int e, bool whole,
                        ls_dtype type)
{
    const int pitch = decode_pitch(v);
    vector x[KEYS_AT_ONCE];

#pragma GCC unroll 8
    for (int j = 0; j < keys; j++) x[j] = load(row + j * v->stride, e, v->d, whole, type);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        vector sum = read_lanes(acc + r * pitch + e);

#pragma GCC unroll 8
        for (int j = 0; j < keys; j++)
            sum = multiply_add(all_lanes(weight[r * apart + j]), x[j], sum);
        write_lanes(acc + r * pitch + e, sum);
    }
}

INLINE void add_values(float *acc, const float *p, int rows, const struct key_rows *v, int first,
                       int keys, ls_dtype type)
{
    const char *row = v->first + first * v->stride;
    const int apart = ls_dtype_is_of_8_bits(type) ? KEYS_AT_ONCE : LS_LEAF;
    float scaled[DECODE_STRIP * KEYS_AT_ONCE];
    const float *weight = p + first;
    int e = 0;

    for (int j = 0; j < keys; j++) decode_prefetch(v, row + j * v->stride);
    if (ls_dtype_is_of_8_bits(type)) {
        take_weights(scaled, weight, rows, v, row, keys);
        weight = scaled;
    }
    for (; e + LANES <= v->d; e += LANES)
        add_columns(acc, weight, apart, rows, v, row, keys, e, true, type);
    if (e < v->d) add_columns(acc, weight, apart, rows, v, row, keys, e, false, type);
}

INLINE void few_outputs(float *acc, const float *p, int rows, const struct key_rows *v,
                        struct key_span keys, ls_dtype type)
{
    int j = keys.first;

    for (; j + KEYS_AT_ONCE <= keys.end; j += KEYS_AT_ONCE)
        add_values(acc, p, rows, v, j, KEYS_AT_ONCE, type);
    for (; j < keys.end; j++) add_values(acc, p, rows, v, j, 1, type);
}

INLINE void scores_of(float *s, const float *q, int rows, const struct key_rows *k,
                      struct key_span keys, ls_dtype type)
{
    if (rows == 1)
        few_scores(s, q, 1, k, keys, type);
    else
        few_scores(s, q, DECODE_STRIP, k, keys, type);
}

INLINE void output_of(float *acc, const float *p, int rows, const struct key_rows *v,
                      struct key_span keys, ls_dtype type)
{
    if (rows == 1)
        few_outputs(acc, p, 1, v, keys, type);
    else
        few_outputs(acc, p, DECODE_STRIP, v, keys, type);
}

TARGET static void scores(float *s, const float *q, int rows, const struct key_rows *k,
                          struct key_span keys)
{
    if (k->type == LS_BF16)
        scores_of(s, q, rows, k, keys, LS_BF16);
    else if (k->type == LS_F16)
        scores_of(s, q, rows, k, keys, LS_F16);
    else if (k->type == LS_I8)
        scores_of(s, q, rows, k, keys, LS_I8);
    else if (k->type == LS_E4M3)
        scores_of(s, q, rows, k, keys, LS_E4M3);
    else
        scores_of(s, q, rows, k, keys, LS_F32);
}

TARGET static void output(float *acc, const float *p, int rows, const struct key_rows *v,
                          struct key_span keys)
{
    if (v->type == LS_BF16)
        output_of(acc, p, rows, v, keys, LS_BF16);
    else if (v->type == LS_F16)
        output_of(acc, p, rows, v, keys, LS_F16);
    else if (v->type == LS_I8)
        output_of(acc, p, rows, v, keys, LS_I8);
    else if (v->type == LS_E4M3)
        output_of(acc, p, rows, v, keys, LS_E4M3);
    else
        output_of(acc, p, rows, v, keys, LS_F32);
}

#endif
