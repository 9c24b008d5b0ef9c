/* What a layer sends between ranks is what Korthikanti et al. 2022 (arXiv 2205.05198, section 4.2)
 * count where rows can be shared evenly, whoever computes what again. */
#include <criterion/criterion.h>

#include "plan/layer_traffic.h"
#include "plan/pieces.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

enum { S = 2048, B = 3, H = 768 };

static const struct ls_model_shape model = {
    .h = H, .L = 1, .a = 12, .a_kv = 12, .d = 64, .f = 4 * H, .bias = true};

static struct ls_model_run run_of(int64_t t, int64_t c, bool sp, unsigned pieces)
{
    return (struct ls_model_run){.type = LS_BF16,
                                 .b = B,
                                 .s = S,
                                 .t = t,
                                 .c = c,
                                 .p = 1,
                                 .m = 1,
                                 .sp = sp,
                                 .pieces = pieces,
                                 .has_rows = true,
                                 .rows = S / c,
                                 .outer_rows = S / c / (sp ? t : 1)};
}

static const struct ls_layer_place place = {.outer_nodes = 2, .inner_nodes = 3, .weight_sums = 1};

static struct ls_layer_traffic traffic_of(int64_t t, int64_t c, bool sp, unsigned pieces)
{
    const struct ls_model_run run = run_of(t, c, sp, pieces);

    return ls_layer_traffic_of(&model, &run, &place);
}

/* The bytes of one all-gather of rows between t ranks. */
static int64_t gather(int64_t t)
{
    return (int64_t)2 * S * B * H * (t - 1) / t;
}

Test(layer_traffic, rows_are_sent_as_often_as_the_paper_counts)
{
    for (int64_t t = 1; t <= 4; t *= 2) {
        cr_expect_eq(traffic_of(t, 1, false, 0).rows, (int64_t)16 * S * B * H * (t - 1) / t, "t %d",
                     (int)t);
        cr_expect_eq(traffic_of(t, 1, t > 1, 0).rows,
                     (int64_t)16 * S * B * H * (t - 1) / t + 2 * gather(t), "t %d sp", (int)t);
    }
}

Test(layer_traffic, what_is_computed_again_is_sent_again)
{
    static const struct {
        unsigned pieces;
        int gathers, attentions; /* besides; forward, of attention */
    } cases[] = {
        {LS_PIECE_SOFTMAX, 0, 1},
        {LS_PIECE_CORE, 0, 2},
        {LS_PIECE_NORM | LS_PIECE_ACTIVATION | LS_PIECE_DROPOUT, 0, 1},
        {LS_PIECE_QKV, 1, 1},
        {LS_PIECE_MLP | LS_PIECE_ACTIVATION, 1, 1},
        {LS_PIECE_LAYER, 3, 2}, /* inputs of both blocks, and the sum between them */
    };

    for (int i = 0; i < COUNT(cases); i++) {
        const struct ls_layer_traffic more = traffic_of(4, 1, true, cases[i].pieces);

        cr_expect_eq(more.rows - traffic_of(4, 1, true, 0).rows, cases[i].gathers * gather(4), "%s",
                     ls_pieces_name(cases[i].pieces).s);
        cr_expect_eq(more.attentions, cases[i].attentions, "%s", ls_pieces_name(cases[i].pieces).s);
    }
}

Test(layer_traffic, gradients_are_summed_between_those_that_share_rows)
{
    const int64_t weights = (int64_t)12 * H * H;        /* of 3 + 1 + 4 + 4 times the width */
    const int64_t inner = 3 * 7 * H, outer = 2 * 6 * H; /* nodes x vectors */

    for (int64_t t = 1; t <= 2; t++)
        for (int64_t c = 1; c <= 2; c++) {
            const struct ls_layer_traffic plain = traffic_of(t, c, false, 0);
            const struct ls_layer_traffic sp = traffic_of(t, c, true, 0);

            cr_expect_eq(plain.weights, 2 * 4 * weights / t * (c - 1) / c, "t %d c %d", (int)t,
                         (int)c);
            cr_expect_eq(sp.weights, plain.weights, "t %d c %d", (int)t, (int)c);
            cr_expect_eq(plain.vectors, 4 * (c - 1) * (outer + inner / t), "t %d c %d", (int)t,
                         (int)c);
            cr_expect_eq(sp.vectors, 4 * ((t * c - 1) * outer + (c - 1) * inner / t),
                         "t %d c %d sp", (int)t, (int)c);
        }
}

/* Of each sum, a share of the rows to each other rank; and of what they add up to, once. */
Test(layer_traffic, each_sum_of_weights_is_sent)
{
    const struct ls_layer_place strict = {.weight_sums = 5};
    struct ls_model_run run = run_of(2, 4, false, 0);

    cr_expect_eq(ls_layer_traffic_of(&model, &run, &strict).weights,
                 (int64_t)6 * 4 * 6 * H * H * 3 / 4);
    run.c = 5; /* 768 rows are 153 or 154 each */
    run.t = 1;
    cr_expect_eq(ls_layer_traffic_of(&model, &run, &strict).weights,
                 (int64_t)6 * 4 * 4 * (461 + 154 + 615 + 4 * 154) * H);
}

/* Blocks of rows are as long as the longest. */
Test(layer_traffic, uneven_rows_are_sent_as_blocks)
{
    struct ls_model_run run = run_of(4, 1, true, 0);

    run.rows = 5;
    cr_expect_eq(ls_layer_traffic_of(&model, &run, &place).rows,
                 (int64_t)(6 + 4) * 3 * 2 * (2 * B * H));
}

/* c - 1 blocks of keys and values: forward and backward, and where probabilities are made again;
 * their gradients in f32, as many sums as there are. */
Test(layer_traffic, a_materialized_core_gathers_keys)
{
    struct ls_model_run run = run_of(2, 4, true, 0);
    const int64_t block = (int64_t)B * S / 4 * 2 * H / 2;
    struct ls_layer_place one = {.key_sums = 6};

    cr_expect_eq(ls_layer_traffic_of(&model, &run, &one).keys, 0);
    run.core = LS_CORE_MATERIALIZED;
    cr_expect_eq(ls_layer_traffic_of(&model, &run, &one).attentions, 0);
    cr_expect_eq(ls_layer_traffic_of(&model, &run, &one).keys, 3 * block * (2 + 2 + 4));
    run.pieces = LS_PIECE_SOFTMAX;
    cr_expect_eq(ls_layer_traffic_of(&model, &run, &one).keys, 3 * block * (2 + 2 + 2 + 4));
    one.key_sums = 5 * 6;
    cr_expect_eq(ls_layer_traffic_of(&model, &run, &one).keys, 3 * block * (2 + 2 + 2 + 5 * 4));
    run.c = 1;
    cr_expect_eq(ls_layer_traffic_of(&model, &run, &one).keys, 0);
}

/* One input less is gathered in each direction, one gradient less is summed, and there is one norm.
 */
Test(layer_traffic, parallel_blocks_share_an_input)
{
    const struct ls_model_run run = run_of(4, 1, true, 0),
                              again = run_of(4, 1, true, LS_PIECE_LAYER);
    struct ls_model_shape parallel = model;

    parallel.parallel = true;
    const struct ls_layer_traffic plain = ls_layer_traffic_of(&parallel, &run, &place);

    cr_expect_eq(plain.rows, traffic_of(4, 1, true, 0).rows - 3 * gather(4));
    cr_expect_eq(plain.vectors, 4 * 3 * 2 * 4 * H);
    cr_expect_eq(ls_layer_traffic_of(&parallel, &again, &place).rows - plain.rows, gather(4));
}

Test(layer_traffic, vectors_that_there_are_not_are_not_sent)
{
    const struct ls_model_run run = run_of(1, 3, false, 0);
    struct ls_model_shape llama = model;

    llama.norm = LS_NORM_RMS;
    llama.bias = false;
    cr_expect_eq(ls_layer_traffic_of(&llama, &run, &place).vectors, 4 * 2 * 2 * 2 * H);
}

/* Two ranks have each key/value head: half of the 2 d numbers goes to the other, and comes back. */
Test(layer_traffic, gradients_of_shared_heads_are_summed_between_their_ranks)
{
    const struct ls_model_run run = run_of(4, 1, false, 0);
    struct ls_model_shape shared = model;

    shared.a_kv = 2;
    const struct ls_layer_traffic traffic = ls_layer_traffic_of(&shared, &run, &place);

    cr_expect_eq(traffic.weights, 4 * 2 * 64 * H);
    cr_expect_eq(traffic.vectors, 4 * 2 * 64);
}
