/* Scores and output of one leaf, of whatever computes them on each instruction set, against
 * double; and the AMX kernel once more, emulated, for machines without AMX. */
#if defined(__x86_64__)
#define LS_AMX_EMULATED
#include "cpu/attention/products_amx.c"
#endif

#include "../device/harness.h"

/* Beyond what the product may touch. */
#define GUARD 64
#define MARK 0x5a

/* One leaf against one strip of rows, for one row of the table. */
static struct bench {
    const struct products *products;
    struct head_dims dims, pad;
    void *worker, *scratch, *k, *v; /* packed */
    char *raw;                      /* [LS_LEAF][pad.d] of K, [LS_LEAF][pad.d_v] of V */
    char *q;                        /* [strip][pad.d] */
    float *s;                       /* scores or probabilities, [strip][score_stride] */
    float *acc;                     /* [strip][pad.d_v] */
    size_t s_bytes, acc_bytes;
} bench;

static void *allocate(size_t bytes)
{
    char *memory = aligned_alloc(64, (bytes + GUARD + 63) / 64 * 64);

    cr_assert_not_null(memory);
    memset(memory, MARK, bytes + GUARD);
    return memory;
}

static void expect_guard(const void *memory, size_t bytes, const char *what)
{
    for (size_t i = bytes; i < bytes + GUARD; i++)
        cr_assert_eq(((const char *)memory)[i], MARK, "%s d %d, %d: wrote behind %s",
                     bench.products->name, bench.dims.d, bench.dims.d_v, what);
}

static size_t element_size(void)
{
    return (size_t)ls_dtype_size(bench.products->type);
}

static double value_at(const void *memory, int64_t i)
{
    return ls_dtype_load(bench.products->type, (const char *)memory + (size_t)i * element_size());
}

/* rows of d_pad elements, drawn up to d, zero beyond. */
static void draw_rows(void *out, int rows, uint32_t stream, int d, int d_pad)
{
    float row[LS_MAX_HEAD_DIM];

    for (int r = 0; r < rows; r++) {
        memset(row, 0, sizeof row);
        ls_random_normal(row, 21, stream, (uint64_t)r * LS_MAX_HEAD_DIM, d);
        ls_dtype_convert((char *)out + (size_t)(r * d_pad) * element_size(), bench.products->type,
                         row, LS_F32, d_pad);
    }
}

static void draw_queries(void)
{
    draw_rows(bench.q, bench.products->strip, 0, bench.dims.d, bench.pad.d);
}

static void bench_open(const struct products *products, ls_isa isa, struct head_dims dims)
{
    const struct ls_attention_shape shape = {.d = dims.d, .d_v = dims.d_v};
    const struct head_dims pad = head_dims_padded(&shape, products->d_multiple);

    bench = (struct bench){.products = products, .dims = dims, .pad = pad};
    bench.s_bytes = (size_t)(products->strip * products->score_stride) * sizeof(float);
    bench.acc_bytes = (size_t)(products->strip * pad.d_v) * sizeof(float);
    bench.scratch = allocate(products->scratch_bytes());
    bench.k = allocate(products->packed_bytes(pad.d));
    bench.v = allocate(products->packed_bytes(pad.d_v));
    bench.raw = allocate((size_t)(LS_LEAF * head_dims_widest(pad)) * element_size());
    bench.q = allocate((size_t)(products->strip * pad.d) * element_size());
    bench.s = allocate(bench.s_bytes);
    bench.acc = allocate(bench.acc_bytes);
    cr_assert_eq(products->create(&bench.worker, isa, pad, bench.scratch), LS_OK, "%s",
                 ls_message());
}

static void bench_close(void)
{
    void *all[] = {bench.scratch, bench.k, bench.v, bench.raw, bench.q, bench.s, bench.acc};

    expect_guard(bench.scratch, bench.products->scratch_bytes(), "its scratch");
    expect_guard(bench.k, bench.products->packed_bytes(bench.pad.d), "a packed leaf of K");
    expect_guard(bench.v, bench.products->packed_bytes(bench.pad.d_v), "a packed leaf of V");
    expect_guard(bench.s, bench.s_bytes, "the scores");
    expect_guard(bench.acc, bench.acc_bytes, "the accumulator");
    bench.products->destroy(bench.worker);
    for (int i = 0; i < LENGTH(all); i++) free(all[i]);
}

static void multiply_scores(const void *q, int rows, struct key_span keys)
{
    const struct operand packed = {.packed = bench.k};

    if (bench.products->begin) bench.products->begin();
    cr_assert_eq(bench.products->scores(bench.s, bench.worker, q, packed, rows, keys), LS_OK);
    if (bench.products->end) bench.products->end();
}

static void multiply_output(int rows, struct key_span keys)
{
    const struct operand packed = {.packed = bench.v};

    if (bench.products->begin) bench.products->begin();
    cr_assert_eq(bench.products->output(bench.acc, bench.worker, bench.s, packed, rows, keys),
                 LS_OK);
    if (bench.products->end) bench.products->end();
}

static void pack_keys(void)
{
    draw_rows(bench.raw, LS_LEAF, 1, bench.dims.d, bench.pad.d);
    cr_assert_eq(bench.products->pack_k(bench.k, bench.worker, bench.raw), LS_OK);
}

static void pack_values(void)
{
    draw_rows(bench.raw, LS_LEAF, 2, bench.dims.d_v, bench.pad.d_v);
    cr_assert_eq(bench.products->pack_v(bench.v, bench.worker, bench.raw), LS_OK);
}

static void check_scores(int rows, struct key_span keys)
{
    memset(bench.s, MARK, bench.s_bytes);
    multiply_scores(bench.q, rows, keys);
    for (int r = 0; r < rows; r++) {
        for (int j = keys.first; j<keys.end; j += keys.end - keys.first> 40 ? 7 : 1) {
            double exact = 0, size = 0;

            for (int e = 0; e < bench.dims.d; e++) {
                const double term = value_at(bench.q, r * bench.pad.d + e) *
                                    value_at(bench.raw, j * bench.pad.d + e);
                exact += term;
                size += fabs(term);
            }
            const double got = bench.s[r * bench.products->score_stride + j];
            cr_assert_leq(fabs(got - exact), 1e-6 * size,
                          "%s d %d rows %d keys %d to %d: [%d][%d] = %g, not %g",
                          bench.products->name, bench.dims.d, rows, keys.first, keys.end, r, j, got,
                          exact);
        }
    }
}

static char *p_row(int r)
{
    return (char *)bench.s + (size_t)(r * bench.products->p_stride) * element_size();
}

/* Probabilities of `keys`, exact zeros elsewhere; rows beyond hold anything finite. */
static void draw_probabilities(int rows, struct key_span keys)
{
    float row[LS_LEAF];

    memset(bench.s, MARK, bench.s_bytes);
    for (int r = 0; r < rows; r++) {
        ls_random_normal(row, 22, (uint32_t)r, 0, LS_LEAF);
        for (int j = 0; j < LS_LEAF; j++)
            row[j] = j >= keys.first && j < keys.end ? fabsf(row[j]) : 0;
        ls_dtype_convert(p_row(r), bench.products->type, row, LS_F32, LS_LEAF);
    }
}

static void check_output(int rows, struct key_span keys)
{
    draw_probabilities(rows, keys);
    memset(bench.acc, MARK, bench.acc_bytes);
    multiply_output(rows, keys);
    for (int r = 0; r < rows; r++) {
        for (int e = 0; e<bench.pad.d_v; e += bench.dims.d_v> 40 ? 5 : 1) {
            double exact = 0, size = 0;

            for (int j = keys.first; j < keys.end; j++) {
                const double term =
                    value_at(p_row(r), j) * value_at(bench.raw, j * bench.pad.d_v + e);
                exact += term;
                size += fabs(term);
            }
            const double got = bench.acc[r * bench.pad.d_v + e];
            cr_assert_leq(fabs(got - exact), 1e-6 * size,
                          "%s d %d rows %d keys %d to %d: [%d][%d] = %g, not %g",
                          bench.products->name, bench.dims.d_v, rows, keys.first, keys.end, r, e,
                          got, exact);
        }
    }
}

static const struct key_span whole = {0, LS_LEAF};
static const struct key_span keys_tried[] = {{0, 256},   {0, 1},   {0, 255}, {0, 31},    {0, 32},
                                             {0, 33},    {0, 16},  {0, 17},  {0, 129},   {1, 256},
                                             {255, 256}, {31, 33}, {32, 64}, {100, 101}, {64, 200}};

static void equals_double(const struct products *products, ls_isa isa)
{
    static const struct head_dims dims[] = {
        {1, 1},    {16, 64},   {17, 40},   {40, 17},  {64, 64},   {80, 128}, {96, 256},
        {128, 96}, {192, 128}, {200, 200}, {256, 16}, {576, 512}, {512, 576}};

    for (int c = 0; c < LENGTH(dims); c++) {
        const int strip = products->strip;
        const int rows[] = {strip, 1, 2, strip / 2, 15, 16, 17, strip - 1, strip < 31 ? strip : 31};

        bench_open(products, isa, dims[c]);
        draw_queries();
        for (int i = 0; i < LENGTH(keys_tried); i++) {
            const int some = rows[(i + c) % LENGTH(rows)];

            pack_keys();
            check_scores(some, keys_tried[i]);
            pack_values();
            check_output(some, keys_tried[i]);
        }
        bench_close();
    }
}

/* Row `from` of a full strip, computed alone as row `to` of so many rows, keeps its bits. */
static void check_place(int from, int to, int rows)
{
    const size_t row = (size_t)bench.pad.d * element_size();
    const size_t stride = (size_t)bench.products->score_stride;
    char *other = allocate((size_t)bench.products->strip * row);
    float want[LS_LEAF];

    multiply_scores(bench.q, bench.products->strip, whole);
    memcpy(want, bench.s + (size_t)from * stride, sizeof want);
    memcpy(other + (size_t)to * row, bench.q + (size_t)from * row, row);
    multiply_scores(other, rows, whole);
    cr_expect_eq(memcmp(want, bench.s + (size_t)to * stride, sizeof want), 0,
                 "%s d %d: scores of row %d differ as row %d of %d", bench.products->name,
                 bench.dims.d, from, to, rows);
    free(other);
}

static void check_place_of_output(int from, int to, int rows)
{
    const size_t row = (size_t)bench.pad.d_v;
    float want[LS_MAX_HEAD_DIM];
    char p[LS_LEAF * sizeof(float)];

    draw_probabilities(bench.products->strip, whole);
    memcpy(p, p_row(from), LS_LEAF * element_size());
    multiply_output(bench.products->strip, whole);
    memcpy(want, bench.acc + (size_t)from * row, row * sizeof(float));
    draw_probabilities(rows, (struct key_span){0, 99});
    memcpy(p_row(to), p, LS_LEAF * element_size());
    multiply_output(rows, whole);
    cr_expect_eq(memcmp(want, bench.acc + (size_t)to * row, row * sizeof(float)), 0,
                 "%s d %d: output of row %d differs as row %d of %d", bench.products->name,
                 bench.dims.d_v, from, to, rows);
}

static void place_changes_no_bit(const struct products *products, ls_isa isa)
{
    static const struct head_dims dims[] = {{16, 256}, {64, 64}, {80, 128}, {128, 80}, {576, 16}};

    for (int c = 0; c < LENGTH(dims); c++) {
        const int last = products->strip - 1;

        bench_open(products, isa, dims[c]);
        draw_queries();
        pack_keys();
        check_place(0, last, products->strip);
        check_place(last, 0, 1);
        check_place(7, 3, 9);
        check_place(7, 16, 17);
        pack_values();
        check_place_of_output(0, last, products->strip);
        check_place_of_output(last, 0, 1);
        check_place_of_output(7, 3, 9);
        check_place_of_output(7, 16, 17);
        bench_close();
    }
}

/* Room for scores and probabilities, and the sums and maxima of a strip. */
static struct softmax_rows softmax_open(int rows)
{
    const size_t scores = (size_t)(bench.products->strip * bench.products->score_stride);

    return (struct softmax_rows){
        .s = allocate(scores * sizeof(float)),
        .s_stride = bench.products->score_stride,
        .p = allocate((size_t)(bench.products->strip * bench.products->p_stride) * element_size()),
        .p_stride = bench.products->p_stride,
        .m = allocate((size_t)rows * sizeof(float)),
        .l = allocate((size_t)rows * sizeof(float)),
        .rows = rows,
        .scale = 0.2f};
}

static void softmax_close(struct softmax_rows *softmax)
{
    free((void *)softmax->s);
    free(softmax->p);
    free(softmax->m);
    free(softmax->l);
}

static void take_probabilities(const struct softmax_rows *softmax, const void *q,
                               struct key_span keys)
{
    const struct operand k = {.packed = bench.k};

    bench.products->begin();
    cr_assert_eq(bench.products->probabilities(softmax, bench.worker, q, k, keys), LS_OK);
    bench.products->end();
}

static double probability(const struct softmax_rows *softmax, int r, int j)
{
    return value_at(softmax->p, r * softmax->p_stride + j);
}

/* p and l are those of 2^(scale s - m), whatever m is; large exponents are less exact. */
static void check_probabilities(const struct softmax_rows *softmax, int r, struct key_span keys)
{
    const struct ls_leaf_keys *seen = keys_of_row(softmax, r);
    double sum = 0;

    for (int j = keys.first; j < keys.end; j++) {
        double s = 0;

        for (int e = 0; e < bench.dims.d && ls_leaf_keys_have(seen, j); e++)
            s += value_at(bench.q, r * bench.pad.d + e) * value_at(bench.raw, j * bench.pad.d + e);
        const double exact =
            ls_leaf_keys_have(seen, j) ? exp2(softmax->scale * s - softmax->m[r]) : 0;
        cr_assert_leq(fabs(probability(softmax, r, j) - exact), exact / 250 + 0x1p-126,
                      "d %d row %d key %d", bench.dims.d, r, j);
        sum += exact;
    }
    if (ls_leaf_keys_are_none(seen))
        cr_assert(softmax->l[r] == 0 && softmax->m[r] == -INFINITY);
    else
        cr_assert_leq(fabs(softmax->l[r] - sum), (2e-5 + 4e-7 * fabs(softmax->m[r])) * sum,
                      "d %d row %d of %d: %g, not %g", bench.dims.d, r, softmax->rows,
                      softmax->l[r], sum);
}

/* One of the ways in which a row sees some keys of a leaf: causal, a window's beginning, a window,
 * a prefix and a window, scattered ones. */
static struct ls_leaf_keys some_keys(int way, int at, int width)
{
    const int from = at > width ? at - width : 0;
    struct ls_leaf_keys keys = ls_leaf_keys_run(way == 1   ? at
                                                : way >= 2 ? from
                                                           : 0,
                                                way == 1 ? LS_LEAF : at);

    for (int i = 0; i < LS_LEAF_WORDS && way == 3; i++)
        keys.word[i] |= ls_leaf_keys_run(0, from / 2).word[i];
    for (int i = 0; i < LS_LEAF_WORDS && way == 4; i++)
        keys.word[i] =
            UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)(at + i) & -(uint64_t)(at / 64 != i);
    return keys;
}

/* From the first key that one of the rows sees to the last; {256, 0} if there is none. */
static struct key_span span_of(const struct ls_leaf_keys *visible, int rows)
{
    struct key_span span = {.first = LS_LEAF};

    for (int r = 0; r < rows; r++)
        for (int j = 0; j < LS_LEAF; j++)
            if (ls_leaf_keys_have(&visible[r], j)) {
                if (j < span.first) span.first = j;
                if (j >= span.end) span.end = j + 1;
            }
    return span;
}

/* Full strips and short ones, all keys seen or some, rows whose first keys are no measure. */
static void probabilities_equal_double(const struct products *products, ls_isa isa)
{
    static const int dims[] = {1, 17, 64, 96, 128, 160, 200, 256, 576};
    static const int counts[] = {32, 31, 17, 16, 9, 1};

    if (!products->probabilities) return;
    for (int c = 0; c < LENGTH(dims) * LENGTH(counts); c++) {
        const int rows = counts[c % LENGTH(counts)], from = c * 53 % (LS_LEAF - rows);
        struct ls_leaf_keys visible[32];

        bench_open(products, isa, (struct head_dims){dims[c / LENGTH(counts)], 32});
        draw_queries();
        ls_dtype_store(products->type, bench.q, 1000); /* row 0, nearly always out of range */
        pack_keys();
        for (int r = 0; r < rows; r++) visible[r] = some_keys((c + c / 6) % 5, from + r, rows);
        for (int r = 0; r < rows && r < 3 && c % 4 == 0; r++) visible[r] = (struct ls_leaf_keys){0};
        struct softmax_rows softmax = softmax_open(rows);
        softmax.visible = c % 3 == 0 ? NULL : visible;
        const struct key_span keys = softmax.visible ? span_of(visible, rows) : whole;
        if (keys.end > 0) take_probabilities(&softmax, bench.q, keys);
        for (int r = 0; r < rows && keys.end > 0; r++) check_probabilities(&softmax, r, keys);
        softmax_close(&softmax);
        bench_close();
    }
}

/* A row's p, m and l are the same alone and beside others, also where one of these is repeated. */
static void probabilities_keep_bits(const struct products *products, ls_isa isa)
{
    static const int places[][3] = {{0, 31, 32}, {31, 0, 1}, {7, 3, 9}, {7, 16, 17}, {20, 1, 32}};

    if (!products->probabilities) return;
    for (int c = 0; c < LENGTH(places) * 3; c++) {
        const int from = places[c / 3][0], to = places[c / 3][1];

        bench_open(products, isa, (struct head_dims){(const int[]){16, 64, 128}[c % 3], 64});
        draw_queries();
        pack_keys();
        struct softmax_rows all = softmax_open(32), some = softmax_open(places[c / 3][2]);
        const size_t row = (size_t)bench.pad.d * element_size();
        char *other = allocate((size_t)products->strip * row);
        for (int r = 0; r < products->strip; r++)
            for (int e = 0; e < bench.pad.d; e++)
                ls_dtype_store(products->type, other + ((size_t)r * row) + 2 * e, 500);
        memcpy(other + (size_t)to * row, bench.q + (size_t)from * row, row);
        take_probabilities(&all, bench.q, whole);
        take_probabilities(&some, other, whole);
        cr_expect(all.m[from] == some.m[to] && all.l[from] == some.l[to]);
        for (int j = 0; j < LS_LEAF; j++)
            cr_assert_eq(probability(&all, from, j), probability(&some, to, j),
                         "row %d as %d of %d", from, to, some.rows);
        free(other);
        softmax_close(&all);
        softmax_close(&some);
        bench_close();
    }
}

/* Calls test for what the kernel takes for f32 and for bf16. */
static void each_storage(void (*test)(const struct products *products, ls_isa isa))
{
    const struct products *f32, *bf16;
    ls_isa isa;

    cr_assert_eq(ls_cpu_isa(&isa), LS_OK);
    f32 = cpu_products_find(isa, LS_F32);
    bf16 = cpu_products_find(isa, LS_BF16);
    test(f32, isa);
    if (bf16 != f32) test(bf16, isa);
}

static void products_equal_double(void)
{
    each_storage(equals_double);
}

static void probabilities_of_any_rows(void)
{
    each_storage(probabilities_equal_double);
    each_storage(probabilities_keep_bits);
}

/* Strided products of less than AVX-512 do depend on the height; strict mode is not for them. */
static void rows_keep_their_bits(void)
{
    each_storage(place_changes_no_bit);
}

TEST_EACH_ISA(products, products_equal_double)
TEST_VARIANT(products, rows_keep_their_bits, avx512)
TEST_VARIANT(products, rows_keep_their_bits, avx512bf16)
TEST_VARIANT(products, rows_keep_their_bits, amx)
TEST_VARIANT(products, probabilities_of_any_rows, amx)

#if defined(__x86_64__)
Test(products, emulated_amx_equals_double)
{
    use_variant("avx512bf16");
    equals_double(&products_amx_emulated, LS_ISA_AMX);
}

Test(products, emulated_amx_probabilities)
{
    use_variant("avx512bf16");
    probabilities_equal_double(&products_amx_emulated, LS_ISA_AMX);
    probabilities_keep_bits(&products_amx_emulated, LS_ISA_AMX);
}

Test(products, emulated_amx_keeps_bits)
{
    use_variant("avx512bf16");
    place_changes_no_bit(&products_amx_emulated, LS_ISA_AMX);
}
#endif

Test(products, of_each_type_exist)
{
    static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F16};

    for (ls_isa isa = LS_ISA_GENERIC; isa <= LS_ISA_AMX; isa++) {
        for (int i = 0; i < LENGTH(types); i++) {
            const struct products *found = cpu_products_find(isa, types[i]);

            cr_expect(found->type == LS_F32 || types[i] == LS_BF16, "%s, %s: %s", ls_isa_name(isa),
                      ls_dtype_name(types[i]), found->name);
            cr_expect_eq(LS_LEAF % found->strip, 0, "%s: a strip of %d rows", found->name,
                         found->strip);
            cr_expect_eq(LS_MAX_HEAD_DIM % found->d_multiple, 0, "%s", found->name);
        }
    }
}
