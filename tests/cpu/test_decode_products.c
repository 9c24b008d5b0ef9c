/* The products with keys where the caller has them, of every instruction set that this CPU has,
 * against double. */
#include "../device/harness.h"
#include "cpu/attention/decode.h"
#include "cpu/attention/decode_products.h"

static const ls_isa isas[] = {LS_ISA_GENERIC, LS_ISA_AVX2, LS_ISA_AVX512};
static const ls_dtype types[] = {LS_BF16, LS_F16, LS_F32};
static const struct key_span spans[] = {{0, 256}, {0, 1},     {255, 256}, {3, 20},
                                        {16, 32}, {100, 101}, {7, 200},   {5, 13}};

/* One leaf of keys whose rows lie `gap` elements apart, NaN in between. */
static struct {
    const struct decode_products *products;
    struct key_rows rows;
    char keys[LS_LEAF * (LS_MAX_HEAD_DIM + 3) * sizeof(float)];
    float q[DECODE_STRIP * LS_MAX_HEAD_DIM], acc[DECODE_STRIP * LS_MAX_HEAD_DIM];
    float s[DECODE_STRIP * LS_LEAF];
} leaf;

static void draw_leaf(ls_isa isa, ls_dtype type, int d, int gap)
{
    float row[LS_MAX_HEAD_DIM];

    leaf.products = cpu_decode_find(isa)->decode;
    leaf.rows = (struct key_rows){
        .first = leaf.keys, .stride = (d + gap) * ls_dtype_size(type), .type = type, .d = d};
    memset(leaf.keys, 0xff, sizeof leaf.keys);
    for (int j = 0; j < LS_LEAF; j++) {
        ls_random_normal(row, 7, (uint32_t)d, (uint64_t)j * LS_MAX_HEAD_DIM, d);
        ls_dtype_convert(leaf.keys + j * leaf.rows.stride, type, row, LS_F32, d);
    }
    memset(leaf.q, 0, sizeof leaf.q);
    for (int r = 0; r < DECODE_STRIP; r++)
        ls_random_normal(leaf.q + r * decode_pitch(&leaf.rows), 8, (uint32_t)r, 0, d);
}

static double key_at(int j, int e)
{
    return ls_dtype_load(leaf.rows.type,
                         leaf.keys + j * leaf.rows.stride + e * ls_dtype_size(leaf.rows.type));
}

#define MARK 0x5a

/* Scores of other rows and of other keys are as they were. */
static void expect_untouched(int rows, struct key_span keys)
{
    float mark;

    memset(&mark, MARK, sizeof mark);
    for (int i = 0; i < DECODE_STRIP * LS_LEAF; i++) {
        const int r = i / LS_LEAF, j = i % LS_LEAF;

        if (r < rows && j >= keys.first && j < keys.end) continue;
        cr_assert_eq(leaf.s[i], mark, "%s d %d rows %d keys %d to %d: wrote to [%d][%d]",
                     ls_dtype_name(leaf.rows.type), leaf.rows.d, rows, keys.first, keys.end, r, j);
    }
}

static void check_scores(int rows, struct key_span keys)
{
    memset(leaf.s, MARK, sizeof leaf.s);
    leaf.products->scores(leaf.s, leaf.q, rows, &leaf.rows, keys);
    expect_untouched(rows, keys);
    for (int r = 0; r < rows; r++) {
        for (int j = keys.first; j < keys.end; j++) {
            const float *q = leaf.q + r * decode_pitch(&leaf.rows);
            double exact = 0, size = 0;

            for (int e = 0; e < leaf.rows.d; e++) {
                exact += q[e] * key_at(j, e);
                size += fabs(q[e] * key_at(j, e));
            }
            cr_assert_leq(fabs(leaf.s[r * LS_LEAF + j] - exact), 1e-6 * size,
                          "%s d %d keys %d to %d: [%d][%d] = %g, not %g",
                          ls_dtype_name(leaf.rows.type), leaf.rows.d, keys.first, keys.end, r, j,
                          leaf.s[r * LS_LEAF + j], exact);
        }
    }
}

/* p is the scores of before, NaN outside of `keys`; acc begins with 1. */
static void check_output(int rows, struct key_span keys)
{
    const int pitch = decode_pitch(&leaf.rows);

    for (int i = 0; i < rows * LS_LEAF; i++)
        if (i % LS_LEAF < keys.first || i % LS_LEAF >= keys.end) leaf.s[i] = NAN;
    for (int i = 0; i < rows * pitch; i++) leaf.acc[i] = 1;
    leaf.products->output(leaf.acc, leaf.s, rows, &leaf.rows, keys);
    for (int r = 0; r < rows; r++) {
        for (int e = 0; e < leaf.rows.d; e++) {
            double exact = 1, size = 1;

            for (int j = keys.first; j < keys.end; j++) {
                exact += leaf.s[r * LS_LEAF + j] * key_at(j, e);
                size += fabs(leaf.s[r * LS_LEAF + j] * key_at(j, e));
            }
            cr_assert_leq(fabs(leaf.acc[r * pitch + e] - exact), 2e-6 * size,
                          "%s d %d keys %d to %d: [%d][%d] = %g, not %g",
                          ls_dtype_name(leaf.rows.type), leaf.rows.d, keys.first, keys.end, r, e,
                          leaf.acc[r * pitch + e], exact);
        }
    }
}

Test(decode_products, equal_double)
{
    static const int dims[] = {1, 3, 8, 16, 17, 40, 100, 128, 255, 576};

    for (int i = 0; i < LENGTH(isas); i++) {
        if (isas[i] > ls_cpu_isa_best()) {
            fprintf(stderr, "SKIP: this CPU has no %s\n", ls_isa_name(isas[i]));
            continue;
        }
        for (int c = 0; c < LENGTH(dims) * LENGTH(types) * LENGTH(spans); c++) {
            const int rows = c % 2 ? 1 : DECODE_STRIP;

            draw_leaf(isas[i], types[c % LENGTH(types)], dims[c / 3 % LENGTH(dims)], c / 2 % 2 * 3);
            check_scores(rows, spans[c % LENGTH(spans)]);
            check_output(rows, spans[c % LENGTH(spans)]);
        }
    }
}
