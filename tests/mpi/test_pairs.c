/* Masks that are given pair by pair, of all, of each entry, of each head and of both: every method,
 * forward and backward, against the oracle. */
#include "../tensor/masks.h"
#include "every_method.h"

MPI_SUITE(pairs)

#define OPTIONS .size = sizeof(struct ls_attention_options)

enum { B = 2, H = 4, S_Q = 620, S_K = 900 };

static const struct ls_attention_shape shape = {B, H, 2, S_Q, S_K, 12, LS_F32, 7};
static const int64_t k_lengths[B] = {900, 300};
static const float sinks[] = {0.5F, -1, 0.25F, 2};
static const float biases[H * 3] = {1, 0, -1, 2, 0.5F, 0, -2, 1, 1, 0, 0, 3};
static const struct ls_slice slices[] = {{0, 400, 0, 700, LS_SLICE_CAUSAL},
                                         {100, 620, 700, 900, LS_SLICE_FULL}};

static const struct pair_case {
    const char *name;
    struct ls_attention_options options;
} cases[] = {
    {"pairs", {OPTIONS}},
    {"pairs of entries",
     {OPTIONS, .pairs_per_entry = true, .causal = true, .k_lengths = k_lengths, .sinks = sinks}},
    {"pairs of heads",
     {OPTIONS, .pairs_per_head = true, .causal = true, .dropout = 0.2F, .distance_bias = biases,
      .distances = 3}},
    {"pairs of entries and heads",
     {OPTIONS, .pairs_per_entry = true, .pairs_per_head = true, .slices = slices,
      .slice_count = LENGTH(slices), .layout = LS_LAYOUT_BALANCED}},
};

/* Bits of so many matrices; the caller frees them. */
static uint8_t *draw_matrices(int n)
{
    const size_t matrix = pair_bytes(S_Q, S_K);
    uint8_t *bits = malloc((size_t)n * matrix);

    for (int i = 0; i < n; i++) draw_pairs(bits + (size_t)i * matrix, S_Q, S_K, 7 + (uint64_t)i);
    return bits;
}

static void check_case(const struct pair_case *c, const uint8_t *bits)
{
    struct descent whole = {.job = {.shape = shape, .options = c->options, .sample = 40},
                            .residual = true};

    whole.job.options.pair_bits = bits;
    descent_create_whole(&whole, 3);
    check_every_method(&whole, c->name);
    descent_destroy_whole(&whole);
}

MPI_TEST(pairs, see_each_other_by_their_bits)
{
    uint8_t *bits = draw_matrices(B * H);

    for (int i = 0; i < LENGTH(cases); i++) check_case(&cases[i], bits);
    free(bits);
}

/* The second entry, as a batch of its own, is what it is among all. */
MPI_TEST(pairs, of_an_entry_are_its_own)
{
    uint8_t *bits = draw_matrices(B * H);
    struct descent both = {
        .job = {.shape = shape,
                .options = {OPTIONS, .method = "ring", .layout = LS_LAYOUT_ZIGZAG,
                            .pair_bits = bits, .pairs_per_entry = true, .pairs_per_head = true}},
        .residual = true};
    struct descent second = both;

    second.job.shape.b = 1;
    second.job.options.pairs_per_entry = false;
    second.job.options.pair_bits = bits + H * pair_bytes(S_Q, S_K);
    descent_create_whole(&both, 3);
    descent_create_whole(&second, 3);
    for (int i = 0; i < 3; i++)
        memcpy(second.job.whole[i].data, row_of(&both.job.whole[i], 1, 0, 0),
               (size_t)elements(&second.job.whole[i]) * sizeof(float));
    memcpy(second.whole_d_o.data, row_of(&both.whole_d_o, 1, 0, 0),
           (size_t)elements(&second.whole_d_o) * sizeof(float));
    descent_create_plan(&both, world);
    descent_create_plan(&second, world);
    descent_run(&both);
    descent_run(&second);
    MPI_CHECK(second.job.o.dim[1] == 0 ||
                  memcmp(second.job.o.data, row_of(&both.job.o, 1, 0, 0),
                         (size_t)elements(&second.job.o) * sizeof(float)) == 0,
              "o of the second entry");
    for (int i = 0; i < GRADIENTS; i++)
        MPI_CHECK(second.gradient[i].dim[1] == 0 ||
                      memcmp(second.gradient[i].data, row_of(&both.gradient[i], 1, 0, 0),
                             (size_t)elements(&second.gradient[i]) * sizeof(float)) == 0,
                  "%s of the second entry", gradient_names[i]);
    descent_destroy_plan(&second);
    descent_destroy_plan(&both);
    descent_destroy_whole(&second);
    descent_destroy_whole(&both);
    free(bits);
}

/* Heads 2 and 3 of four, as a plan of their own, are what they are among all. */
MPI_TEST(pairs, of_some_heads_are_those_among_all)
{
    uint8_t *bits = draw_matrices(B * H);
    const size_t matrix = pair_bytes(S_Q, S_K);
    struct descent some = {
        .job = {.shape = shape,
                .options = {OPTIONS, .pair_bits = bits, .pairs_per_head = true,
                            .pairs_per_entry = true, .first_head = 2, .total_heads = H}},
        .residual = true};
    uint8_t *own = malloc(2 * B * matrix);

    for (int i = 0; i < 2 * B; i++)
        memcpy(own + (size_t)i * matrix, bits + (size_t)(i / 2 * H + 2 + i % 2) * matrix, matrix);
    some.job.shape.h = 2;
    some.job.shape.h_kv = 1;
    some.job.options.method = "ring";
    some.job.options.layout = LS_LAYOUT_ZIGZAG;
    descent_create_whole(&some, 3);
    struct descent alone = some;

    alone.job.options.pair_bits = own;
    alone.job.options.first_head = 0;
    alone.job.options.total_heads = 0;
    descent_create_plan(&some, world);
    descent_create_plan(&alone, world);
    descent_run(&some);
    descent_run(&alone);
    MPI_CHECK(memcmp(some.job.o.data, alone.job.o.data,
                     (size_t)elements(&some.job.o) * sizeof(float)) == 0,
              "o of heads 2 and 3");
    for (int i = 0; i < GRADIENTS; i++)
        MPI_CHECK(memcmp(some.gradient[i].data, alone.gradient[i].data,
                         (size_t)elements(&some.gradient[i]) * sizeof(float)) == 0,
                  "%s of heads 2 and 3", gradient_names[i]);
    descent_destroy_plan(&alone);
    descent_destroy_plan(&some);
    descent_destroy_whole(&some);
    free(own);
    free(bits);
}

/* Every fifth key so that its logits are -inf, or left out by the bits: the same to a rounding. */
static void run_without(struct descent *g, struct ls_comm *self, bool infinite)
{
    *g = (struct descent){.job = {.shape = shape,
                                  .options = {OPTIONS, .method = "local", .causal = true,
                                              .distance_bias = biases, .distances = 3}},
                          .residual = true};
    uint8_t *bits = memset(malloc(pair_bytes(S_Q, S_K)), 0xff, pair_bytes(S_Q, S_K));

    for (int64_t n = 0; n < S_Q * S_K; n += 5) /* S_K is a multiple */
        bits[n / S_K * ((S_K + 7) / 8) + n % S_K / 8] &= (uint8_t) ~(1 << n % S_K % 8);
    if (!infinite) g->job.options.pair_bits = bits;
    descent_create_whole(g, 3);
    for (int64_t n = 0; n < B * S_Q * H; n++) ((float *)g->job.whole[0].data)[n * 12] = 1;
    for (int64_t n = 0; infinite && n < B * S_K * 2; n += 10)
        for (int kv_head = 0; kv_head < 2; kv_head++)
            ((float *)g->job.whole[1].data)[(n + kv_head) * 12] = -INFINITY;
    descent_create_plan(g, self);
    descent_run(g);
    free(bits);
}

MPI_TEST(pairs, infinite_keys_count_nowhere)
{
    struct descent left_out, infinite;
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    run_without(&left_out, self, false);
    run_without(&infinite, self, true);
    for (int i = 0; i < H * 3; i++)
        MPI_CHECK(fabsf(left_out.ddistance[i] - infinite.ddistance[i]) <=
                      1e-4F * (1 + fabsf(left_out.ddistance[i])),
                  "bias %d: %g, not %g", i, (double)infinite.ddistance[i],
                  (double)left_out.ddistance[i]);
    descent_destroy_plan(&infinite);
    descent_destroy_whole(&infinite);
    descent_destroy_plan(&left_out);
    descent_destroy_whole(&left_out);
    ls_comm_destroy(self);
}

MPI_TEST(pairs, ranks_that_disagree_are_told)
{
    uint8_t *bits = draw_matrices(1);
    struct ls_attention_options options = {OPTIONS, .method = "ring", .pair_bits = bits};
    struct ls_attention_plan *plan = NULL;

    if (size == 1) MPI_SKIP("one rank cannot disagree");
    if (rank == size - 1) bits[S_Q * ((S_K + 7) / 8) - 1] ^= 1;
    MPI_CHECK(ls_attention_plan_create(&plan, world, &shape, &options) == LS_ESHAPE &&
                  strstr(ls_message(), "pairs that are left"),
              "%s", ls_message());
    free(bits);
}
