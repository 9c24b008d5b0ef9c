/* Backward's tile, of each row of the table that this CPU can run, against double; and the AMX row
 * once more, emulated, for machines without AMX. */
#if defined(__x86_64__)
#define LS_AMX_EMULATED
#include "cpu/gradient/amx.c"
#endif

#include "../device/harness.h"
#include "cpu/gradient/products.h"

#define GUARD 64 /* bytes beyond what a tile may touch */
#define MARK 0x5a

enum operand { Q, D_O, K, V, OPERANDS };
enum sum { DQ, DK, DV, SUMS };

static const char *const sum_names[] = {"dq", "dk", "dv"};

/* One row of the table and one tile, in that row's type and in double. */
static struct bench {
    const struct gradient_products *products;
    struct head_dims dims, pad;
    void *worker, *scratch, *keys, *queries;
    char *raw[OPERANDS]; /* [LS_LEAF][pad.d], of d_o and v [LS_LEAF][pad.d_v] */
    double value[OPERANDS][LS_LEAF][LS_MAX_HEAD_DIM];
    float *sums[SUMS];
    struct sum_path path[SUMS];
    float lse[LS_LEAF], delta[LS_LEAF];
    struct ls_leaf_keys visible[LS_LEAF];
    struct ls_leaf_keys kept[LS_LEAF];
    struct gradient_tile tile;
    double exact[SUMS][LS_LEAF][LS_MAX_HEAD_DIM];
    double bound[SUMS][LS_LEAF][LS_MAX_HEAD_DIM]; /* the same sums, of magnitudes */
} bench;

/* Elements of a row, and with padding. */
static int width(enum operand operand)
{
    return operand == Q || operand == K ? bench.dims.d : bench.dims.d_v;
}

static int padded(enum operand operand)
{
    return operand == Q || operand == K ? bench.pad.d : bench.pad.d_v;
}

static size_t row_bytes(enum operand operand)
{
    return (size_t)(padded(operand) * ls_dtype_size(bench.products->type));
}

/* The operand whose rows a sum has. */
static enum operand like(enum sum sum)
{
    return sum == DQ ? Q : sum == DK ? K : V;
}

static char *allocate(size_t bytes)
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

static size_t sum_bytes(enum sum sum)
{
    return (size_t)(LS_LEAF * padded(like(sum))) * sizeof(float);
}

static void bench_open(const struct gradient_products *products, ls_isa isa, struct head_dims dims)
{
    const struct ls_attention_shape shape = {.d = dims.d, .d_v = dims.d_v};
    const struct head_dims pad = head_dims_padded(&shape, products->d_multiple);

    bench = (struct bench){.products = products, .dims = dims, .pad = pad};
    bench.scratch = allocate(products->scratch_bytes(pad));
    bench.keys = allocate(products->keys_bytes(pad));
    bench.queries = allocate(products->queries_bytes(pad));
    for (int i = 0; i < OPERANDS; i++) bench.raw[i] = allocate(LS_LEAF * row_bytes(i));
    for (int i = 0; i < SUMS; i++) {
        bench.sums[i] = (float *)(void *)allocate(sum_bytes(i));
        bench.path[i] = sum_path_to(bench.sums[i], LS_LEAF, padded(like(i)));
    }
    cr_assert_eq(products->create(&bench.worker, isa, pad, bench.scratch), LS_OK, "%s",
                 ls_message());
}

static void bench_close(void)
{
    expect_guard(bench.scratch, bench.products->scratch_bytes(bench.pad), "its scratch");
    expect_guard(bench.keys, bench.products->keys_bytes(bench.pad), "packed keys");
    expect_guard(bench.queries, bench.products->queries_bytes(bench.pad), "packed queries");
    for (int i = 0; i < SUMS; i++) expect_guard(bench.sums[i], sum_bytes(i), sum_names[i]);
    bench.products->destroy(bench.worker);
    for (int i = 0; i < OPERANDS; i++) free(bench.raw[i]);
    for (int i = 0; i < SUMS; i++) free(bench.sums[i]);
    free(bench.queries);
    free(bench.keys);
    free(bench.scratch);
}

/* Rows in use are drawn, up to d; the others are zero. */
static void draw_rows(enum operand operand, int rows)
{
    const ls_dtype type = bench.products->type;
    const int d = width(operand);
    float row[LS_MAX_HEAD_DIM];

    for (int r = 0; r < LS_LEAF; r++) {
        char *to = bench.raw[operand] + (size_t)r * row_bytes(operand);

        memset(row, 0, sizeof row);
        if (r < rows) ls_random_normal(row, 31, operand, (uint64_t)r * LS_MAX_HEAD_DIM, d);
        ls_dtype_convert(to, type, row, LS_F32, padded(operand));
        ls_dtype_convert(bench.value[operand][r], LS_F64, to, type, d);
    }
}

/* Masks of one leaf of queries against one of keys. */
enum mask { ALL, CAUSAL, WINDOW, PREFIX, DOCUMENTS, RAGGED, SCATTERED, MASKS };

static struct ls_leaf_keys leaf_keys(enum mask mask, int row, int keys)
{
    const int least = row < 40 ? 0 : row - 40, edge = row / 100 * 100;
    struct ls_leaf_keys seen = {0};

    for (int j = 0; j < keys; j++) {
        const bool sees[] = {
            [ALL] = true,
            [CAUSAL] = j <= row,
            [WINDOW] = j >= least,
            [PREFIX] = j < 20 || (j >= least && j <= row),
            [DOCUMENTS] = j >= edge && j < edge + 100,
            [RAGGED] = j<row * 37 % 300, [SCATTERED] = row * 29 % 7> 0 &&
                       (row * 131 + j * 71) % 127 % 3 == 0,
        };

        seen.word[j / 64] |= (uint64_t)sees[mask] << j % 64;
    }
    return seen;
}

static bool sees(int row, int key)
{
    return gradient_tile_sees(&bench.tile, row, key);
}

static double logit(int row, int key)
{
    double sum = 0;

    for (int e = 0; e < bench.dims.d; e++) sum += bench.value[Q][row][e] * bench.value[K][key][e];
    return sum * (double)bench.tile.scale;
}

/* lse as if there were as much again behind this leaf; delta of no particular o. */
static void draw_statistics(int rows)
{
    ls_random_normal(bench.delta, 32, 0, 0, LS_LEAF);
    for (int r = 0; r < LS_LEAF; r++) {
        double sum = 0;

        for (int j = 0; j < LS_LEAF && r < rows; j++)
            if (sees(r, j)) sum += exp(logit(r, j));
        bench.lse[r] = sum > 0 ? (float)log2(2 * sum) : INFINITY;
    }
}

/* Rows that are not in use have bits as well, which nobody may care about. */
static void draw_kept(const struct ls_scores *scores)
{
    bool kept[LS_LEAF];

    memset(bench.kept, 0, sizeof bench.kept);
    for (int r = 0; r < LS_LEAF && scores->dropout > 0; r++) {
        ls_dropout_kept(kept, scores, 0, 0, r, 0, LS_LEAF);
        for (int j = 0; j < LS_LEAF; j++) bench.kept[r].word[j / 64] |= (uint64_t)kept[j] << j % 64;
    }
}

static void draw_tile(enum mask mask, const struct ls_scores *scores, int rows, int keys)
{
    bench.tile =
        (struct gradient_tile){.scores = scores,
                               .keys = bench.keys,
                               .queries = bench.queries,
                               .lse = bench.lse,
                               .delta = bench.delta,
                               .visible = mask == ALL && keys == LS_LEAF ? NULL : bench.visible,
                               .kept = scores->dropout > 0 ? bench.kept : NULL,
                               .rows = rows,
                               .key_count = keys,
                               .scale = (float)(1 / sqrt((double)bench.dims.d)),
                               .dq = &bench.path[DQ],
                               .dk = &bench.path[DK],
                               .dv = &bench.path[DV]};
    draw_rows(Q, rows);
    draw_rows(D_O, rows);
    draw_rows(K, keys);
    draw_rows(V, keys);
    for (int r = 0; r < LS_LEAF; r++) bench.visible[r] = leaf_keys(mask, r, r < rows ? keys : 0);
    draw_kept(scores);
    draw_statistics(rows);
}

static void compute(void)
{
    const struct gradient_products *products = bench.products;

    for (int i = 0; i < SUMS; i++) memset(bench.sums[i], MARK, sum_bytes(i));
    cr_assert_eq(products->pack_keys(bench.keys, bench.worker, bench.raw[K], bench.raw[V]), LS_OK);
    cr_assert_eq(products->pack_queries(bench.queries, bench.worker, bench.raw[Q], bench.raw[D_O]),
                 LS_OK);
    if (products->begin) products->begin();
    cr_assert_eq(products->tile(bench.worker, &bench.tile), LS_OK);
    if (products->end) products->end();
}

static float result(enum sum sum, int row, int e)
{
    return bench.sums[sum][row * padded(like(sum)) + e];
}

static void add_exact(enum sum sum, int row, double factor, double size, enum operand of, int from)
{
    for (int e = 0; e < width(of); e++) {
        bench.exact[sum][row][e] += factor * bench.value[of][from][e];
        bench.bound[sum][row][e] += size * fabs(bench.value[of][from][e]);
    }
}

static void compute_exact(void)
{
    const double scale = (double)bench.tile.scale;
    const double keep = 1 / (1 - (double)bench.tile.scores->dropout);

    memset(bench.exact, 0, sizeof bench.exact);
    memset(bench.bound, 0, sizeof bench.bound);
    for (int r = 0; r < bench.tile.rows; r++) {
        for (int j = 0; j < bench.tile.key_count; j++) {
            const double passed = gradient_tile_keeps(&bench.tile, r, j) ? keep : 0;
            double dp = 0, size = fabs((double)bench.delta[r]);

            if (!sees(r, j)) continue;
            const double p = exp2(logit(r, j) / log(2) - (double)bench.lse[r]);
            for (int e = 0; e < bench.dims.d_v; e++) {
                const double term = passed * bench.value[D_O][r][e] * bench.value[V][j][e];

                dp += term;
                size += fabs(term);
            }
            const double ds = scale * p * (dp - (double)bench.delta[r]);
            add_exact(DQ, r, ds, scale * p * size, K, j);
            add_exact(DK, j, ds, scale * p * size, Q, r);
            add_exact(DV, j, passed * p, passed * p, D_O, r);
        }
    }
}

static void check(const char *name)
{
    const double unit = bench.products->type == LS_BF16 ? 0x1p-8 : 0x1p-19;
    const double limit = bench.products->type == LS_BF16 ? 4e-3 : 4e-6;

    for (enum sum sum = DQ; sum < SUMS; sum++) {
        const int rows = sum == DQ ? bench.tile.rows : bench.tile.key_count;
        double error = 0, norm = 0;

        for (int r = 0; r < rows; r++) {
            for (int e = 0; e < width(like(sum)); e++) {
                const double off = (double)result(sum, r, e) - bench.exact[sum][r][e];

                cr_assert_leq(fabs(off), 2 * unit * bench.bound[sum][r][e] + 1e-30,
                              "%s d %d rows %d keys %d, %s: %s[%d][%d] = %g, not %g",
                              bench.products->name, bench.dims.d, bench.tile.rows,
                              bench.tile.key_count, name, sum_names[sum], r, e,
                              (double)result(sum, r, e), bench.exact[sum][r][e]);
                error += off * off;
                norm += bench.exact[sum][r][e] * bench.exact[sum][r][e];
            }
        }
        cr_assert_leq(sqrt(error), limit * sqrt(norm), "%s d %d rows %d keys %d, %s: %s off by %g",
                      bench.products->name, bench.dims.d, bench.tile.rows, bench.tile.key_count,
                      name, sum_names[sum], sqrt(error / norm));
    }
}

static const struct ls_scores plain = {.scale = 1};

static void equals_double(const struct gradient_products *products, ls_isa isa)
{
    static const char *const names[] = {"all",       "causal", "window",   "prefix",
                                        "documents", "ragged", "scattered"};
    static const struct head_dims dims[] = {{64, 64},   {16, 256}, {17, 40},   {40, 17},
                                            {80, 96},   {96, 80},  {128, 128}, {192, 128},
                                            {256, 200}, {64, 576}, {576, 512}};
    static const int sizes[][2] = {{256, 256}, {256, 255}, {100, 256}, {1, 1},
                                   {17, 33},   {256, 64},  {255, 129}};
    static const struct ls_scores dropped = {.scale = 1, .dropout = 0.25F, .seed = 9};

    for (int c = 0; c < LENGTH(dims); c++) {
        bench_open(products, isa, dims[c]);
        for (int i = 0; i < (c == 0 ? LENGTH(sizes) : 2); i++) {
            const enum mask mask = (enum mask)((i + c) % MASKS);
            const int *size = sizes[(2 * c + i) % LENGTH(sizes)];

            draw_tile(mask, i % 2 ? &dropped : &plain, size[0], size[1]);
            compute();
            compute_exact();
            check(names[mask]);
        }
        bench_close();
    }
}

/* Rows of an operand change places. */
static void swap_rows(enum operand operand, int a, int b)
{
    const size_t bytes = row_bytes(operand);
    char *first = bench.raw[operand] + (size_t)a * bytes;
    char *second = bench.raw[operand] + (size_t)b * bytes, kept[4 * LS_MAX_HEAD_DIM];

    memcpy(kept, first, bytes);
    memcpy(first, second, bytes);
    memcpy(second, kept, bytes);
}

static void swap_floats(float *values, int a, int b)
{
    const float kept = values[a];

    values[a] = values[b];
    values[b] = kept;
}

static void keep_row(float *out, enum sum sum, int row)
{
    for (int e = 0; e < width(like(sum)); e++) out[e] = result(sum, row, e);
}

static void expect_row(const float *want, enum sum sum, int row, const char *what)
{
    for (int e = 0; e < width(like(sum)); e++)
        cr_assert_eq(result(sum, row, e), want[e], "%s d %d: %s[%d][%d] differs %s",
                     bench.products->name, width(like(sum)), sum_names[sum], row, e, what);
}

/* A query's dq and a key's dk and dv are the same bits at any place in the leaf, and whatever
 * stands at keys and queries that do not meet them. */
static void place_changes_no_bit(const struct gradient_products *products, ls_isa isa)
{
    static const struct head_dims dims[] = {{16, 128}, {64, 64}, {80, 16}, {128, 80}, {256, 256}};
    static const int places[][2] = {{3, 250}, {17, 64}, {31, 32}};
    float dq[LS_MAX_HEAD_DIM], dk[LS_MAX_HEAD_DIM], dv[LS_MAX_HEAD_DIM];

    for (int c = 0; c < LENGTH(dims) * LENGTH(places); c++) {
        const int a = places[c % LENGTH(places)][0], b = places[c % LENGTH(places)][1];

        bench_open(products, isa, dims[c / LENGTH(places)]);
        draw_tile(ALL, &plain, LS_LEAF, LS_LEAF);
        compute();
        keep_row(dq, DQ, a);
        keep_row(dk, DK, a);
        keep_row(dv, DV, a);
        swap_rows(Q, a, b);
        swap_rows(D_O, a, b);
        swap_floats(bench.lse, a, b);
        swap_floats(bench.delta, a, b);
        compute();
        expect_row(dq, DQ, b, "at another place");
        draw_tile(ALL, &plain, LS_LEAF, LS_LEAF);
        swap_rows(K, a, b);
        swap_rows(V, a, b);
        compute();
        expect_row(dk, DK, b, "at another place");
        expect_row(dv, DV, b, "at another place");
        bench_close();
    }
}

static void strangers_change_no_bit(const struct gradient_products *products, ls_isa isa)
{
    enum { ROW = 100, KEY = 120 };
    float dq[LS_MAX_HEAD_DIM], dk[LS_MAX_HEAD_DIM], dv[LS_MAX_HEAD_DIM];

    bench_open(products, isa, (struct head_dims){64, 64});
    draw_tile(CAUSAL, &plain, LS_LEAF, LS_LEAF);
    compute();
    keep_row(dq, DQ, ROW);
    keep_row(dk, DK, KEY);
    keep_row(dv, DV, KEY);
    for (int r = 0; r < LS_LEAF; r++) {
        for (int e = 0; e < 64; e++) {
            const size_t at =
                (size_t)r * row_bytes(K) + (size_t)e * (size_t)ls_dtype_size(products->type);

            if (r > KEY) ls_dtype_store(products->type, bench.raw[K] + at, 3);
            if (r > KEY) ls_dtype_store(products->type, bench.raw[V] + at, -500);
            if (r < ROW) ls_dtype_store(products->type, bench.raw[Q] + at, 5);
            if (r < ROW) ls_dtype_store(products->type, bench.raw[D_O] + at, 700);
        }
        if (r > ROW && r < KEY) bench.visible[r] = ls_leaf_keys_run(0, 1);
    }
    compute();
    expect_row(dq, DQ, ROW, "beside others");
    expect_row(dk, DK, KEY, "beside others");
    expect_row(dv, DV, KEY, "beside others");
    bench_close();
}

/* What the kernel takes for each storage. */
static void each_storage(void (*test)(const struct gradient_products *products, ls_isa isa))
{
    static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F16};
    const struct gradient_products *found[LENGTH(types)];
    ls_isa isa;

    cr_assert_eq(ls_cpu_isa(&isa), LS_OK);
    for (int i = 0; i < LENGTH(types); i++) {
        found[i] = cpu_gradient_products_find(isa, types[i], &plain);
        if (i > 0 && (found[i] == found[0] || found[i] == found[1])) continue;
        test(found[i], isa);
    }
}

static void tiles_equal_double(void)
{
    each_storage(equals_double);
}

static void rows_keep_their_bits(void)
{
    each_storage(place_changes_no_bit);
    each_storage(strangers_change_no_bit);
}

TEST_EACH_ISA(gradient_products, tiles_equal_double)
TEST_VARIANT(gradient_products, rows_keep_their_bits, avx512)
TEST_VARIANT(gradient_products, rows_keep_their_bits, avx512bf16)
TEST_VARIANT(gradient_products, rows_keep_their_bits, amx)

#if defined(__x86_64__)
/* Of a row that is not chosen on every CPU. */
static void every_property(const struct gradient_products *products, ls_isa isa)
{
    use_variant("avx512bf16");
    equals_double(products, isa);
    place_changes_no_bit(products, isa);
    strangers_change_no_bit(products, isa);
}

Test(gradient_products, avx512bf16_row)
{
    every_property(&cpu_gradient_avx512bf16, LS_ISA_AVX512BF16);
}

Test(gradient_products, emulated_amx_row)
{
    every_property(&gradient_amx_emulated, LS_ISA_AMX);
}
#endif
