/* Soft cap, ALiBi, sinks and dropout, alone, together and under masks: the oracle's attention, by
 * heads and positions of the whole problem. */
#include "device/device.h"
#include "harness.h"

enum { KEYS = 600, HEADS = 6 };

static const int64_t documents[] = {0, 40, 300, KEYS};
static const float slopes[HEADS] = {0.5F, 0.25F, 0.125F, 0, 1, -0.01F};
static const float sinks[HEADS] = {-3, 0, 2, 4.5F, -INFINITY, 1};
static const float few_biases[HEADS * 5] = {1, -1, 2, 0.5F, -3, 0, 0, 4, 0, 1, -2, 2, 0,  0.25F, 5,
                                            0, 1,  2, 3,    4,  5, 4, 3, 2, 1, 7,  0, -7, 0,     2};
static float biases[HEADS * 701]; /* drawn, as are the next, some -inf */
static float pair_biases[HEADS * 610 * KEYS];

static const struct ls_attention_options options[] = {
    {.soft_cap = 5},
    {.soft_cap = 0.3F, .causal = true},
    {.soft_cap = 50, .has_scale = true, .scale = -0.4F},
    {.alibi = slopes},
    {.alibi = slopes, .causal = true, .has_scale = true, .scale = -0.2F},
    {.alibi = slopes,
     .has_query_offset = true,
     .query_offset = 100,
     .has_window = true,
     .window_left = 250,
     .window_right = 20},
    {.sinks = sinks},
    {.sinks = sinks, .causal = true, .has_query_offset = true, .query_offset = -100},
    {.sinks = sinks, .prefix = 3, .documents = documents, .document_count = 3},
    {.dropout = 0.1F, .dropout_seed = 3},
    {.dropout = 0.7F, .causal = true},
    {.dropout = 0.3F, .has_window = true, .window_left = 77, .prefix = 9},
    {.distance_bias = few_biases, .distances = 5},
    {.distance_bias = biases, .distances = 701, .causal = true, .has_scale = true, .scale = -0.2F},
    {.distance_bias = biases, .distances = 701, .documents = documents, .document_count = 3},
    {.distance_bias = slopes, .distances = 1, .soft_cap = 4},
    {.bias = pair_biases},
    {.bias = pair_biases,
     .bias_per_entry = true,
     .causal = true,
     .has_scale = true,
     .scale = -0.2F},
    {.bias = pair_biases,
     .bias_per_entry = true,
     .bias_per_head = true,
     .documents = documents,
     .document_count = 3},
    {.bias = pair_biases,
     .bias_per_head = true,
     .soft_cap = 4,
     .has_window = true,
     .window_left = 9},
    {.soft_cap = 20, .alibi = slopes, .sinks = sinks, .dropout = 0.2F},
    {.soft_cap = 3,
     .alibi = slopes,
     .sinks = sinks,
     .distance_bias = biases,
     .distances = 333,
     .bias = pair_biases,
     .dropout = 0.2F,
     .causal = true,
     .documents = documents,
     .document_count = 3,
     .has_scale = true,
     .scale = -0.5F},
};

static const struct ls_attention_shape shapes[] = {
    {.b = 1, .h = HEADS, .h_kv = 2, .s_q = 300, .s_k = KEYS, .d = 40, .type = LS_BF16},
    {.b = 2, .h = HEADS, .h_kv = 6, .s_q = 40, .s_k = KEYS, .d = 64, .type = LS_F32},
    {.b = 1, .h = HEADS, .h_kv = 1, .s_q = 610, .s_k = KEYS, .d = 16, .type = LS_F16},
    {.b = 2, .h = HEADS, .h_kv = 3, .s_q = 3, .s_k = KEYS, .d = 32, .type = LS_BF16}, /* few */
};

/* Calls test with a problem of each of the options and shapes; it is closed afterwards. */
static void each_problem(void (*test)(struct problem *p))
{
    ls_random_normal(biases, 8, 0, 0, LENGTH(biases));
    ls_random_normal(pair_biases, 8, 1, 0, LENGTH(pair_biases));
    for (int i = 0; i < LENGTH(pair_biases); i += 7 + i % 5) pair_biases[i] = -INFINITY;
    for (int i = 0; i < LENGTH(options) * LENGTH(shapes); i++) {
        struct problem p = {.shape = shapes[i / LENGTH(options)],
                            .options = options[i % LENGTH(options)]};

        p.options.threads = 1 + i % 2;
        problem_open(&p);
        test(&p);
        problem_close(&p);
    }
}

static void check_oracle(struct problem *p)
{
    problem_run(p);
    expect_oracle(p, 20);
}

static void equals_oracle(void)
{
    each_problem(check_oracle);
}

/* Rows that see no key: o is 0, lse the sink alone. */
static void sinks_are_all_that_some_rows_see(void)
{
    struct problem p = {
        .shape = {1, HEADS, 2, 300, KEYS, 24, LS_F32, 0},
        .options = {
            .sinks = sinks, .causal = true, .has_query_offset = true, .query_offset = -100}};

    problem_open(&p);
    problem_run(&p);
    for (int64_t head = 0; head < HEADS; head++) {
        for (int64_t i = 0; i < 100; i++) {
            const float lse = ((float *)p.lse.data)[head * 300 + i];

            cr_assert(lse == sinks[head] || fabsf(lse - sinks[head]) <= 1e-6F * fabsf(sinks[head]),
                      "head %ld row %ld: lse %g", (long)head, (long)i, (double)lse);
            for (int64_t e = 0; e < 24; e++) cr_assert_eq(load_at(&p.o, 0, i, head, e), 0);
        }
    }
    problem_close(&p);
}

/* What a key holds that is not seen or not kept changes nothing. */
static void dropped_keys_may_hold_anything(void)
{
    static const ls_dtype types[] = {LS_BF16, LS_F32, LS_F16};

    for (int c = 0; c < 2 * LENGTH(types); c++) {
        struct problem p = {.shape = {1, 1, 1, 40, 300, 16, types[c % 3], 0},
                            .options = {.dropout = 0.5F, .causal = c >= 3}};
        struct ls_scores scores;
        void *o, *lse;
        bool kept[300];

        problem_open(&p);
        problem_results(&o, &lse, &p);
        cr_assert_eq(ls_options_scores(&scores, &p.shape, &p.options), LS_OK);
        ls_dropout_kept(kept, &scores, 0, 0, 17, 0, 300);
        for (int64_t j = 0; j < 300; j++)
            if (!kept[j]) store_at(&p.v, 0, j, 0, j % 16, j % 2 ? NAN : -INFINITY);
        problem_run(&p);
        for (int64_t e = 0; e < 16; e++) {
            const int64_t at = 17 * 16 + e;
            const double was =
                ls_dtype_load(types[c % 3], (char *)o + at * ls_dtype_size(types[c % 3]));
            const double is = load_at(&p.o, 0, 17, 0, e);

            cr_expect_leq(fabs(is - was), 4 * ls_dtype_unit(types[c % 3]) * fabs(was) + 1e-6,
                          "%s: o %g was %g", problem_name(&p), is, was);
        }
        free(o);
        free(lse);
        problem_close(&p);
    }
}

TestSuite(attention_scores, .timeout = 600);
TEST_EACH_VARIANT(attention_scores, equals_oracle)
TEST_EACH_VARIANT(attention_scores, sinks_are_all_that_some_rows_see)
TEST_EACH_VARIANT(attention_scores, dropped_keys_may_hold_anything)

/* A kernel that holds heads [first, first + 2) of p, over all of its leaves but in two calls: what
 * is particular to a head comes once, and is the head's own. */
static void attend_heads(struct problem *p, int64_t first, float *o, float *lse)
{
    struct ls_kernel_shape shape = {.global = p->shape, .k_leaves = 3};
    struct ls_device *device = open_device(2);
    struct ls_attention_kernel *kernel;
    struct ls_work result = {0};
    const int64_t s_q = p->shape.s_q, d = p->shape.d;
    struct ls_leaf q_leaf[] = {{0, 0}, {1, 256}}, k_leaf[] = {{0, 0}, {1, 256}, {2, 512}};
    float *memory = malloc((size_t)(2 * s_q * (d + 2)) * sizeof *memory);
    struct ls_row_states states = {memory, memory + 2 * s_q, memory + 4 * s_q};
    const struct ls_found earlier = {.states = &states};
    struct mask_room room;
    struct ls_tensor q = p->q, out = p->o, out_lse = p->lse;

    shape.global.h = shape.global.h_kv = 2;
    q.dim[2] = out.dim[2] = out_lse.dim[1] = 2;
    q.data = element_at(&p->q, 0, 0, first);
    out = tensor_over(o, LS_F32, 1, s_q, 2, d, false);
    out_lse = ls_tensor_view(lse, LS_F32, 3, (const int64_t[]){1, 2, s_q});
    struct ls_tensor k = p->k, v = p->v;
    k.dim[2] = v.dim[2] = 2;
    k.data = element_at(&p->k, 0, 0, first);
    v.data = element_at(&p->v, 0, 0, first);
    struct ls_kernel_call call = {.states = &states,
                                  .q = &q,
                                  .k = &k,
                                  .v = &v,
                                  .q_leaves = {q_leaf, 2},
                                  .k_leaves = {k_leaf, 2}};

    shape.masks = problem_masks(p, &room);
    cr_assert_eq(ls_options_scores(&shape.scores, &p->shape, &p->options), LS_OK);
    shape.scores.first_head = first;
    cr_assert_eq(ls_attention_kernel_create(&kernel, device, shape), LS_OK, "%s", ls_message());
    cr_assert_eq(run_attention(&result, device, kernel, &call), LS_OK);
    call.o = &out;
    call.lse = &out_lse;
    call.found = &earlier;
    call.found_count = 1;
    call.k_leaves = (struct ls_leaf_list){k_leaf + 2, 1};
    cr_assert_eq(run_attention(&result, device, kernel, &call), LS_OK);
    ls_attention_kernel_destroy(device, kernel);
    free(memory);
}

static void heads_are_those_of_the_whole_problem(void)
{
    struct problem p = {.shape = {1, HEADS, HEADS, 300, KEYS, 16, LS_F32, 0},
                        .options = {.alibi = slopes, .sinks = sinks, .dropout = 0.25F}};
    static float o[300 * 2 * 16], lse[2 * 300];

    problem_open(&p);
    problem_run(&p);
    for (int64_t first = 0; first < HEADS; first += 2) {
        attend_heads(&p, first, o, lse);
        for (int64_t i = 0; i < 300 * 2 * 16; i++) {
            const double whole = load_at(&p.o, 0, i / 32, first + i / 16 % 2, i % 16);
            cr_assert_float_eq(o[i], whole, 1e-5, "heads from %ld: %g, not %g", (long)first,
                               (double)o[i], whole);
        }
        for (int64_t i = 0; i < 2 * 300; i++) {
            const float whole = ((float *)p.lse.data)[first * 300 + i];
            cr_assert_float_eq(lse[i], whole, 1e-5, "heads from %ld: lse %g, not %g", (long)first,
                               (double)lse[i], (double)whole);
        }
    }
    problem_close(&p);
}

/* Sinks are read in every execution; without effect where they are -inf. */
static void a_sink_of_nothing_changes_no_bit(void)
{
    static const float none[] = {-INFINITY, -INFINITY};
    struct problem p = {.shape = {1, 2, 1, 300, 500, 64, LS_BF16, 0}, .options = {.causal = true}};
    void *o, *lse;

    problem_open(&p);
    problem_results(&o, &lse, &p);
    p.options.sinks = none;
    expect_same_bits(&p, o, lse, "with sinks of -inf");
    free(o);
    free(lse);
    problem_close(&p);
}

TEST_EACH_DEVICE(attention_scores, heads_are_those_of_the_whole_problem)
TEST_EACH_DEVICE(attention_scores, a_sink_of_nothing_changes_no_bit)
