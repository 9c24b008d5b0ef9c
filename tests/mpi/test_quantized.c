/* Keys and values of 8 bits: every method on them, and how they come from those of other types. */
#include "attention.h"

#include "longspan/quantize.h"

MPI_SUITE(quantized)

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))
#define OPTIONS .size = sizeof(struct ls_attention_options)

static const ls_dtype types[] = {LS_I8, LS_E4M3};

/* ---- attention on them */

static const int64_t k_lengths[] = {900, 300};
static const float sinks[] = {0.5F, -1, 0.25F, 2, 0, 1};

static const struct quantized_case {
    struct ls_attention_shape shape;
    struct ls_attention_options options;
} cases[] = {
    {{.b = 2, .h = 4, .h_kv = 2, .s_q = 620, .s_k = 900, .d = 12, .d_v = 7, .type = LS_BF16},
     {OPTIONS, .k_lengths = k_lengths, .sinks = sinks}},
    {{.b = 1, .h = 6, .h_kv = 3, .s_q = 1500, .s_k = 1500, .d = 33, .type = LS_F16},
     {OPTIONS, .causal = true, .has_window = true, .window_left = 400, .window_right = LS_NO_LIMIT,
      .soft_cap = 10}},
    {{.b = 1, .h = 6, .h_kv = 1, .s_q = 1, .s_k = 1100, .d = 64, .type = LS_F32},
     {OPTIONS, .causal = true}},
};

static double of_all_ranks(int64_t mine)
{
    double sum = (double)mine;

    MPI_CHECK_OK(ls_comm_reduce(&sum, world, 1, LS_REDUCE_SUM));
    return sum;
}

static void check_method(struct job *job)
{
    struct ls_attention_report report;
    struct ls_cost cost;

    job_create_plan(job, world);
    job_run(job);
    job_check(job, "8 bits");
    ls_attention_plan_describe(&report, job->plan);
    MPI_CHECK_OK(ls_plan_cost(&cost, job->plan));
    MPI_CHECK(of_all_ranks(report.forward.bytes_sent) == (double)cost.bytes_sent,
              "%s: %ld bytes are predicted", job_text(job), (long)cost.bytes_sent);
    job_destroy_plan(job);
}

MPI_TEST(quantized, every_method_gives_the_oracle_of_what_they_stand_for)
{
    float mean[2 * 2 * 64];

    draw_mean(mean, LENGTH(mean));
    for (int c = 0; c < LENGTH(cases) * LENGTH(types); c++) {
        struct job whole = {.shape = cases[c / LENGTH(types)].shape,
                            .options = cases[c / LENGTH(types)].options,
                            .sample = 60,
                            .mean = c % 3 ? mean : NULL};

        whole.shape.kv_type = types[c % LENGTH(types)];
        job_create_whole(&whole, 3);
        job_remember_exact(&whole);
        for (int i = 0; i < ls_method_count() * 2; i++) {
            struct job job = whole;

            job.options.layout = i % 2 ? LS_LAYOUT_ZIGZAG : LS_LAYOUT_AUTO;
            job.options.threads = 1 + i % 2;
            job.strided = i % 3 == 0;
            if (job_take_method(&job, i / 2, size)) check_method(&job);
        }
        job_destroy_whole(&whole);
    }
}

/* ---- from other types */

enum { B = 2, H = 2, S = 700, D = 24, D_V = 40 };

/* Rows of this rank, of 16-bit keys or values and of 8-bit ones. */
struct both {
    struct job wide, narrow;
    float mean[B * H * D];
};

static void make_rows(struct both *x, ls_dtype kv_type, ls_dtype type, bool own_rows,
                      struct ls_comm *comm)
{
    const int p = ls_comm_size(comm), r = ls_comm_rank(comm);
    const struct ls_attention_shape shape = {
        .b = B, .h = H, .h_kv = H, .s_q = S, .s_k = S, .d = D, .d_v = D_V, .type = type};

    *x = (struct both){.wide = {.shape = shape, .options = {OPTIONS, .method = "ring"}}};
    if (p == 1) x->wide.options.method = "local";
    if (own_rows) {
        x->wide.options.has_rows = true;
        for (int i = 0; i < 3; i++) x->wide.own_first[i] = (int64_t)S * r * r / (p * p);
        x->wide.options.q_rows = x->wide.options.k_rows =
            (int64_t)S * (r + 1) * (r + 1) / (p * p) - x->wide.own_first[0];
    }
    x->narrow = x->wide;
    x->narrow.shape.kv_type = kv_type;
    job_create(&x->wide, comm, 11);
    job_transform(&x->wide, 1, 1, 3); /* keys that have a mean */
    job_load(&x->wide);
    job_create(&x->narrow, comm, 11);
    MPI_CHECK_OK(ls_attention_quantize(&x->narrow.part[1], &x->narrow.part[2], x->mean,
                                       x->narrow.plan, &x->wide.part[1], &x->wide.part[2]));
}

static void free_rows(struct both *x)
{
    job_destroy(&x->narrow);
    job_destroy(&x->wide);
}

/* Every rank's rows, scales and mean are those that one rank has of the whole. */
static void check_rows(const struct both *x, const struct both *alone, const char *text)
{
    MPI_CHECK(memcmp(x->mean, alone->mean, sizeof x->mean) == 0, "%s: mean", text);
    for (int which = 1; which < 3; which++) {
        const struct ls_tensor *part = &x->narrow.part[which];
        bool same = true;

        for (int64_t i = 0; i < B * part->dim[1] * H; i++) {
            const int64_t b = i / H / part->dim[1], row = i / H % part->dim[1], head = i % H;
            const int64_t position = job_position(&x->narrow, which, row);

            same &=
                memcmp(row_of(part, b, row, head),
                       row_of(&alone->narrow.part[which], b, position, head), row_bytes(part)) == 0;
        }
        MPI_CHECK(same, "%s: tensor %d", text, which);
    }
}

MPI_TEST(quantized, rows_do_not_depend_on_ranks)
{
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    for (int i = 0; i < 4; i++) {
        struct both x, alone;

        make_rows(&alone, types[i / 2], LS_BF16, false, self);
        make_rows(&x, types[i / 2], LS_BF16, i % 2, world);
        check_rows(&x, &alone, i % 2 ? "own rows" : "parts");
        free_rows(&x);
        free_rows(&alone);
    }
    ls_comm_destroy(self);
}

/* The mean is that of double arithmetic; what the numbers stand for is within half a unit of what
 * they came from, and o is what the contract's last row reports. */
static double distance_of_rows(const struct both *x, int which)
{
    const struct ls_tensor *from = &x->wide.whole[which], *to = &x->narrow.part[which];
    double difference = 0, all = 0;

    for (int64_t i = 0; i < B * S * H; i++) {
        const int64_t b = i / H / S, row = i / H % S, head = i % H, d = from->dim[3];
        const float *mean = which == 1 ? x->mean + (b * H + head) * D : NULL;
        double exact[D_V], stands_for[D_V];

        ls_dtype_convert(exact, LS_F64, row_of(from, b, row, head), from->type, d);
        widen_row(stands_for, to, row_of(to, b, row, head), mean);
        for (int64_t e = 0; e < d; e++) {
            difference += (exact[e] - stands_for[e]) * (exact[e] - stands_for[e]);
            all += (exact[e] - (mean ? mean[e] : 0)) * (exact[e] - (mean ? mean[e] : 0));
        }
    }
    return sqrt(difference / all);
}

static void check_mean(const struct both *x)
{
    for (int64_t i = 0; i < B * H * D; i++) {
        double sum = 0;

        for (int64_t row = 0; row < S; row++)
            sum += ls_dtype_load(x->wide.shape.type,
                                 (char *)row_of(&x->wide.whole[1], i / D / H, row, i / D % H) +
                                     i % D * ls_dtype_size(x->wide.shape.type));
        MPI_CHECK(fabs((double)x->mean[i] - sum / S) <= 1e-7 * fabs(sum / S),
                  "mean %ld is %g, not %g", (long)i, (double)x->mean[i], sum / S);
    }
}

/* A channel that is large in all keys takes the digits of the others, unless it is taken out. */
MPI_TEST(quantized, a_mean_that_is_taken_out_leaves_the_digits_to_the_rest)
{
    struct ls_comm *self;
    struct both x;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    make_rows(&x, LS_I8, LS_F32, false, self);
    for (int64_t i = 0; i < B * S * H; i++) ((float *)x.wide.whole[1].data)[i * D + 3] += 10;
    job_load(&x.wide);
    MPI_CHECK_OK(ls_attention_quantize(&x.narrow.part[1], &x.narrow.part[2], x.mean, x.narrow.plan,
                                       &x.wide.part[1], &x.wide.part[2]));
    const double with_mean = distance_of_rows(&x, 1);

    MPI_CHECK_OK(ls_attention_quantize(&x.narrow.part[1], &x.narrow.part[2], NULL, x.narrow.plan,
                                       &x.wide.part[1], &x.wide.part[2]));
    memset(x.mean, 0, sizeof x.mean);
    /* as a part of the same: of a sum of squares without the means, 3 and once 13 */
    const double without = distance_of_rows(&x, 1) * sqrt(1 + 9 + (169 - 9) / (double)D);

    MPI_CHECK(with_mean < 9e-3 && without > 3 * with_mean, "%g with, %g without", with_mean,
              without);
    free_rows(&x);
    ls_comm_destroy(self);
}

MPI_TEST(quantized, rows_are_near_what_they_came_from)
{
    /* N(0,1): half a unit of 1/127 of a row's largest, 2^-4 of a number */
    static const double limit[] = {9e-3, 3e-2};
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    for (int i = 0; i < 4; i++) {
        struct both x;

        make_rows(&x, types[i % 2], i < 2 ? LS_F32 : LS_F16, false, self);
        check_mean(&x);
        for (int which = 1; which < 3; which++) {
            const double distance = distance_of_rows(&x, which);

            MPI_CHECK(distance > limit[i % 2] / 4 && distance < limit[i % 2], "%s, tensor %d: %g",
                      ls_dtype_name(types[i % 2]), which, distance);
        }
        free_rows(&x);
    }
    ls_comm_destroy(self);
}

/* A row of NaN has a scale of NaN, and changes nothing of others. */
MPI_TEST(quantized, rows_that_are_no_numbers_are_theirs_alone)
{
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    for (int i = 0; i < LENGTH(types); i++) {
        struct both x;
        float scale;

        make_rows(&x, types[i], LS_F32, false, self);
        for (int64_t e = 0; e < D; e++)
            ((float *)row_of(&x.wide.part[1], 0, 5, 1))[e] = e == 3 ? NAN : 1e30F;
        for (int64_t e = 0; e < D; e++) ((float *)row_of(&x.wide.part[1], 0, 6, 1))[e] = 0;
        MPI_CHECK_OK(ls_attention_quantize(&x.narrow.part[1], &x.narrow.part[2], NULL,
                                           x.narrow.plan, &x.wide.part[1], &x.wide.part[2]));
        memcpy(&scale, (char *)row_of(&x.narrow.part[1], 0, 5, 1) + D, sizeof scale);
        MPI_CHECK(isnan(scale), "its scale is %g", (double)scale);
        memcpy(&scale, (char *)row_of(&x.narrow.part[1], 0, 6, 1) + D, sizeof scale);
        MPI_CHECK(scale > 0 && scale < 1e20F, "that of zeros is %g", (double)scale);
        free_rows(&x);
    }
    ls_comm_destroy(self);
}

/* ---- what cannot be */

static void expect_refusal(const struct ls_attention_shape *shape,
                           const struct ls_attention_options *options, ls_status expected,
                           const char *words)
{
    struct ls_attention_plan *plan = NULL;
    const ls_status status = ls_attention_plan_create(&plan, world, shape, options);

    MPI_CHECK(status == expected && strstr(ls_message(), words), "%s", ls_message());
}

MPI_TEST(quantized, plans_that_cannot_be_say_why)
{
    struct ls_attention_shape shape = cases[0].shape;
    struct ls_attention_options options = {OPTIONS};

    shape.kv_type = LS_BF16;
    expect_refusal(&shape, &options, LS_ETYPE, "keys and values of type bf16");
    shape.kv_type = LS_I8;
    options.backward = true;
    expect_refusal(&shape, &options, LS_EVALUE, "forward alone");
    options.backward = false;
    if (size == 1) MPI_SKIP("one rank cannot disagree");
    shape.kv_type = rank == 0 ? LS_I8 : LS_E4M3;
    expect_refusal(&shape, &options, LS_ESHAPE, "type of keys and values");
}

MPI_TEST(quantized, calls_that_cannot_be_say_why)
{
    struct both x;
    float mean[B * H * D] = {0};

    make_rows(&x, LS_I8, LS_BF16, false, world);
    x.wide.mean = mean;
    MPI_CHECK(job_forward(&x.wide) == LS_EVALUE && strstr(ls_message(), "only those of 8 bits"),
              "%s", ls_message());
    MPI_CHECK(ls_attention_quantize(&x.narrow.part[1], &x.narrow.part[2], NULL, x.wide.plan,
                                    &x.wide.part[1], &x.wide.part[2]) == LS_EVALUE,
              "%s", ls_message());
    x.narrow.mean = mean;
    mean[5] = rank == size - 1 ? NAN : 0;
    MPI_CHECK(job_forward(&x.narrow) == LS_EVALUE && strstr(ls_message(), "mean of keys is nan"),
              "%s", ls_message());
    if (size > 1) {
        mean[5] = (float)rank;
        MPI_CHECK(job_forward(&x.narrow) == LS_ESHAPE && strstr(ls_message(), "mean of keys"), "%s",
                  ls_message());
        MPI_CHECK(ls_attention_quantize(&x.narrow.part[1], &x.narrow.part[2], rank ? mean : NULL,
                                        x.narrow.plan, &x.wide.part[1],
                                        &x.wide.part[2]) == LS_ESHAPE,
                  "%s", ls_message());
    }
    x.wide.mean = x.narrow.mean = NULL;
    free_rows(&x);
}
