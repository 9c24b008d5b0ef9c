/* What a call of the gradient kernel promises whatever the numbers are: bits that do not depend on
 * threads, the ledger's bytes, rows of the call's leaves alone. */
#include <fenv.h>

#include "gradient_harness.h"

struct results {
    float *dq, *dk, *dv;
};

static size_t q_bytes(const struct meeting *m)
{
    return (size_t)(m->shape.b * m->shape.h * m->s_q_loc * m->shape.d) * sizeof(float);
}

static size_t k_bytes(const struct meeting *m)
{
    return (size_t)(m->shape.b * m->shape.h * m->s_k_loc * m->shape.d) * sizeof(float);
}

static void *copy(const void *from, size_t bytes)
{
    return memcpy(room(bytes), from, bytes);
}

static struct results take_results(const struct meeting *m)
{
    return (struct results){copy(m->dq, q_bytes(m)), copy(m->dk, k_bytes(m)),
                            copy(m->dv, k_bytes(m))};
}

static void expect_results(const struct meeting *m, const struct results *r, const char *what)
{
    cr_expect_eq(memcmp(m->dq, r->dq, q_bytes(m)), 0, "%s: dq: %s", meeting_name(m), what);
    cr_expect_eq(memcmp(m->dk, r->dk, k_bytes(m)), 0, "%s: dk: %s", meeting_name(m), what);
    cr_expect_eq(memcmp(m->dv, r->dv, k_bytes(m)), 0, "%s: dv: %s", meeting_name(m), what);
}

/* What is not written will not pass for what was there. */
static void spoil_results(struct meeting *m)
{
    memset(m->dq, 0x5a, q_bytes(m));
    memset(m->dk, 0x5a, k_bytes(m));
    memset(m->dv, 0x5a, k_bytes(m));
}

static void free_results(struct results *r)
{
    free(r->dq);
    free(r->dk);
    free(r->dv);
}

static struct meeting causal_meeting(int64_t h, int64_t s, int64_t d, ls_dtype type)
{
    return (struct meeting){.shape = {1, h, 1, s, s, d, type, 0}, .rule = causal_rule(s, s)};
}

/* Also where each thread takes groups of its own: 16, for every number of threads but 3. */
static void threads_do_not_matter(void)
{
    for (int i = 0; i < 3; i++) {
        struct meeting m = causal_meeting(1 + i, 1800 + i, 12, i == 0 ? LS_F32 : LS_BF16);

        if (i == 1) m.rule.left = 400;
        if (i == 2) m.shape = (struct ls_attention_shape){1, 32, 16, 600, 600, 12, LS_BF16, 0};
        meeting_open(&m);
        meeting_run(&m);
        struct results one = take_results(&m);
        for (m.threads = 2; m.threads <= 4; m.threads++) {
            spoil_results(&m);
            meeting_run(&m);
            expect_results(&m, &one, "more threads");
        }
        free_results(&one);
        meeting_close(&m);
    }
}

/* part [first] becomes the sum of `count` parts by the binary tree. */
static void add_by_tree(float *const *part, int64_t first, int64_t count, int64_t n)
{
    int64_t half = 1;

    if (count == 1) return;
    while (2 * half < count) half *= 2;
    add_by_tree(part, first, half, n);
    add_by_tree(part, first + half, count - half, n);
    for (int64_t i = 0; i < n; i++) part[first][i] += part[first + half][i];
}

/* Bits are those of calls with one leaf, added by the tree over leaves: dq over leaves of keys, dk
 * and dv over those of queries. */
static void sums_are_those_of_the_tree(void)
{
    enum { LEAVES = 7 };
    struct ls_device *device = open_device(1);
    struct meeting m = {.shape = {1, 1, 1, LEAVES * LS_LEAF - 9, LEAVES * LS_LEAF, 8, LS_F32, 0}};
    float *dq[LEAVES], *dk[LEAVES], *dv[LEAVES];
    struct ls_gradient_kernel *kernel;

    m.rule = ls_mask_rule_full(m.shape.s_q, m.shape.s_k);
    meeting_open(&m);
    cr_assert_eq(ls_gradient_kernel_create(&kernel, device, meeting_shape(&m)), LS_OK);
    for (int i = 0; i < LEAVES; i++) {
        struct ls_gradient_call by_keys = meeting_call(&m), by_queries = meeting_call(&m);

        by_keys.k_leaves = (struct ls_leaf_list){m.k_leaf + i, 1};
        by_queries.q_leaves = (struct ls_leaf_list){m.q_leaf + i, 1};
        cr_assert_eq(run_gradient(&m.result, device, kernel, &by_keys), LS_OK);
        dq[i] = copy(m.dq, q_bytes(&m));
        cr_assert_eq(run_gradient(&m.result, device, kernel, &by_queries), LS_OK);
        dk[i] = copy(m.dk, k_bytes(&m));
        dv[i] = copy(m.dv, k_bytes(&m));
    }
    ls_gradient_kernel_destroy(device, kernel);
    add_by_tree(dq, 0, LEAVES, (int64_t)(q_bytes(&m) / sizeof(float)));
    add_by_tree(dk, 0, LEAVES, (int64_t)(k_bytes(&m) / sizeof(float)));
    add_by_tree(dv, 0, LEAVES, (int64_t)(k_bytes(&m) / sizeof(float)));
    for (m.threads = 1; m.threads <= 2; m.threads++) {
        meeting_run(&m);
        expect_results(&m, &(struct results){dq[0], dk[0], dv[0]}, "by the tree");
    }
    for (int i = 0; i < LEAVES; i++) free_results(&(struct results){dq[i], dk[i], dv[i]});
    meeting_close(&m);
}

/* Also where there are more heads than are packed at once. */
static void queries_may_be_those_of_the_last_call(void)
{
    const struct ls_attention_shape shapes[] = {{1, 4, 2, 700, 600, 12, LS_BF16, 0},
                                                {1, 400, 1, 9, 20, 128, LS_BF16, 0}};
    struct ls_device *device = open_device(2);

    for (int i = 0; i < LENGTH(shapes); i++) {
        struct meeting m = {.shape = shapes[i], .threads = 2};
        struct ls_gradient_kernel *kernel;

        m.rule = causal_rule(m.shape.s_q, m.shape.s_k);
        meeting_open(&m);
        meeting_run(&m);
        struct results one = take_results(&m);
        struct ls_gradient_call call = meeting_call(&m);

        cr_assert_eq(ls_gradient_kernel_create(&kernel, device, meeting_shape(&m)), LS_OK);
        call.k_leaves.count = 1;
        cr_assert_eq(run_gradient(&m.result, device, kernel, &call), LS_OK);
        call = meeting_call(&m);
        call.same_queries = true;
        cr_assert_eq(run_gradient(&m.result, device, kernel, &call), LS_OK);
        expect_results(&m, &one, "the queries of the last call");
        ls_gradient_kernel_destroy(device, kernel);
        free_results(&one);
        meeting_close(&m);
    }
}

static void expect_rounded(const struct ls_tensor *out, const float *sums, const char *name)
{
    const int64_t b = out->dim[0], s = out->dim[1], h = out->dim[2], d = out->dim[3];
    const int64_t size = ls_dtype_size(out->type);

    for (int64_t i = 0; i < b * h * s * d; i++) {
        const int64_t batch = i / (h * s * d), head = i / (s * d) % h, row = i / d % s;
        const char *at =
            (const char *)out->data +
            size * (batch * out->stride[0] + row * out->stride[1] + head * out->stride[2] + i % d);
        const float positive = sums[i] + 0.0F;
        char exact[sizeof(float)];

        ls_dtype_convert(exact, out->type, &positive, LS_F32, 1);
        cr_assert_eq(memcmp(at, exact, (size_t)size), 0, "%s %ld", name, (long)i);
    }
}

/* In the operands' place, also of queries that see nothing and of keys that nobody sees. */
static void what_is_whole_is_rounded_at_once(void)
{
    const struct ls_attention_shape shapes[] = {{1, 2, 2, 1000, 300, 12, LS_BF16, 20},
                                                {1, 2, 2, 300, 1100, 64, LS_F32, 0},
                                                {1, 8, 8, 520, 600, 20, LS_F16, 16},
                                                {1, 4, 2, 700, 600, 12, LS_BF16, 0}};

    for (int i = 0; i < LENGTH(shapes); i++) {
        struct meeting m = {.shape = shapes[i], .threads = 2};
        const bool grouped = m.shape.h > m.shape.h_kv;
        struct ls_device *device = open_device(m.threads);
        struct ls_gradient_kernel *kernel;

        m.rule = causal_rule(m.shape.s_q, m.shape.s_k);
        m.rule.left = 200;
        meeting_open(&m);
        meeting_run(&m);
        struct ls_gradient_call call = meeting_call(&m);
        const size_t v_bytes = k_bytes(&m) / (size_t)m.shape.d * (size_t)ls_value_dim(&m.shape);
        struct results sums = {copy(m.dq, q_bytes(&m)), copy(m.dk, k_bytes(&m)),
                               copy(m.dv, v_bytes)};

        call.rounded.dq = &m.q;
        if (!grouped) call.rounded.dk = &m.k;
        if (!grouped) call.rounded.dv = &m.v;
        cr_assert_eq(ls_gradient_kernel_create(&kernel, device, meeting_shape(&m)), LS_OK);
        cr_assert_eq(run_gradient(&m.result, device, kernel, &call), LS_OK);
        expect_rounded(&m.q, sums.dq, "dq");
        if (!grouped) {
            expect_rounded(&m.k, sums.dk, "dk");
            expect_rounded(&m.v, sums.dv, "dv");
        }
        ls_gradient_kernel_destroy(device, kernel);
        free_results(&sums);
        meeting_close(&m);
    }
}

static void callers_rounding_does_not_matter(void)
{
    struct meeting m = causal_meeting(1, 300, 16, LS_F32);

    meeting_open(&m);
    meeting_run(&m);
    struct results nearest = take_results(&m);
    fesetround(FE_UPWARD);
    meeting_run(&m);
    cr_expect_eq(fegetround(), FE_UPWARD);
    fesetround(FE_TONEAREST);
    expect_results(&m, &nearest, "rounding upward");
    free_results(&nearest);
    meeting_close(&m);
}

/* The ledger saw what was foretold, and a call takes no more. */
static void bytes_are_exact(void)
{
    static const struct ls_attention_shape shapes[] = {
        {1, 1, 1, 1, 1, 1, LS_F32, 0},          {2, 6, 2, 900, 3000, 64, LS_BF16, 0},
        {1, 32, 1, 1000, 1000, 128, LS_F16, 0}, {3, 8, 8, 256, 257, 256, LS_F32, 0},
        {1, 4, 1, 0, 0, 16, LS_F32, 0},
    };

    for (int i = 0; i < LENGTH(shapes); i++) {
        const struct ls_mask mask = full_mask(shapes[i].s_q, shapes[i].s_k);
        const struct ls_gradient_shape shape = {
            .attention = {.global = shapes[i],
                          .masks = {&mask, 1, 1, 0},
                          .scores = {.scale = 1},
                          .k_leaves = (shapes[i].s_k + LS_LEAF - 1) / LS_LEAF},
            .q_leaves = (shapes[i].s_q + LS_LEAF - 1) / LS_LEAF};
        struct ls_device *device = open_device(1 + i);
        struct ls_ledger *ledger = ls_device_ledger(device);
        const size_t before = ls_ledger_live_total(ledger);
        struct ls_gradient_kernel *kernel;

        cr_assert_eq(ls_gradient_kernel_create(&kernel, device, shape), LS_OK);
        cr_expect_eq(ls_ledger_live_total(ledger) - before, ls_gradient_kernel_bytes(device, shape),
                     "shape %d", i);
        ls_gradient_kernel_destroy(device, kernel);
        cr_expect_eq(ls_ledger_live_total(ledger), before);
    }
}

/* Of a call with some of the leaves, only their rows are written; with none, or none that is seen,
 * sums are 0. */
static void only_rows_of_its_leaves(void)
{
    struct ls_device *device = open_device(1);
    struct meeting m = causal_meeting(2, 1100, 8, LS_F32);
    struct ls_gradient_kernel *kernel;
    struct ls_work result = {0};

    meeting_open(&m);
    cr_assert_eq(ls_gradient_kernel_create(&kernel, device, meeting_shape(&m)), LS_OK);
    struct ls_gradient_call call = meeting_call(&m);
    call.q_leaves = (struct ls_leaf_list){m.q_leaf + 1, 1};
    call.k_leaves = (struct ls_leaf_list){m.k_leaf + 2, 1}; /* after these queries */
    cr_assert_eq(run_gradient(&result, device, kernel, &call), LS_OK);
    cr_expect_eq(result.tiles, 0);
    for (int64_t i = 0; i < 2 * 1100 * 8; i++) {
        const int64_t leaf = i / 8 % 1100 / LS_LEAF;
        float mark;

        memset(&mark, 0x5a, sizeof mark);
        cr_assert_eq(m.dq[i], leaf == 1 ? 0 : mark, "dq %ld", (long)i);
        cr_assert_eq(m.dk[i], leaf == 2 ? 0 : mark, "dk %ld", (long)i);
        cr_assert_eq(m.dv[i], leaf == 2 ? 0 : mark, "dv %ld", (long)i);
    }
    call.k_leaves.count = 0;
    memset(m.dq, 0x5a, q_bytes(&m));
    cr_assert_eq(run_gradient(&result, device, kernel, &call), LS_OK);
    cr_expect_eq(m.dq[LS_LEAF * 8], 0);
    call.k_leaves.count = 1;
    call.q_leaves.count = 0;
    memset(m.dk, 0x5a, k_bytes(&m));
    cr_assert_eq(run_gradient(&result, device, kernel, &call), LS_OK);
    cr_expect_eq(m.dk[2 * LS_LEAF * 8], 0);
    ls_gradient_kernel_destroy(device, kernel);
    meeting_close(&m);
}

/* As many as have a pair that is seen. */
static void tiles_are_counted(void)
{
    struct meeting m = causal_meeting(2, 5 * LS_LEAF, 4, LS_F32);

    meeting_open(&m);
    meeting_run(&m);
    cr_expect_eq(m.result.tiles, 2 * 15, "%ld", (long)m.result.tiles);
    meeting_close(&m);
    m.rule.left = LS_LEAF;
    meeting_open(&m);
    meeting_run(&m);
    cr_expect_eq(m.result.tiles, 2 * (5 + 4), "%ld", (long)m.result.tiles);
    meeting_close(&m);
}

TestSuite(gradient_calls, .timeout = 600);
TEST_EACH_VARIANT(gradient_calls, threads_do_not_matter)
TEST_EACH_VARIANT(gradient_calls, sums_are_those_of_the_tree)
TEST_EACH_VARIANT(gradient_calls, queries_may_be_those_of_the_last_call)
TEST_EACH_VARIANT(gradient_calls, what_is_whole_is_rounded_at_once)
TEST_EACH_DEVICE(gradient_calls, callers_rounding_does_not_matter)
TEST_EACH_DEVICE(gradient_calls, bytes_are_exact)
TEST_EACH_DEVICE(gradient_calls, only_rows_of_its_leaves)
TEST_EACH_DEVICE(gradient_calls, tiles_are_counted)
