/* Softmax of a leaf and merging of partial results, of every table that this CPU can run, against
 * double. */
#include <float.h>

#include "../device/harness.h"
#include "cpu/simd.h"

enum { MOST_ROWS = 40, P_SPACE = 7 };

static struct {
    const char *name;
    ls_isa isa;
} isas[] = {{"generic", LS_ISA_GENERIC},
            {"avx2", LS_ISA_AVX2},
            {"avx512", LS_ISA_AVX512},
            {"avx512bf16", LS_ISA_AVX512BF16}};

/* Calls test(table, name) for each table that this CPU can run. */
static void each_table(void (*test)(const struct simd *simd, const char *name))
{
    const ls_isa best = ls_cpu_isa_best();

    for (int i = 0; i < LENGTH(isas); i++) {
        if (isas[i].isa <= best)
            test(simd_of(isas[i].isa), isas[i].name);
        else
            fprintf(stderr, "SKIP: this CPU has no %s\n", isas[i].name);
    }
}

/* A leaf of scores and what softmax makes of it. */
static struct leaf {
    bool bf16, in_place;
    int rows, stride; /* floats */
    float scale;
    bool masked;
    struct ls_leaf_keys visible[MOST_ROWS];
    float s[MOST_ROWS * (LS_LEAF + 32)], before[MOST_ROWS * (LS_LEAF + 32)];
    float p[MOST_ROWS * (LS_LEAF + P_SPACE)];
    float m[MOST_ROWS + 1], l[MOST_ROWS + 1];
} leaf;

static void draw_leaf(int rows, int stride, float scale, float size)
{
    leaf.rows = rows;
    leaf.stride = stride;
    leaf.scale = scale;
    leaf.masked = false;
    ls_random_normal(leaf.s, 3, (uint32_t)rows, 0, rows * stride);
    for (int i = 0; i < rows * stride; i++) leaf.s[i] *= size;
    for (int r = 0; r < rows; r++) leaf.visible[r] = ls_leaf_keys_first[LS_LEAF];
}

static void mask_rows(void)
{
    static const struct {
        int prefix, from, to;
    } some[] = {{0, 0, 256},   {0, 0, 0},     {0, 0, 1},       {0, 0, 2},       {0, 0, 15},
                {0, 0, 16},    {17, 17, 17},  {0, 0, 31},      {0, 0, 32},      {33, 33, 33},
                {0, 0, 127},   {0, 0, 200},   {0, 0, 240},     {0, 0, 241},     {0, 0, 255},
                {0, 1, 256},   {0, 16, 33},   {0, 255, 256},   {0, 250, 250},   {1, 2, 3},
                {15, 17, 240}, {16, 32, 256}, {100, 100, 256}, {256, 256, 256}, {7, 256, 256},
                {31, 200, 201}};

    leaf.masked = true;
    for (int r = 0; r < leaf.rows; r++) {
        const int c = r % LENGTH(some);

        leaf.visible[r] = ls_leaf_keys_run(some[c].from, some[c].to);
        for (int w = 0; w < LS_LEAF_WORDS; w++)
            leaf.visible[r].word[w] |= ls_leaf_keys_first[some[c].prefix].word[w];
        if (r % 5 == 4) leaf.visible[r].word[r % 4] ^= UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)r;
    }
}

static int p_stride(void)
{
    if (!leaf.in_place) return LS_LEAF + P_SPACE;
    return leaf.bf16 ? 2 * leaf.stride : leaf.stride;
}

static double p_at(int r, int j)
{
    const void *p = leaf.in_place ? leaf.s : leaf.p;
    const ls_dtype type = leaf.bf16 ? LS_BF16 : LS_F32;

    return ls_dtype_load(type, (const char *)p +
                                   (size_t)(r * p_stride() + j) * (size_t)ls_dtype_size(type));
}

static void run_softmax(const struct simd *simd)
{
    const struct softmax_rows rows = {.p = leaf.in_place ? leaf.s : leaf.p,
                                      .p_stride = p_stride(),
                                      .m = leaf.m,
                                      .l = leaf.l,
                                      .s = leaf.s,
                                      .s_stride = leaf.stride,
                                      .visible = leaf.masked ? leaf.visible : NULL,
                                      .rows = leaf.rows,
                                      .scale = leaf.scale};

    memcpy(leaf.before, leaf.s, sizeof leaf.s);
    leaf.m[leaf.rows] = leaf.l[leaf.rows] = 77;
    (leaf.bf16 ? simd->softmax_bf16 : simd->softmax_f32)(&rows);
    cr_expect(leaf.m[leaf.rows] == 77 && leaf.l[leaf.rows] == 77, "wrote beyond the rows");
}

/* What row r must be, by double. */
static void expect_row(const char *name, int r)
{
    const float *s = leaf.before + r * leaf.stride;
    /* of the polynomial; of the exponent's own rounding; of rounding p */
    const double exp_error = leaf.bf16 ? 2.7e-6 : 1.6e-7, u = leaf.bf16 ? 0x1p-8 : 0;
    double top = -INFINITY, sum = 0;

    for (int j = 0; j < LS_LEAF; j++)
        if (ls_leaf_keys_have(&leaf.visible[r], j)) top = fmax(top, (double)leaf.scale * s[j]);
    const double place = fabs(top) * 0x1p-23 + 1e-9;
    for (int j = 0; j < LS_LEAF; j++) {
        const double x = (double)leaf.scale * s[j] - top;
        const double exact =
            ls_leaf_keys_have(&leaf.visible[r], j) && top > -INFINITY ? exp2(x) : 0;
        const double limit = exact * (exp_error + place + fabs(x) * 0x1p-23 + u) + FLT_MIN;

        sum += exact;
        if (exact == 0) {
            cr_assert(p_at(r, j) == 0 && !signbit(p_at(r, j)), "%s row %d key %d: p = %g", name, r,
                      j, p_at(r, j));
        } else {
            cr_assert_lt(fabs(p_at(r, j) - exact), limit, "%s row %d key %d: p = %g, not %g", name,
                         r, j, p_at(r, j), exact);
        }
    }
    cr_expect(top == leaf.m[r] || fabs(leaf.m[r] - top) <= place, "%s row %d: m = %g, not %g", name,
              r, leaf.m[r], top);
    cr_expect(sum == leaf.l[r] || fabs(leaf.l[r] - sum) < sum * (exp_error + 2 * place + 5e-7),
              "%s row %d: l = %g, not %g", name, r, leaf.l[r], sum);
}

static void check_softmax(const struct simd *simd, const char *name)
{
    run_softmax(simd);
    for (int r = 0; r < leaf.rows; r++) expect_row(name, r);
}

/* Calls test for both types of p, in place and not. */
static void each_form(const struct simd *simd, const char *name,
                      void (*test)(const struct simd *simd, const char *name))
{
    for (int form = 0; form < 4; form++) {
        leaf.bf16 = form % 2;
        leaf.in_place = form / 2;
        if (leaf.bf16 && !simd->softmax_bf16) continue;
        test(simd, name);
    }
}

static void softmax_of_any_rows(const struct simd *simd, const char *name)
{
    static const int strides[] = {LS_LEAF, LS_LEAF + 16, LS_LEAF + 3};

    for (int rows = 1; rows <= MOST_ROWS; rows++) {
        for (int masked = 0; masked < 2; masked++) {
            draw_leaf(rows, strides[rows % 3], 0.18f, 8);
            if (masked) mask_rows();
            check_softmax(simd, name);
        }
    }
}

static void softmax_of_any_size(const struct simd *simd, const char *name)
{
    static const float sizes[] = {0, 1e-3f, 1, 40, 1e4f, 1e6f};

    for (int c = 0; c < 2 * LENGTH(sizes); c++) {
        draw_leaf(16, LS_LEAF, c % 2 ? 0 : 1.4f, sizes[c / 2]);
        mask_rows();
        check_softmax(simd, name);
    }
}

/* Where one in the last place is more than an exponent can be, the largest still counts as one. */
static void softmax_of_huge_scores(const struct simd *simd, const char *name)
{
    static const float sizes[] = {1e7f, 1e8f, 1e9f, 1e12f, 1e20f, 1e36f};

    for (int c = 0; c < 2 * LENGTH(sizes); c++) {
        draw_leaf(MOST_ROWS, LS_LEAF, 1.4f, c % 2 ? -sizes[c / 2] : sizes[c / 2]);
        mask_rows();
        run_softmax(simd);
        for (int r = 0; r < leaf.rows; r++) {
            if (ls_leaf_keys_are_none(&leaf.visible[r])) continue;
            cr_expect(isfinite(leaf.m[r]), "%s size %g row %d: m = %g", name, (double)sizes[c / 2],
                      r, (double)leaf.m[r]);
            cr_expect(leaf.l[r] > 0.5f && leaf.l[r] < LS_LEAF, "%s size %g row %d: l = %g", name,
                      (double)sizes[c / 2], r, (double)leaf.l[r]);
        }
    }
}

/* Scores of -inf in places that differ from row to row, whole rows as well. */
static void softmax_of_minus_infinity(const struct simd *simd, const char *name)
{
    draw_leaf(20, LS_LEAF, 1, 3);
    mask_rows();
    for (int r = 0; r < leaf.rows; r++)
        for (int j = 0; j < LS_LEAF; j++)
            if (r % 5 == 4 || (j + r) % 3 == 0) leaf.s[r * leaf.stride + j] = -INFINITY;
    check_softmax(simd, name);
}

/* What masked keys hold never matters. */
static void softmax_hides_masked_keys(const struct simd *simd, const char *name)
{
    static const float poison[] = {NAN, INFINITY, -INFINITY, 3e38f};

    for (int c = 0; c < LENGTH(poison); c++) {
        draw_leaf(MOST_ROWS, LS_LEAF, 0.5f, 3);
        mask_rows();
        for (int r = 0; r < leaf.rows; r++)
            for (int j = 0; j < LS_LEAF; j++)
                if (!ls_leaf_keys_have(&leaf.visible[r], j))
                    leaf.s[r * leaf.stride + j] = poison[c];
        check_softmax(simd, name);
    }
}

/* A NaN that a row sees makes its l NaN, and the row is not an empty one; whatever else it sees. */
static void softmax_keeps_nan(const struct simd *simd, const char *name)
{
    static const int16_t seen[] = {256, 256, 1, 5, 17, 40, 255};
    static const float others[] = {0, -INFINITY, NAN};

    for (int c = 0; c < 4 * LENGTH(others); c++) {
        draw_leaf(LENGTH(seen), LS_LEAF, 1, 1);
        leaf.masked = true;
        for (int r = 0; r < leaf.rows; r++) {
            leaf.visible[r] = ls_leaf_keys_run(0, seen[r]);
            float *s = leaf.s + r * leaf.stride;

            for (int j = 0; j < LS_LEAF && c / 4; j++) s[j] = others[c / 4];
            s[c % 4 * (seen[r] - 1) / 3] = NAN;
        }
        run_softmax(simd);
        for (int r = 0; r < leaf.rows; r++) {
            cr_expect(isnan(leaf.l[r]), "%s case %d row %d: l = %g", name, c, r, leaf.l[r]);
            cr_expect_neq(leaf.m[r], -INFINITY, "%s case %d row %d: as if empty", name, c, r);
        }
    }
}

/* Every exponent that matters: a row of 0 and 255 others, all over [-150, 0]. */
static void exponentials_are_within_their_degree(const struct simd *simd, const char *name)
{
    for (int c = 0; c < 16; c++) {
        draw_leaf(MOST_ROWS, LS_LEAF, 1, 0);
        for (int i = 0; i < MOST_ROWS * LS_LEAF; i++) {
            const uint64_t random = ls_random_below(1, 0, (uint64_t)(c * 10240 + i), 1 << 23);

            leaf.s[i] = i % LS_LEAF == 0 ? 0 : -(float)random * 0x1p-23f * (c % 2 ? 1 : 150);
        }
        check_softmax(simd, name);
    }
}

#define TEST_SOFTMAX(what)                                                                         \
    static void what##_in_every_form(const struct simd *simd, const char *name)                    \
    {                                                                                              \
        each_form(simd, name, what);                                                               \
    }                                                                                              \
    Test(simd, what)                                                                               \
    {                                                                                              \
        each_table(what##_in_every_form);                                                          \
    }

TEST_SOFTMAX(softmax_of_any_rows)
TEST_SOFTMAX(softmax_of_any_size)
TEST_SOFTMAX(softmax_of_huge_scores)
TEST_SOFTMAX(softmax_of_minus_infinity)
TEST_SOFTMAX(softmax_hides_masked_keys)
TEST_SOFTMAX(softmax_keeps_nan)
TEST_SOFTMAX(exponentials_are_within_their_degree)

/* Products of all sizes, near keys and far ones; a NaN stays one. */
static void logits_equal_double(const struct simd *simd, const char *name)
{
    static const struct logit_row rows[] = {
        {0.125F, 0, 0, 0}, {0.2F, 30, 0, 0},        {1, 0.5F, 0, 0},      {3, 50, 0.25F, 100},
        {1, 0, 1, -1000},  {0.7F, 0, -0.3F, 16e6F}, {0, 2, 0.5F, 255.0F}, {1, 0, 0.3F, 6e8F}};

    for (int c = 0; c < LENGTH(rows) * 6; c++) {
        const struct logit_row *row = &rows[c % LENGTH(rows)];
        float s[LS_LEAF], before[LS_LEAF];

        ls_random_normal(s, 6, (uint32_t)c, 0, LS_LEAF);
        for (int j = 0; j < LS_LEAF; j++) s[j] *= powf(10, (float)(c / LENGTH(rows)) - 3);
        s[77] = NAN;
        s[78] = INFINITY;
        memcpy(before, s, sizeof s);
        simd->logits(s, row);
        for (int j = 0; j < LS_LEAF; j++) {
            const double x = (double)row->scale * before[j], cap = row->soft_cap;
            const double bent = cap > 0 ? cap * tanh(x / cap) : x;
            const double bias = (double)row->slope * fabs((double)row->place - j);
            const double size = fabs(bent) * 5e-7 + fabs(bias) * 2e-7;

            cr_assert(isnan(s[j]) ? isnan(bent - bias)
                                  : s[j] == bent - bias || fabs(s[j] - (bent - bias)) <= size,
                      "%s case %d: %g becomes %g, not %g", name, c, (double)before[j], (double)s[j],
                      bent - bias);
        }
    }
}

Test(simd, logits)
{
    each_table(logits_equal_double);
}

/* Partial results of rows; odd ones are empty in a or b or both where `holes` says so. */
enum { D = 48 };

struct states {
    float m[MOST_ROWS], l[MOST_ROWS], acc[MOST_ROWS * D];
};

static struct ls_row_states view(struct states *a)
{
    return (struct ls_row_states){.m = a->m, .l = a->l, .acc = a->acc};
}

static void draw_states(struct states *out, uint32_t stream, float spread)
{
    ls_random_normal(out->m, 9, stream, 0, MOST_ROWS);
    ls_random_normal(out->l, 9, stream, 1000, MOST_ROWS);
    ls_random_normal(out->acc, 9, stream, 2000, MOST_ROWS * D);
    for (int r = 0; r < MOST_ROWS; r++) {
        out->m[r] *= spread;
        out->l[r] = 1 + fabsf(out->l[r]);
    }
}

/* As the kernel leaves it: m alone says that a row is empty. */
static void empty_row(struct states *a, int r)
{
    a->m[r] = -INFINITY;
    a->l[r] = NAN;
    for (int j = 0; j < D; j++) a->acc[r * D + j] = NAN;
}

static void expect_row_bits(const struct states *got, const struct states *want, int r,
                            const char *name)
{
    cr_expect(memcmp(&got->m[r], &want->m[r], sizeof(float)) == 0 &&
                  memcmp(&got->l[r], &want->l[r], sizeof(float)) == 0 &&
                  memcmp(&got->acc[r * D], &want->acc[r * D], D * sizeof(float)) == 0,
              "%s: row %d", name, r);
}

static void merging_with_empty_selects(const struct simd *simd, const char *name)
{
    for (int rows = 1; rows <= MOST_ROWS; rows++) {
        struct states a, b, before;

        draw_states(&a, 1, 3);
        draw_states(&b, 2, 3);
        for (int r = 0; r < MOST_ROWS; r++) {
            a.acc[r * D + r % D] = b.acc[r * D + r % D] = -0.0f;
            if (r % 3 != 0) empty_row(r % 3 == 1 ? &a : &b, r);
            if (r % 7 == 6) a.m[r] = b.m[r] = -INFINITY;
        }
        before = a;
        simd->merge(view(&a), view(&b), rows, D);
        for (int r = 0; r < rows; r++) {
            if (before.m[r] == -INFINITY && b.m[r] == -INFINITY)
                cr_expect_eq(a.m[r], -INFINITY, "%s: two empty ones give m = %g", name, a.m[r]);
            else if (r % 3 != 0)
                expect_row_bits(&a, r % 3 == 1 ? &b : &before, r, name);
        }
        for (int r = rows; r < MOST_ROWS; r++) expect_row_bits(&a, &before, r, name);
    }
}

Test(simd, merge_with_empty)
{
    each_table(merging_with_empty_selects);
}

static double absolute_error(double got, double exact, double size)
{
    return fabs(got - exact) / size;
}

static void merges_are_the_sum(const struct simd *simd, const char *name)
{
    static const float spreads[] = {0, 1, 20, 1e4f};

    for (int c = 0; c < LENGTH(spreads); c++) {
        struct states a, b, before;

        draw_states(&a, 1, spreads[c]);
        draw_states(&b, 2, spreads[c]);
        before = a;
        simd->merge(view(&a), view(&b), MOST_ROWS, D);
        for (int r = 0; r < MOST_ROWS; r++) {
            const double top = fmax(before.m[r], b.m[r]);
            const double keep = exp2(before.m[r] - top), add = exp2(b.m[r] - top);
            const double l = keep * before.l[r] + add * b.l[r];

            cr_expect_eq(a.m[r], (float)top);
            cr_expect_lt(absolute_error(a.l[r], l, l), 3e-7, "%s: l %g, not %g", name, a.l[r], l);
            for (int j = r * D; j < (r + 1) * D; j++) {
                const double exact = keep * before.acc[j] + add * b.acc[j];
                const double size = keep * fabs(before.acc[j]) + add * fabs(b.acc[j]) + 1e-30;

                cr_expect_lt(absolute_error(a.acc[j], exact, size), 3e-7, "%s: acc %g, not %g",
                             name, a.acc[j], exact);
            }
        }
    }
}

Test(simd, merge_is_the_sum)
{
    each_table(merges_are_the_sum);
}

/* The side with the larger m is taken as it is: what is too small to count changes no bit of it. */
static void larger_side_weighs_one(const struct simd *simd, const char *name)
{
    for (int swapped = 0; swapped < 2; swapped++) {
        struct states a, b, large;

        draw_states(&a, 1, 1);
        draw_states(&b, 2, 1);
        for (int r = 0; r < MOST_ROWS; r++) (swapped ? &b : &a)->m[r] += 200;
        large = swapped ? b : a;
        simd->merge(view(&a), view(&b), MOST_ROWS, D);
        for (int r = 0; r < MOST_ROWS; r++) expect_row_bits(&a, &large, r, name);
    }
}

Test(simd, merge_weight_of_the_larger)
{
    each_table(larger_side_weighs_one);
}

static void association_hardly_matters(const struct simd *simd, const char *name)
{
    struct states left[3], right[3];

    for (int i = 0; i < 3; i++) {
        draw_states(&left[i], (uint32_t)i, 4);
        right[i] = left[i];
    }
    simd->merge(view(&left[0]), view(&left[1]), MOST_ROWS, D);
    simd->merge(view(&left[0]), view(&left[2]), MOST_ROWS, D);
    simd->merge(view(&right[1]), view(&right[2]), MOST_ROWS, D);
    simd->merge(view(&right[0]), view(&right[1]), MOST_ROWS, D);
    for (int r = 0; r < MOST_ROWS; r++) {
        cr_expect_eq(left[0].m[r], right[0].m[r], "%s: row %d", name, r);
        cr_expect_float_eq(left[0].l[r], right[0].l[r], 1e-6f * left[0].l[r], "%s: row %d", name,
                           r);
        for (int j = r * D; j < (r + 1) * D; j++)
            cr_expect_float_eq(left[0].acc[j], right[0].acc[j], 2e-6f, "%s: row %d", name, r);
    }
}

Test(simd, merge_association)
{
    each_table(association_hardly_matters);
}

/* A row that saw a NaN stays NaN, and does not become an empty one, on either side of any merge. */
static void merging_keeps_nan(const struct simd *simd, const char *name)
{
    for (int c = 0; c < 2; c++) {
        struct states a, b;

        draw_states(&a, 1, 1);
        draw_states(&b, 2, 1);
        for (int r = 0; r < MOST_ROWS; r++) {
            struct states *nan = r % 2 ? &a : &b, *other = r % 2 ? &b : &a;

            nan->l[r] = NAN;
            if (c == 0) nan->m[r] = NAN;
            if (r % 3 == 0) empty_row(other, r);
        }
        simd->merge(view(&a), view(&b), MOST_ROWS, D);
        for (int r = 0; r < MOST_ROWS; r++) {
            cr_expect(isnan(a.l[r]), "%s row %d: l = %g", name, r, a.l[r]);
            cr_expect_neq(a.m[r], -INFINITY, "%s row %d: as if empty", name, r);
        }
    }
}

Test(simd, merge_with_nan)
{
    each_table(merging_keeps_nan);
}
