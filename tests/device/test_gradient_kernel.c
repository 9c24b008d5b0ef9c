/* The gradient kernel against double: types, head dimensions, lengths, masks, scores, shares of
 * leaves, on each instruction set. */
#include "gradient_harness.h"

static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F16};

static void run_case(struct meeting m)
{
    meeting_open(&m);
    meeting_run(&m);
    expect_exact(&m);
    meeting_close(&m);
}

static void shapes_are_exact(void)
{
    static const int64_t dims[] = {1, 3, 16, 17, 64, 80, 128, 256, 576};
    static const struct {
        int64_t s_q, s_k;
    } lengths[] = {{1, 1}, {30, 300}, {257, 155}, {270, 31}, {16, 16}};

    for (int i = 0; i < LENGTH(dims) * LENGTH(types); i++) {
        struct meeting m = {.shape = {.b = 1 + i % 2,
                                      .h = i % 4 == 0 ? 2 : 1,
                                      .h_kv = 1,
                                      .s_q = lengths[i % LENGTH(lengths)].s_q,
                                      .s_k = lengths[i % LENGTH(lengths)].s_k,
                                      .d = dims[i / 3],
                                      .d_v = i % 2 ? dims[i % LENGTH(dims)] : 0,
                                      .type = types[i % 3]},
                            .threads = 1 + i % 2,
                            .bhsd = i / 2 % 2};

        m.rule = i % 5 < 3 ? causal_rule(m.shape.s_q, m.shape.s_k)
                           : ls_mask_rule_full(m.shape.s_q, m.shape.s_k);
        run_case(m);
    }
}

static void masks_are_exact(void)
{
    static const int64_t documents[] = {0, 100, 101, 400, 400, 700};
    const struct ls_mask_rule rules[] = {
        {.left = 40, .right = 0},
        {.left = 300, .right = 5, .prefix = 7},
        {.shift = -90, .left = INT64_MAX, .right = 0},
        {.shift = 300, .left = 10, .right = 10, .prefix = 300},
        {.left = INT64_MAX, .right = 0, .documents = documents, .document_count = 5},
        {.left = INT64_MAX, .right = INT64_MAX, .documents = documents, .document_count = 5},
        {.left = 0, .right = 0},
    };

    for (int i = 0; i < LENGTH(rules); i++)
        run_case((struct meeting){
            .shape = {1, 2, 1, 600, 700, 5, types[i % 3], 0}, .rule = rules[i], .threads = 2});
}

/* Unions of bands that no rule makes, others in each entry, and some leaves of keys only. */
static void any_bands_are_exact(void)
{
    for (int i = 0; i < 9; i++)
        run_case((struct meeting){
            .shape = {1 + i % 3, 2, 1, 500 + 20 * i, 800 - 30 * i, 5, types[i % 3], 0},
            .bands_by = 1 + (uint64_t)i,
            .k_share = {1 + i / 3 % 2, 0},
            .threads = 1 + i % 2});
}

static void scores_are_exact(void)
{
    static const float slopes[] = {0.5F, 0.0F, 0.0625F, 1.0F};
    static float pairs[2 * 4 * 270 * 260];
    static const float biases[] = {0.5F, -1, 2, 0, 3, 1, -1, 0, 0.5F, 0.25F, -2, 1};
    const struct ls_scores scores[] = {
        {.soft_cap = 2},
        {.alibi = slopes},
        {.dropout = 0.3F, .seed = 7},
        {.soft_cap = 5, .alibi = slopes, .dropout = 0.1F, .seed = 9, .heads = 4, .first_head = 2},
        {.scale = -0.3F},
        {.distance_bias = biases, .distances = 3},
        {.distance_bias = biases, .distances = 3, .soft_cap = 3, .heads = 4, .first_head = 2},
        {.scale = 2, .soft_cap = 0.5F},
        {.bias = pairs, .bias_keys = 260},
        {.bias = pairs, .bias_keys = 260, .bias_entry = 270 * 260},
        {.bias = pairs,
         .bias_keys = 260,
         .bias_entry = 4 * 270 * 260,
         .bias_head = 270 * 260,
         .soft_cap = 3,
         .alibi = slopes,
         .dropout = 0.2F,
         .heads = 4,
         .first_head = 2},
    };

    ls_random_normal(pairs, 8, 1, 0, LENGTH(pairs));
    for (int i = 0; i < LENGTH(pairs); i += 7 + i % 5) pairs[i] = -INFINITY;

    for (int i = 0; i < LENGTH(scores) * LENGTH(types); i++) {
        struct meeting m = {.shape = {2, 2, 1, 270, 260, 9, types[i % 3], 14},
                            .scores = scores[i / 3]};

        m.rule = i % 2 ? causal_rule(270, 260) : ls_mask_rule_full(270, 260);
        run_case(m);
    }
}

/* A rank's leaves are not neighbours, and of some the others see nothing. */
static void shares_are_exact(void)
{
    for (int i = 0; i < 8; i++)
        run_case((struct meeting){.shape = {1, 1, 1, 1300, 1540, 3, types[i % 3], 0},
                                  .rule = {.left = i % 4 == 0 ? 300 : INT64_MAX, .right = 0},
                                  .q_share = {2, i % 2},
                                  .k_share = {1 + i % 3, i / 2 % (1 + i % 3)},
                                  .threads = 1 + i % 3});
}

/* dq is complete before the keys end, or a chunk is left out. */
static void chunks_are_exact(void)
{
    const struct ls_mask_rule rules[] = {
        {.shift = 2800, .left = INT64_MAX, .right = 0},
        {.shift = 2900, .left = 200, .right = 100, .prefix = 300},
        {.left = INT64_MAX, .right = INT64_MAX},
    };

    for (int i = 0; i < LENGTH(rules); i++)
        run_case((struct meeting){
            .shape = {1, 2, 2, 20, 3900, 4, LS_F32, 0}, .rule = rules[i], .threads = 1 + i % 2});
}

TestSuite(gradient_kernel, .timeout = 600);
TEST_EACH_VARIANT(gradient_kernel, shapes_are_exact)
TEST_EACH_VARIANT(gradient_kernel, masks_are_exact)
TEST_EACH_VARIANT(gradient_kernel, any_bands_are_exact)
TEST_EACH_VARIANT(gradient_kernel, scores_are_exact)
TEST_EACH_VARIANT(gradient_kernel, shares_are_exact)
TEST_EACH_VARIANT(gradient_kernel, chunks_are_exact)
