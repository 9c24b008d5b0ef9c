/* Heads that are some of more: halves of a problem's heads, each with its place among all, have the
 * bits of the whole in strict mode. */
#include "gradients.h"

MPI_SUITE(heads)

#define H 4

static const float slopes[H] = {0.5F, 0.25F, 0.125F, 0.0625F}, sinks[H] = {0.5F, -1, 0, 2};

static struct descent new_whole(int64_t h_kv, int64_t s_q)
{
    struct descent g = {
        .job = {.shape = {1, H, h_kv, s_q, 700, 16, LS_BF16, 0}, .options = LS_ATTENTION_OPTIONS},
        .residual = true};

    g.job.options.strict = true;
    g.job.options.causal = true;
    g.job.options.layout = LS_LAYOUT_CONTIGUOUS;
    g.job.options.alibi = slopes;
    g.job.options.sinks = sinks;
    g.job.options.dropout = 0.25F;
    g.job.options.dropout_seed = 3;
    return g;
}

/* A half of the heads of a tensor [b, s, heads, d]; all of one. */
static struct ls_tensor half_of(const struct ls_tensor *t, int half)
{
    struct ls_tensor part = *t;

    if (t->dim[2] == 1) return part;
    part.dim[2] /= 2;
    part.data = row_of(t, 0, 0, half * part.dim[2]);
    return part;
}

static struct descent new_half(const struct descent *whole, int half)
{
    struct descent g = *whole;
    struct ls_attention_options *o = &g.job.options;

    o->first_head = half * H / 2;
    o->total_heads = H;
    o->total_kv_heads = whole->job.shape.h_kv;
    for (int i = 0; i < 3; i++) g.job.whole[i] = half_of(&whole->job.whole[i], half);
    g.whole_d_o = half_of(&whole->whole_d_o, half);
    g.job.shape.h = g.job.whole[0].dim[2];
    g.job.shape.h_kv = g.job.whole[1].dim[2];
    return g;
}

static bool is_half(const struct ls_tensor *part, const struct ls_tensor *of, int half)
{
    const struct ls_tensor expected = half_of(of, half);

    for (int64_t i = 0; i < part->dim[1]; i++)
        for (int64_t h = 0; h < part->dim[2]; h++)
            if (memcmp(row_of(part, 0, i, h), row_of(&expected, 0, i, h), row_bytes(part)) != 0)
                return false;
    return true;
}

static bool lse_is_half(const struct job *job, const struct job *whole)
{
    const size_t bytes = (size_t)job->lse.dim[2] * sizeof(float);

    for (int64_t h = 0; h < job->shape.h && bytes > 0; h++)
        if (memcmp(lse_of(&job->lse, 0, h), lse_of(&whole->lse, 0, job->options.first_head + h),
                   bytes) != 0)
            return false;
    return true;
}

static void check_forward(const struct job *job, const struct job *whole, int half)
{
    MPI_CHECK(is_half(&job->o, &whole->o, half), "%s: half %d: o", job_text(job), half);
    MPI_CHECK(lse_is_half(job, whole), "%s: half %d: lse", job_text(job), half);
}

static void check_half(const struct descent *whole, int method, int half)
{
    struct descent g = new_half(whole, half);

    if (!descent_take_method(&g, method)) return;
    descent_create_plan(&g, world);
    descent_run(&g);
    check_forward(&g.job, &whole->job, half);
    for (int i = 0; i < GRADIENTS; i++)
        MPI_CHECK(is_half(&g.gradient[i], &whole->gradient[i], half), "%s: half %d: %s",
                  job_text(&g.job), half, gradient_names[i]);
    MPI_CHECK(memcmp(g.dsinks, whole->dsinks + half * H / 2, H / 2 * sizeof *sinks) == 0,
              "%s: half %d: dsinks", job_text(&g.job), half);
    descent_destroy_plan(&g);
}

MPI_TEST(heads, halves_are_the_whole)
{
    struct descent whole = new_whole(2, 600);

    descent_create_whole(&whole, 17);
    for (int method = 0; method < ls_method_count(); method++) {
        struct descent g = whole;

        if (!descent_take_method(&g, method)) continue;
        descent_create_plan(&g, world);
        descent_run(&g);
        for (int half = 0; half < 2; half++) check_half(&g, method, half);
        descent_destroy_plan(&g);
    }
    descent_destroy_whole(&whole);
}

/* Few queries have a kernel of their own, of the whole group: of half of it they would be few. */
MPI_TEST(heads, halves_of_a_group_have_its_kernel)
{
    struct descent whole = new_whole(1, 3);

    descent_create_whole(&whole, 18);
    whole.job.options.method = size == 1 ? "local" : "tree";
    job_create_plan(&whole.job, world);
    job_run(&whole.job);
    for (int half = 0; half < 2; half++) {
        struct descent g = new_half(&whole, half);

        job_create_plan(&g.job, world);
        job_run(&g.job);
        check_forward(&g.job, &whole.job, half);
        job_destroy_plan(&g.job);
    }
    job_destroy_plan(&whole.job);
    descent_destroy_whole(&whole);
}

/* ---- places that are none */

MPI_TEST(heads, a_place_that_is_none_is_refused)
{
    static const struct {
        int64_t first, total, total_kv;
        const char *says;
    } cases[] = {
        {2, 0, 0, "4 heads from head 2 on are not among 4"},
        {-1, 8, 0, "from head -1 on"},
        {5, 8, 0, "from head 5 on"},
        {0, 7, 0, "7 heads"},
        {0, 8, 3, "8 heads"},
        {0, 8, 1, NULL},
        {4, 8, 0, NULL},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ls_attention_shape shape = {1, 4, 2, 600, 600, 16, LS_BF16, 0};
        struct ls_attention_options options = LS_ATTENTION_OPTIONS;
        struct ls_attention_plan *plan = NULL;

        options.first_head = cases[i].first;
        options.total_heads = cases[i].total;
        options.total_kv_heads = cases[i].total_kv;
        const ls_status status = ls_attention_plan_create(&plan, world, &shape, &options);
        MPI_CHECK(status == (cases[i].says ? LS_EVALUE : LS_OK) &&
                      (!cases[i].says || strstr(ls_message(), cases[i].says)),
                  "case %zu: %s", i, ls_message());
        ls_attention_plan_destroy(plan);
    }
}
