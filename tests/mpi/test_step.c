/* Executions of several plans inside one step, which ends for all of them at once (plan.h): the
 * bits of executions that agree one by one, failures known at the end, and nobody who waits for
 * more than its data. */
#include "gradients.h"

MPI_SUITE(step)

#define OPTIONS .size = sizeof(struct ls_attention_options)

static const struct ls_attention_shape shape = {1, 4, 2, 900, 900, 8, LS_BF16, 0};

/* What the step of each rank has come to; collective. */
static ls_status end_step(struct ls_device *device, ls_status status)
{
    const ls_status computed = ls_queue_finish(NULL, &device->queue);

    return ls_comm_agree(world, status == LS_OK ? computed : status);
}

static ls_status put_forward(struct descent *g)
{
    const struct ls_tensor *part = g->job.part;
    const struct ls_attention_call call = {.o = &g->job.o,
                                           .o_lo = &g->o_lo,
                                           .lse = &g->job.lse,
                                           .q = &part[0],
                                           .k = &part[1],
                                           .v = &part[2]};

    LS_TRY(ls_plan_take(g->job.plan, NULL));
    return ls_plan_forward(g->job.plan, &call);
}

static ls_status put_backward(struct descent *g)
{
    const struct ls_tensor *part = g->job.part;
    const struct ls_attention_gradients out = {
        .dq = &g->gradient[DQ], .dk = &g->gradient[DK], .dv = &g->gradient[DV]};
    const struct ls_attention_saved saved = {.q = &part[0],
                                             .k = &part[1],
                                             .v = &part[2],
                                             .o = &g->job.o,
                                             .o_lo = &g->o_lo,
                                             .lse = &g->job.lse,
                                             .d_o = &g->d_o};

    LS_TRY(ls_plan_take(g->job.plan, NULL));
    return ls_plan_backward(&out, g->job.plan, &saved);
}

/* Forward through two plans, and backward in the other order. */
static ls_status put_both(struct descent g[2])
{
    LS_TRY(put_forward(&g[0]));
    LS_TRY(put_forward(&g[1]));
    LS_TRY(put_backward(&g[1]));
    return put_backward(&g[0]);
}

static bool create(struct descent *g, struct ls_device *device, int method, bool own_rows)
{
    g->residual = true;
    g->job = (struct job){.shape = shape,
                          .options = {OPTIONS, .device = device, .causal = true, .strict = true}};
    if (own_rows) job_take_even_rows(&g->job);
    if (!descent_take_method(g, method)) return false;
    descent_create_whole(g, (uint64_t)method + 1);
    descent_create_plan(g, world);
    return true;
}

static void destroy(struct descent *g)
{
    descent_destroy_plan(g);
    descent_destroy_whole(g);
}

/* Of the same plan; tensors without gaps. */
static bool same_tensor(const struct ls_tensor *a, const struct ls_tensor *b)
{
    return elements(a) == 0 ||
           memcmp(a->data, b->data, (size_t)elements(a) * (size_t)ls_dtype_size(a->type)) == 0;
}

/* A plan of each method beside one of the first that does it on any ranks. */
static void check_method(struct ls_device *device, int method)
{
    struct descent g[2] = {0}, alone;

    if (!create(&g[0], device, method, method % 2 == 1)) return;
    MPI_CHECK(create(&g[1], device, size == 1 ? 0 : 1, false), "a second method");
    alone = g[0];
    descent_create_plan(&alone, world);
    descent_run(&alone);

    descent_load(&g[0]);
    descent_load(&g[1]);
    if (rank == 0) ls_queue_note(&device->queue, ls_fail(LS_EINTERNAL, "an operation failed"));
    check_failure(end_step(device, put_both(g)), LS_EINTERNAL, "an operation failed",
                  g[0].job.options.method);
    MPI_CHECK_OK(end_step(device, put_both(g)));
    MPI_CHECK(same_tensor(&g[0].job.o, &alone.job.o), "%s: forward", job_text(&g[0].job));
    for (int i = 0; i < GRADIENTS; i++)
        MPI_CHECK(same_tensor(&g[0].gradient[i], &alone.gradient[i]), "%s: %s", job_text(&g[0].job),
                  gradient_names[i]);
    descent_destroy_plan(&alone);
    destroy(&g[1]);
    destroy(&g[0]);
}

MPI_TEST(step, ends_for_all_its_executions_at_once)
{
    struct ls_device *device;

    MPI_CHECK_OK(ls_device_open(&device, "cpu", 0, 2));
    for (int method = 0; method < ls_method_count(); method++) check_method(device, method);
    ls_device_close(device);
}

/* Sums over ranks, which the host adds, are left by all of them alike. */
MPI_TEST(step, sums_over_ranks_end_when_an_operation_of_one_fails)
{
    static const float sinks[] = {0.5F, -1, 2, 0}, distances[4 * 3] = {1, -1, 0.5F, 2};
    float *biases = calloc((size_t)(shape.s_q * shape.s_k), sizeof *biases);
    struct ls_device *device;

    MPI_CHECK_OK(ls_device_open(&device, "cpu", 0, 1));
    for (int method = 0; method < ls_method_count(); method++) {
        struct descent g = {
            .job = {.shape = shape,
                    .options = {OPTIONS, .device = device, .sinks = sinks,
                                .distance_bias = distances, .distances = 3, .bias = biases}},
            .residual = true};

        if (!descent_take_method(&g, method)) continue;
        descent_create_whole(&g, 5);
        descent_create_plan(&g, world);
        descent_load(&g);
        MPI_CHECK_OK(descent_forward(&g));
        if (rank == size - 1)
            ls_queue_note(&device->queue, ls_fail(LS_EINTERNAL, "an operation failed"));
        check_failure(descent_backward(&g), LS_EINTERNAL, "an operation failed",
                      g.job.options.method);
        MPI_CHECK_OK(descent_backward(&g));
        destroy(&g);
    }
    ls_device_close(device);
    free(biases);
}

/* Documents that end where parts do: no rank needs anything of another. The others begin when the
 * first one is done. */
MPI_TEST(step, waits_for_no_rank_of_which_it_needs_nothing)
{
    enum { ROWS = 2 * LS_LEAF, MOST = 64 };
    int64_t documents[MOST];
    struct descent g = {
        .job = {.shape = {1, 2, 1, size * ROWS, size * ROWS, 8, LS_F32, 0},
                .options = {OPTIONS, .method = "halo", .layout = LS_LAYOUT_CONTIGUOUS,
                            .documents = documents, .document_count = size}},
        .residual = true};
    struct ls_device *device;

    for (int i = 0; i <= size && i < MOST; i++) documents[i] = i * ROWS;
    MPI_CHECK_OK(ls_device_open(&device, "cpu", 0, 1));
    g.job.options.device = device;
    descent_create_whole(&g, 1);
    descent_create_plan(&g, world);
    descent_load(&g);
    ls_status status = rank == 0 ? put_forward(&g) : LS_OK;

    MPI_CHECK_OK(ls_comm_barrier(world));
    if (rank > 0) status = put_forward(&g);
    MPI_CHECK_OK(end_step(device, status));
    MPI_CHECK(g.job.plan->traffic.bytes_sent == 0, "%ld bytes",
              (long)g.job.plan->traffic.bytes_sent);
    destroy(&g);
    ls_device_close(device);
}
