/* What attention over several ranks computes: the same as the oracle, and the properties that
 * follow from the mathematics, for every method and layout. */
#include "attention.h"

#include <math.h>

MPI_SUITE(attention)

static const ls_layout_kind layouts[] = {LS_LAYOUT_CONTIGUOUS, LS_LAYOUT_ZIGZAG, LS_LAYOUT_STRIPED,
                                         LS_LAYOUT_BALANCED};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F16};

typedef void (*visitor)(struct job *job, void *context);

/* Calls visit(job, context) with every method that fits. The job's whole input stands; the rest is
 * up to the visitor. */
static void for_each_method(struct job *job, visitor visit, void *context)
{
    for (int m = 0; m < ls_method_count(); m++)
        if (job_take_method(job, m, size)) visit(job, context);
}

/* The same with every layout as well, and with one thread or two. */
static void for_each_way(struct job *job, visitor visit, void *context)
{
    for (size_t l = 0; l < COUNT(layouts); l++) {
        job->options.layout = layouts[l];
        job->options.threads = 1 + (int)l % 2;
        for_each_method(job, visit, context);
    }
}

static void run_and_check(struct job *job, void *name)
{
    job_create_plan(job, world);
    job_run(job);
    job_check(job, name);
    job_destroy_plan(job);
}

/* ---- any shape */

static const struct shape_case {
    const char *name;
    struct ls_attention_shape shape; /* b, h, h_kv, s_q, s_k, d, type, d_v */
} shapes[] = {
    {"one of everything", {1, 1, 1, 1, 1, 1, LS_F32, 0}},
    {"3001 positions: 12 leaves", {1, 1, 1, 3001, 3001, 16, LS_BF16, 0}},
    {"one query, many keys", {1, 2, 1, 1, 4000, 64, LS_BF16, 0}},
    {"one key", {1, 2, 2, 300, 1, 32, LS_F16, 0}},
    {"more queries than keys", {1, 1, 1, 1500, 700, 40, LS_F32, 0}},
    {"more keys than queries, batches", {2, 2, 2, 300, 1300, 64, LS_F16, 0}},
    {"grouped heads, batches, wider values", {2, 6, 2, 520, 520, 24, LS_BF16, 40}},
    {"narrower values", {1, 2, 1, 900, 700, 48, LS_F32, 17}},
    {"odd head dim", {1, 2, 1, 600, 515, 77, LS_F32, 0}},
    {"largest head dim", {1, 1, 1, 257, 513, 576, LS_BF16, 512}},
    {"no queries", {1, 1, 1, 0, 300, 16, LS_F32, 0}},
    {"no keys", {2, 1, 1, 300, 0, 16, LS_BF16, 0}},
};

static void check_shapes(bool causal)
{
    for (size_t i = 0; i < COUNT(shapes); i++) {
        struct job job = {.shape = shapes[i].shape,
                          .options = LS_ATTENTION_OPTIONS,
                          .sample = shapes[i].shape.s_q > 256 ? 16 : 0};

        job.options.causal = causal;
        job_create_whole(&job, 100 + i);
        job_remember_exact(&job);
        for_each_way(&job, run_and_check, (void *)shapes[i].name);
        job_destroy_whole(&job);
    }
}

MPI_TEST(attention, every_way_keeps_the_contract)
{
    check_shapes(false);
}

MPI_TEST(attention, every_way_keeps_the_contract_if_causal)
{
    check_shapes(true);
}

MPI_TEST(attention, tensors_may_lie_heads_first_and_lse_with_gaps)
{
    for (size_t t = 0; t < COUNT(types); t++) {
        struct job job = {.shape = {2, 4, 2, 700, 900, 32, types[t], 0},
                          .options = LS_ATTENTION_OPTIONS,
                          .strided = true,
                          .sample = 8};

        job.options.causal = true;
        job_create_whole(&job, 7);
        job_remember_exact(&job);
        for_each_method(&job, run_and_check, "heads first");
        job_destroy_whole(&job);
    }
}

/* ---- any logits */

/* Each row points along one axis: logits are 0 but where a query and a key have it in common. */
static void point(struct job *job, double length)
{
    for (int i = 0; i < 2; i++) {
        struct ls_tensor *t = &job->whole[i];

        job_transform(job, i, 0, 0);
        for (int64_t row = 0; row < t->dim[1]; row++)
            for (int64_t head = 0; head < t->dim[2]; head++)
                ls_dtype_store(t->type,
                               (char *)row_of(t, 0, row, head) +
                                   row % t->dim[3] * ls_dtype_size(t->type),
                               length);
    }
}

static void make_huge(struct job *job)
{
    job_transform(job, 0, 200, 0);
}

static void make_flat(struct job *job)
{
    job_transform(job, 0, 0, 0);
}

static void make_one_hot(struct job *job)
{
    point(job, 100);
}

static void move_values(struct job *job)
{
    job_transform(job, 2, 1, 2);
}

/* All logits are -222: a maximum that starts from 0 and not from nothing would leave no key. The
 * products are exact, for f32's sake. */
static void make_low(struct job *job)
{
    job_transform(job, 0, 0, -4);
    job_transform(job, 1, 0, 8);
}

static void negate_scale(struct job *job)
{
    job->options.has_scale = true;
    job->options.scale = -0.5f;
}

MPI_TEST(attention, logits_may_be_huge_flat_one_hot_or_low)
{
    static const struct {
        const char *name;
        void (*make)(struct job *job);
    } cases[] = {{"huge", make_huge},
                 {"flat", make_flat},
                 {"one-hot", make_one_hot},
                 {"low", make_low},
                 {"values of mean 2", move_values},
                 {"negative scale", negate_scale}};

    for (size_t i = 0; i < COUNT(cases); i++) {
        for (size_t t = 0; t < COUNT(types); t++) {
            struct job job = {.shape = {1, 2, 1, 600, 1300, 48, types[t], 0},
                              .options = LS_ATTENTION_OPTIONS,
                              .sample = 16};

            job.options.causal = i % 2 == 0;
            job_create_whole(&job, 40 + i);
            cases[i].make(&job);
            job_remember_exact(&job);
            for_each_method(&job, run_and_check, (void *)cases[i].name);
            job_destroy_whole(&job);
        }
    }
}

/* ---- which keys a query sees */

/* Exchanges leaf i and leaf n - 1 - i of K and V. */
static void reverse_leaves(struct job *job)
{
    for (int which = 1; which < 3; which++) {
        struct ls_tensor *t = &job->whole[which];
        const int64_t leaves = t->dim[1] / LS_LEAF;
        const size_t bytes = (size_t)(LS_LEAF * t->stride[1]) * (size_t)ls_dtype_size(t->type);
        char *spare = malloc(bytes);

        for (int64_t i = 0; i < leaves / 2; i++) {
            void *a = row_of(t, 0, i * LS_LEAF, 0),
                 *b = row_of(t, 0, (leaves - 1 - i) * LS_LEAF, 0);

            memcpy(spare, a, bytes);
            memcpy(a, b, bytes);
            memcpy(b, spare, bytes);
        }
        free(spare);
    }
}

static void run_reversed_and_check(struct job *job, void *unused)
{
    (void)unused;
    job_create_plan(job, world);
    reverse_leaves(job);
    job_run(job);
    reverse_leaves(job); /* the oracle takes the keys in their old order */
    job_check(job, "keys in another order");
    job_destroy_plan(job);
}

MPI_TEST(attention, without_a_mask_the_order_of_the_keys_does_not_matter)
{
    for (size_t t = 0; t < COUNT(types); t++) {
        struct job job = {.shape = {1, 2, 1, 300, 9 * LS_LEAF, 32, types[t], 0},
                          .options = LS_ATTENTION_OPTIONS,
                          .sample = 8};

        job_create_whole(&job, 60);
        for_each_way(&job, run_reversed_and_check, NULL);
        job_destroy_whole(&job);
    }
}

/* Keys and values from a position on become NaN. */
static void poison(struct job *job, int64_t from)
{
    for (int which = 1; which < 3; which++) {
        struct ls_tensor *t = &job->whole[which];
        const int64_t all = t->dim[1] * t->stride[1];

        for (int64_t i = from * t->stride[1]; i < all; i++)
            ls_dtype_store(t->type, (char *)t->data + i * ls_dtype_size(t->type), NAN);
    }
}

static bool is_nan_row(const struct job *job, int64_t row)
{
    bool all = true;

    for (int64_t head = 0; head < job->shape.h; head++) {
        for (int64_t e = 0; e < job->shape.d; e++)
            all &= isnan(ls_dtype_load(job->o.type, (char *)row_of(&job->o, 0, row, head) +
                                                        e * ls_dtype_size(job->o.type))) != 0;
        all &= isnan(lse_of(&job->lse, 0, head)[row]) != 0;
    }
    return all;
}

/* Position of a query of this rank that the poison reaches and does not spoil, or the other way
 * round; -1 if all is well. */
static int64_t find_wrong(const struct job *spoilt, const struct job *clean, int64_t from)
{
    const int64_t shift = spoilt->shape.s_k - spoilt->shape.s_q;
    const struct ls_layout layout = job_layout(spoilt, 0);

    for (int64_t row = 0; row < spoilt->o.dim[1]; row++) {
        const int64_t position = ls_layout_position(&layout, rank, row);
        const bool sees = position + shift >= from;

        if (sees ? !is_nan_row(spoilt, row) : !rows_equal(spoilt, row, clean, row)) return position;
    }
    return -1;
}

static void check_poisoned(struct job *clean, void *seed)
{
    static const int64_t cuts[] = {0, 256, 300, 1024, 1199};
    struct job spoilt = *clean;

    job_create_plan(clean, world);
    job_run(clean);
    job_create(&spoilt, world, *(uint64_t *)seed);
    for (size_t c = COUNT(cuts); c-- > 0;) { /* more and more of them */
        poison(&spoilt, cuts[c]);
        job_run(&spoilt);
        const int64_t wrong = find_wrong(&spoilt, clean, cuts[c]);
        MPI_CHECK(wrong < 0, "%s: keys from %ld on are NaN, query %ld is wrong", job_text(clean),
                  (long)cuts[c], (long)wrong);
    }
    job_destroy(&spoilt);
    job_destroy_plan(clean);
}

MPI_TEST(attention, a_query_feels_the_keys_that_it_sees_and_no_others)
{
    for (size_t i = 0; i < 6; i++) { /* each layout with one type or two */
        struct job job = {.shape = {1, 2, 1, 1000, 1200, 16, types[i % COUNT(types)], 0},
                          .options = LS_ATTENTION_OPTIONS};
        uint64_t seed = 80;

        job.options.causal = true;
        job.options.layout = layouts[i % COUNT(layouts)];
        job_create_whole(&job, seed);
        for_each_method(&job, check_poisoned, &seed);
        job_destroy_whole(&job);
    }
}

/* values [d + 1] = o and lse at a position of the only head, on the rank that has it; else 0. */
static void read_query(double *values, const struct job *job, int64_t position)
{
    const struct ls_layout layout = job_layout(job, 0);
    const int64_t d = job->shape.d;

    memset(values, 0, (size_t)(d + 1) * sizeof(*values));
    for (int64_t row = 0; row < job->o.dim[1]; row++) {
        if (ls_layout_position(&layout, rank, row) != position) continue;
        ls_dtype_convert(values, LS_F64, row_of(&job->o, 0, row, 0), job->o.type, d);
        values[d] = lse_of(&job->lse, 0, 0)[row];
    }
}

/* Collective. Largest difference between the results of query i of a and query j of b. */
static double largest_difference(const struct job *a, int64_t i, const struct job *b, int64_t j)
{
    const int64_t n = a->shape.d + 1;
    double of_a[LS_MAX_HEAD_DIM + 1], of_b[LS_MAX_HEAD_DIM + 1], most = 0;

    read_query(of_a, a, i);
    read_query(of_b, b, j);
    MPI_CHECK_OK(ls_comm_reduce(of_a, world, (int)n, LS_REDUCE_SUM));
    MPI_CHECK_OK(ls_comm_reduce(of_b, world, (int)n, LS_REDUCE_SUM));
    for (int64_t e = 0; e < n; e++) most = fmax(most, fabs(of_a[e] - of_b[e]));
    return most;
}

MPI_TEST(attention, a_causal_query_is_one_without_a_mask_over_fewer_keys)
{
    static const int64_t positions[] = {0, 255, 256, 700, 1399};
    struct job causal = {.shape = {1, 1, 1, 1400, 1400, 32, LS_F32, 0},
                         .options = LS_ATTENTION_OPTIONS};

    causal.options.causal = true;
    causal.options.method = "ring";
    job_create(&causal, world, 90);
    job_run(&causal);
    for (size_t i = 0; i < COUNT(positions); i++) {
        struct job full = causal;
        const int64_t keys = positions[i] + 1;

        full.options.causal = false;
        full.shape.s_q = 1;
        full.shape.s_k = keys;
        full.whole[0].data = row_of(&causal.whole[0], 0, positions[i], 0);
        job_create_plan(&full, world);
        job_run(&full);
        const double worst = largest_difference(&causal, positions[i], &full, 0);
        MPI_CHECK(worst < 3e-6, "query %ld: %g apart", (long)positions[i], worst);
        job_destroy_plan(&full);
    }
    job_destroy(&causal);
}

/* ---- bits */

static void check_two_runs(struct job *first, void *unused)
{
    struct job second = *first;

    (void)unused;
    job_create_plan(first, world);
    job_create_plan(&second, world);
    job_run(first);
    job_run(&second);
    MPI_CHECK(first_difference(first, &second) < 0, "%s: two plans, row %ld", job_text(first),
              (long)first_difference(first, &second));
    job_run(&second);
    MPI_CHECK(first_difference(first, &second) < 0, "%s: run again, row %ld", job_text(first),
              (long)first_difference(first, &second));
    job_destroy_plan(&second);
    job_destroy_plan(first);
}

MPI_TEST(attention, two_runs_give_the_same_bits)
{
    for (size_t t = 0; t < COUNT(types); t++) {
        struct job job = {.shape = {1, 3, 1, 900, 1900, 64, types[t], 0},
                          .options = LS_ATTENTION_OPTIONS};

        job.options.causal = t % 2 == 0;
        job_create_whole(&job, 20);
        for_each_way(&job, check_two_runs, NULL);
        job_destroy_whole(&job);
    }
}

/* Those whose kernel calls bring all keys that a query sees. */
static bool sums_like_one_rank(const char *method)
{
    return strcmp(method, "allgather") == 0 || strcmp(method, "ulysses") == 0;
}

/* alone: the same on one rank, all rows. */
static void check_like_one_rank(struct job *job, void *alone)
{
    int64_t wrong = -1;

    if (!sums_like_one_rank(job->options.method)) return;
    job_create_plan(job, world);
    job_run(job);
    for (int64_t row = 0; row < job->o.dim[1] && wrong < 0; row++) {
        const struct ls_layout layout = job_layout(job, 0);
        const int64_t position = ls_layout_position(&layout, rank, row);

        if (!rows_equal(job, row, alone, position)) wrong = position;
    }
    MPI_CHECK(wrong < 0, "%s: query %ld", job_text(job), (long)wrong);
    job_destroy_plan(job);
}

/* On 2 to 8 ranks: heads that divide evenly and not, that are fewer than ranks, groups that are
 * dealt whole, and split evenly and not. */
static const struct ls_attention_shape one_order[] = {
    {2, 3, 1, 800, 1500, 40, LS_F32, 0},
    {1, 6, 6, 300, 700, 64, LS_F32, 0},
    {1, 8, 2, 270, 600, 16, LS_F32, 0},
    {1, 4, 1, 513, 300, 72, LS_F32, 0},
};

MPI_TEST(attention, one_order_of_summation_gives_the_bits_of_one_rank)
{
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    for (size_t t = 0; t < 2 * COUNT(types) * COUNT(one_order); t++) {
        struct job alone = {.shape = one_order[t / (2 * COUNT(types))],
                            .options = LS_ATTENTION_OPTIONS};

        alone.shape.type = types[t / 2 % COUNT(types)];
        alone.options.causal = t % 2 == 0;
        alone.options.method = "local";
        alone.options.threads = 1;
        job_create(&alone, self, 30);
        job_run(&alone);
        struct job job = alone;
        for_each_way(&job, check_like_one_rank, &alone);
        job_destroy(&alone);
    }
    ls_comm_destroy(self);
}

/* ---- errors */

static double relative_error(const struct job *job)
{
    const struct ls_errors errors = job_errors(job);

    return sqrt(errors.diff2 / errors.norm2);
}

MPI_TEST(attention, errors_do_not_grow_with_the_number_of_ranks)
{
    struct ls_comm *self;
    struct job alone = {.shape = {1, 1, 1, 4096, 4096, 64, LS_F32, 0},
                        .options = LS_ATTENTION_OPTIONS,
                        .sample = 32};

    MPI_CHECK_OK(ls_comm_create_self(&self));
    alone.options.threads = 1;
    job_create(&alone, self, 50);
    job_run(&alone);
    const double least = relative_error(&alone);
    for (size_t l = 0; l < COUNT(layouts); l++) {
        struct job job = alone;

        job.options.method = "ring";
        job.options.layout = layouts[l];
        job_create_plan(&job, world);
        job_run(&job);
        const double error = relative_error(&job);
        MPI_CHECK(error <= 1.2 * least, "%s: rel %.3g, on one rank %.3g", job_text(&job), error,
                  least);
        job_destroy_plan(&job);
    }
    job_destroy(&alone);
    ls_comm_destroy(self);
}
