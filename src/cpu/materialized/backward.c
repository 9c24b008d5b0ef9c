/* Backward: ds and dq of a strip of queries, and then dk and dv of a panel of keys. */
#include "cpu/materialized/materialized.h"
#include "tensor/dtype.h"

static struct ls_tensor ds_of(const struct materialized_job *job, int64_t head)
{
    const struct ls_materialized_shape *shape = &job->kernel->shape;
    const int64_t dim[] = {shape->rows, shape->s};

    return ls_tensor_view(materialized_slot_of(job->kernel, head)->ds, shape->type, 2, dim);
}

static void slopes_of_strip(const struct materialized_job *job, struct materialized_worker *w,
                            int64_t head, int64_t i)
{
    struct materialized_strip strip;

    if (!cpu_materialized_find_strip(&strip, job, head, i)) return;
    const struct ls_tensor ds = ds_of(job, head);
    struct materialized_rows rows = cpu_materialized_rows_of(job, w, &strip);

    rows.ds = linear_element(&ds, strip.row, 0);
    cpu_materialized_score(job, w, &strip, job->d_o);
    cpu_materialized_slopes(&rows);
    cpu_materialized_gather_rows(job, w, &strip, &ds, job->dq);
}

/* ---- sums over queries */

/* The first rows of a leaf of queries, in whole strips, that see none of a panel's keys. */
static int64_t rows_before(const struct materialized_job *job, const struct ls_row_run *run,
                           int64_t key)
{
    return job->kernel->shape.causal && key > run->position ? key - run->position : 0;
}

/* 32 keys, and the queries that are added up: of some runs. */
struct panel {
    int64_t key, first_run, end_run;
};

/* sums [keys of the panel, d] = left^T right; left [rows, s] is of one head, right its packed
 * leaves. */
static void sum_over_queries(const struct materialized_job *job, struct materialized_worker *w,
                             const struct ls_tensor *sums, const struct ls_tensor *left,
                             const char *right, const struct panel *panel)
{
    const struct ls_materialized_kernel *kernel = job->kernel;
    const size_t leaf_bytes = materialized_leaf_bytes(kernel);
    const int64_t key = panel->key;

    cpu_materialized_start_sums(kernel, w);
    for (int64_t i = panel->first_run; i < panel->end_run; i++) {
        const struct ls_row_run *run = &job->runs->run[i];
        const int64_t skipped = rows_before(job, run, key), depth = run->count - skipped;

        if (depth <= 0) continue;
        cpu_linear_pack_lines(w->left, kernel->products, false, (struct linear_operand){left, true},
                              key, sums->dim[0], run->row + skipped, (int)depth);
        cpu_materialized_add_leaf(kernel, w, run->position / LS_LEAF,
                                  right + (size_t)i * leaf_bytes +
                                      linear_step_bytes(kernel->products, skipped / LINEAR_SIDE),
                                  linear_step_bytes(kernel->products, linear_steps(run->count)),
                                  linear_steps(depth));
    }
    cpu_materialized_end_sums(w, sums);
}

/* Of number i of all dk or dv. */
static struct ls_tensor sums_of(float *all, const struct ls_materialized_shape *shape, int64_t i,
                                int64_t head, int64_t key)
{
    const int64_t left = shape->s - key, dim[] = {left < STRIP ? left : STRIP, shape->d};
    const int64_t row = (i * shape->b * shape->h + head) * shape->s + key;

    return ls_tensor_view(all + row * shape->d, LS_F32, 2, dim);
}

static void gradients_of_panel(const struct materialized_job *job, struct materialized_worker *w,
                               int64_t head, int64_t item)
{
    const struct ls_materialized_shape *shape = &job->kernel->shape;
    const struct materialized_slot *slot = materialized_slot_of(job->kernel, head);
    const int64_t panels = linear_panels(shape->s), i = item / panels;
    const struct panel panel = {item % panels * STRIP, job->first[i], job->first[i + 1]};
    const void *used = shape->dropout > 0 ? job->kept.dropped : job->kept.softmax;
    const struct ls_tensor p =
        cpu_materialized_kept_of(job, used, head / shape->h, head % shape->h);
    const struct ls_tensor ds = ds_of(job, head);
    const struct ls_tensor dk = sums_of(job->dk, shape, i, head, panel.key);
    const struct ls_tensor dv = sums_of(job->dv, shape, i, head, panel.key);

    sum_over_queries(job, w, &dv, &p, slot->d_o, &panel);
    sum_over_queries(job, w, &dk, &ds, slot->q, &panel);
}

void cpu_materialized_backward(struct ls_queue *queue, struct ls_materialized_kernel *kernel,
                               const struct ls_materialized_backward *call)
{
    const struct materialized_phase phases[] = {
        {cpu_materialized_strips(call->runs), slopes_of_strip},
        {call->sums * linear_panels(kernel->shape.s), gradients_of_panel}};
    struct materialized_job job = {.kernel = kernel,
                                   .runs = call->runs,
                                   .kept = call->kept,
                                   .q = call->q,
                                   .k = call->k,
                                   .v = call->v,
                                   .d_o = call->d_o,
                                   .dq = call->dq,
                                   .dk = call->dk,
                                   .dv = call->dv,
                                   .first = call->first};

    cpu_materialized_call(queue, &job, phases, 2);
}
