/* Forward: scores, softmax and dropout of a strip of queries, and its output. */
#include "cpu/materialized/materialized.h"
#include "tensor/dtype.h"
#include "tensor/scores.h"

static struct drawing drawing_of_head(const struct materialized_job *job, int64_t batch,
                                      int64_t head)
{
    const struct ls_materialized_shape *shape = &job->kernel->shape;
    const struct ls_scores scores = {
        .dropout = shape->dropout, .seed = job->seed, .heads = shape->heads};
    const struct ls_dropout dropout = ls_dropout_of_keys(&scores, batch, shape->first_head + head);

    return drawing_of(&dropout, LS_RANDOM_DROPOUT, job->kernel->cpu.isa);
}

static void attend_strip(const struct materialized_job *job, struct materialized_worker *w,
                         int64_t head, int64_t i)
{
    const struct ls_materialized_shape *shape = &job->kernel->shape;
    const bool drops = shape->dropout > 0;
    struct materialized_strip strip;

    if (!cpu_materialized_find_strip(&strip, job, head, i)) return;
    const struct drawing drawing = drawing_of_head(job, strip.batch, strip.head);
    struct materialized_rows rows = cpu_materialized_rows_of(job, w, &strip);
    const struct ls_tensor used = cpu_materialized_kept_of(
        job, drops ? job->kept.dropped : job->kept.softmax, strip.batch, strip.head);

    rows.drawing = drops ? &drawing : NULL;
    cpu_materialized_score(job, w, &strip, job->q);
    cpu_materialized_softmax(&rows);
    if (job->o) cpu_materialized_gather_rows(job, w, &strip, &used, job->o);
}

void cpu_materialized_forward(struct ls_queue *queue, struct ls_materialized_kernel *kernel,
                              const struct ls_materialized_forward *call)
{
    const struct materialized_phase strips = {cpu_materialized_strips(call->runs), attend_strip};
    struct materialized_job job = {.kernel = kernel,
                                   .runs = call->runs,
                                   .kept = call->kept,
                                   .q = call->q,
                                   .k = call->k,
                                   .v = call->v,
                                   .o = call->o,
                                   .seed = call->seed};

    cpu_materialized_call(queue, &job, &strips, 1);
}
