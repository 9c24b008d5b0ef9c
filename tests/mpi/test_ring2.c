/* The double ring with every size of a node. (test_attention.c holds every method to the same
 * properties, with one size.) */
#include "attention.h"

MPI_SUITE(ring2)

static struct job job_of(struct ls_attention_shape shape, int node)
{
    struct job job = {.shape = shape, .options = LS_ATTENTION_OPTIONS, .sample = 32};

    job.options.method = "ring2";
    job.options.node_size = node;
    job.options.threads = 1;
    return job;
}

static int64_t bytes_of_all(const struct job *job)
{
    struct ls_attention_report report;

    ls_attention_plan_describe(&report, job->plan);
    double bytes = (double)report.forward.bytes_sent;
    MPI_CHECK_OK(ls_comm_reduce(&bytes, world, 1, LS_REDUCE_SUM));
    return (int64_t)bytes;
}

/* Executed twice: the second time buffers are not empty. */
static void check_node(struct job *job)
{
    const struct ls_attention_shape *s = &job->shape;
    const int64_t all = 2 * s->b * s->s_k * s->h_kv * s->d * ls_dtype_size(s->type);

    job_create_plan(job, world);
    for (int turn = 0; turn < 2; turn++) {
        job_run(job);
        job_check(job, turn ? "again" : "a double ring");
    }
    MPI_CHECK(bytes_of_all(job) == (size - 1) * all, "nodes of %d: %ld bytes",
              job->options.node_size, (long)bytes_of_all(job));
    job_destroy_plan(job);
}

MPI_TEST(ring2, any_node_that_fits_keeps_the_contract)
{
    static const struct ls_attention_shape shapes[] = {
        {1, 2, 1, 3001, 3001, 16, LS_BF16, 0}, /* 12 leaves: some ranks of 8 have one, some two */
        {2, 4, 2, 300, 900, 24, LS_F32, 0},    /* more ranks than leaves */
        {1, 1, 1, 700, 0, 16, LS_F16, 0},
    };

    for (int i = 0; i < 3 * 4 * size; i++) {
        struct job job = job_of(shapes[i % 3], 1 + i / 12);

        job.options.layout = (ls_layout_kind)(i / 3 % 4);
        job.options.causal = i % 2 == 0;
        job.strided = i / 2 % 2 == 0;
        if (size % job.options.node_size != 0) continue;
        job_create_whole(&job, (uint64_t)i);
        job_remember_exact(&job);
        check_node(&job);
        job_destroy_whole(&job);
    }
}

/* Also of the plain ring, in whose order it need not merge. */
MPI_TEST(ring2, strict_bits_are_those_of_one_rank)
{
    struct job alone = job_of((struct ls_attention_shape){1, 2, 1, 900, 3900, 32, LS_BF16, 0}, 1);
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    alone.options.strict = true;
    job_create(&alone, self, 4);
    job_run(&alone);
    for (int node = 1; node <= size; node++) {
        struct job job = job_of(alone.shape, node);
        int64_t wrong = -1;

        if (size % node != 0) continue;
        memcpy(job.whole, alone.whole, sizeof job.whole);
        job.options.strict = true;
        job.options.layout = node % 2 ? LS_LAYOUT_ZIGZAG : LS_LAYOUT_STRIPED;
        job_create_plan(&job, world);
        job_run(&job);
        const struct ls_layout queries = job_layout(&job, 0);
        for (int64_t i = 0; i < job.o.dim[1] && wrong < 0; i++)
            if (!rows_equal(&job, i, &alone, ls_layout_position(&queries, rank, i))) wrong = i;
        MPI_CHECK(wrong < 0, "nodes of %d: row %ld", node, (long)wrong);
        job_destroy_plan(&job);
    }
    job_destroy(&alone);
    ls_comm_destroy(self);
}

/* What the plan says when nodes of so many ranks cannot be. */
static void check_refused(int node, ls_status status, const char *says)
{
    struct job job = job_of((struct ls_attention_shape){1, 1, 1, 300, 300, 16, LS_F32, 0}, node);
    struct ls_attention_plan *plan = NULL;

    MPI_CHECK(ls_attention_plan_create(&plan, world, &job.shape, &job.options) == status && !plan,
              "nodes of %d", node);
    MPI_CHECK(strstr(ls_message(), says) != NULL, "nodes of %d: %s", node, ls_message());
}

MPI_TEST(ring2, says_why_a_node_does_not_fit)
{
    char says[64];

    for (int node = 2; node <= size + 1; node++) {
        if (size % node == 0) continue;
        snprintf(says, sizeof says, "%d ranks are no whole number of nodes of %d", size, node);
        check_refused(node, LS_EFIT, says);
    }
    check_refused(-1, LS_EVALUE, "node size is -1");
}

/* Here all ranks share one. */
MPI_TEST(ring2, takes_nodes_as_they_are_unless_told)
{
    struct job job = job_of((struct ls_attention_shape){1, 1, 1, 300, 300, 16, LS_F32, 0}, 0);

    job_create(&job, world, 1);
    MPI_CHECK(job.plan->problem.node_size == ls_comm_node_run(world), "%d",
              job.plan->problem.node_size);
    job_run(&job);
    job_check(&job, "nodes as they are");
    job_destroy(&job);
}
