/* A problem by every method that can do it, in two layouts, strict and not: results and gradients
 * are the oracle's, and what is computed and sent is what the plan said. */
#ifndef TESTS_MPI_EVERY_METHOD_H
#define TESTS_MPI_EVERY_METHOD_H

#include "gradients.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

static inline double of_all_ranks(int64_t mine)
{
    double sum = (double)mine;

    MPI_CHECK_OK(ls_comm_reduce(&sum, world, 1, LS_REDUCE_SUM));
    return sum;
}

/* Tiles and bytes are those that the plan said. */
static inline void check_counts(const struct descent *g)
{
    struct ls_attention_report report;
    struct ls_cost cost;

    ls_attention_plan_describe(&report, g->job.plan);
    MPI_CHECK_OK(ls_plan_cost(&cost, g->job.plan));
    MPI_CHECK(of_all_ranks(report.forward.tiles_computed) == (double)cost.tiles,
              "%s: %ld tiles are predicted", job_text(&g->job), (long)cost.tiles);
    MPI_CHECK(of_all_ranks(report.forward.bytes_sent) ==
                  (double)(cost.bytes_sent + cost.residual_bytes_sent),
              "%s: %ld bytes are predicted", job_text(&g->job), (long)cost.bytes_sent);
    MPI_CHECK(of_all_ranks(report.backward.bytes_sent) ==
                  (double)(cost.backward_bytes_sent + cost.bias_bytes_sent),
              "%s: %ld bytes of backward are predicted", job_text(&g->job),
              (long)(cost.backward_bytes_sent + cost.bias_bytes_sent));
}

/* whole: drawn, and nobody's plan yet. */
static inline void check_every_method(struct descent *whole, const char *name)
{
    job_remember_exact(&whole->job);
    descent_solve(whole);
    for (int i = 0; i < 2 * ls_method_count(); i++) {
        struct descent g = *whole;

        if (g.job.options.layout == LS_LAYOUT_AUTO && i % 2)
            g.job.options.layout = LS_LAYOUT_ZIGZAG;
        g.job.options.threads = 1 + i % 2;
        g.job.options.strict = i / 2 % 2;
        if (!descent_take_method(&g, i / 2)) continue;
        descent_create_plan(&g, world);
        descent_run(&g);
        descent_check(&g, name);
        job_check(&g.job, name);
        check_counts(&g);
        descent_destroy_plan(&g);
    }
}

#endif
