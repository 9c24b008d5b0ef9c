/* Biases of pairs, of all, of each entry, of each head and of both: every method, forward and
 * backward, against the oracle. */
#include "every_method.h"

MPI_SUITE(biases)

#define OPTIONS .size = sizeof(struct ls_attention_options)

enum { B = 2, H = 4, S_Q = 620, S_K = 900, MATRIX = S_Q * S_K };

static const struct ls_attention_shape shape = {B, H, 2, S_Q, S_K, 12, LS_F32, 7};
static const int64_t k_lengths[B] = {900, 300}, documents[] = {0, 100, 560, 900};
static const float sinks[] = {0.5F, -1, 0.25F, 2}, slopes[] = {0.5F, 0, 0.25F, -0.01F};

static float biases[B * H * MATRIX]; /* drawn, some -inf */

static const struct bias_case {
    const char *name;
    struct ls_attention_options options;
} cases[] = {
    {"biases", {OPTIONS}},
    {"biases of entries",
     {OPTIONS, .bias_per_entry = true, .causal = true, .k_lengths = k_lengths, .sinks = sinks}},
    {"biases of heads",
     {OPTIONS, .bias_per_head = true, .has_window = true, .window_left = 200, .dropout = 0.2F,
      .soft_cap = 5}},
    {"biases of entries and heads",
     {OPTIONS, .bias_per_entry = true, .bias_per_head = true, .documents = documents,
      .document_count = 3, .alibi = slopes, .layout = LS_LAYOUT_BALANCED}},
};

static void draw(void)
{
    ls_random_normal(biases, 11, 0, 0, LENGTH(biases));
    for (int64_t i = 0; i < LENGTH(biases); i += 11 + i % 7) biases[i] = -INFINITY;
}

/* rows: of the callers' own, cut anywhere. */
static void check_case(const struct bias_case *c, ls_dtype type, bool rows)
{
    struct descent whole = {
        .job = {.shape = shape, .options = c->options, .sample = 40, .strided = rows},
        .residual = true};

    whole.job.shape.type = type;
    whole.job.options.bias = biases;
    if (rows) job_take_even_rows(&whole.job);
    descent_create_whole(&whole, 3);
    check_every_method(&whole, c->name);
    descent_destroy_whole(&whole);
}

MPI_TEST(biases, are_added_to_logits_and_have_gradients)
{
    draw();
    for (int i = 0; i < LENGTH(cases); i++) check_case(&cases[i], LS_F32, i % 2);
}

MPI_TEST(biases, are_f32_whatever_the_type)
{
    draw();
    check_case(&cases[3], LS_BF16, true);
}
