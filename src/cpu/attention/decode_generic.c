/* Products with keys where the caller has them, in plain C. */
#include "cpu/attention/decode_products.h"

#define LANES 4

/* In the same order for every row. */
static float dot(const float *a, const float *b, int n)
{
    float sum[LANES] = {0};

    for (int i = 0; i < n; i += LANES)
        for (int lane = 0; lane < LANES; lane++) sum[lane] += a[i + lane] * b[i + lane];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* One key's row as floats, and zeros up to the pitch. */
static void read_row(float *out, const struct key_rows *rows, int j)
{
    const char *row = rows->first + j * rows->stride;
    const float scale = ls_dtype_is_of_8_bits(rows->type) ? decode_scale(rows, row) : 1;

    ls_dtype_convert(out, LS_F32, row, rows->type, rows->d);
    for (int e = 0; e < rows->d && ls_dtype_is_of_8_bits(rows->type); e++) out[e] *= scale;
    for (int e = rows->d; e < decode_pitch(rows); e++) out[e] = 0;
}

static void scores(float *s, const float *q, int rows, const struct key_rows *k,
                   struct key_span keys)
{
    const int pitch = decode_pitch(k);
    float row[LS_MAX_HEAD_DIM];

    for (int j = keys.first; j < keys.end; j++) {
        read_row(row, k, j);
        for (int r = 0; r < rows; r++) s[r * LS_LEAF + j] = dot(q + r * pitch, row, pitch);
    }
}

static void output(float *acc, const float *p, int rows, const struct key_rows *v,
                   struct key_span keys)
{
    const int pitch = decode_pitch(v);
    float row[LS_MAX_HEAD_DIM];

    for (int j = keys.first; j < keys.end; j++) {
        read_row(row, v, j);
        for (int r = 0; r < rows; r++)
            for (int e = 0; e < pitch; e++) acc[r * pitch + e] += p[r * LS_LEAF + j] * row[e];
    }
}

const struct decode_products cpu_decode_generic = {scores, output};
