/* Strips of 32 queries: their products with keys, and sums over leaves. */
#include <string.h>

#include "cpu/materialized/materialized.h"
#include "tensor/dtype.h"

/* ---- which there are */

int64_t cpu_materialized_strips(const struct ls_row_runs *runs)
{
    return runs->count * (LS_LEAF / STRIP);
}

bool cpu_materialized_find_strip(struct materialized_strip *out, const struct materialized_job *job,
                                 int64_t head, int64_t i)
{
    const struct ls_materialized_shape *shape = &job->kernel->shape;
    const struct ls_row_run *run = &job->runs->run[i / (LS_LEAF / STRIP)];
    const int64_t skipped = i % (LS_LEAF / STRIP) * STRIP, left = run->count - skipped;

    if (left <= 0) return false;
    *out = (struct materialized_strip){.batch = head / shape->h,
                                       .head = head % shape->h,
                                       .slot = materialized_slot_of(job->kernel, head),
                                       .row = run->row + skipped,
                                       .position = run->position + skipped,
                                       .rows = left < STRIP ? (int)left : STRIP,
                                       .keys = shape->s};
    if (shape->causal) out->keys = out->position + out->rows;
    return true;
}

/* ---- products */

void cpu_materialized_score(const struct materialized_job *job, struct materialized_worker *w,
                            const struct materialized_strip *strip, const struct ls_tensor *of)
{
    const struct ls_materialized_kernel *kernel = job->kernel;
    const struct ls_tensor head = cpu_materialized_head_of(of, strip->batch, strip->head);
    const char *keys = strip->slot->lines;
    const int steps = linear_steps(kernel->shape.d);

    cpu_linear_pack_lines(w->left, kernel->products, false, (struct linear_operand){&head, false},
                          strip->row, strip->rows, 0, (int)kernel->shape.d);
    for (int64_t i = 0; i < linear_panels(strip->keys); i++) {
        kernel->products->multiply(w->strip + i * LINEAR_AREA, w->left,
                                   keys + (size_t)i * materialized_panel_bytes(kernel), steps);
        if (i % (LS_LEAF / STRIP) == 0) progress_tick(w->clock);
    }
}

void cpu_materialized_start_sums(const struct ls_materialized_kernel *kernel,
                                 struct materialized_worker *w)
{
    sum_forest_start(&w->sums, (int)linear_panels(kernel->shape.d) * LINEAR_SIDE, LINEAR_SIDE);
}

void cpu_materialized_add_leaf(const struct ls_materialized_kernel *kernel,
                               struct materialized_worker *w, int64_t place, const char *right,
                               size_t pitch, int steps)
{
    struct sum_path path = {0};

    sum_forest_lead(&path, &w->sums, place, false);
    for (int j = 0; j < linear_panels(kernel->shape.d); j++, right += pitch) {
        const ptrdiff_t at = (ptrdiff_t)j * LINEAR_AREA;
        float *out = path.count > 0 ? w->block : path.total.at + at;

        kernel->products->multiply(out, w->left, right, steps);
        for (int n = 0; n < path.count; n++)
            cpu_add_floats(n == path.count - 1 ? path.total.at + at : w->block,
                           path.waiting[n].at + at, w->block, LINEAR_AREA);
    }
    progress_tick(w->clock);
}

void cpu_materialized_end_sums(struct materialized_worker *w, const struct ls_tensor *out)
{
    const struct linear_finish finish = {.y = out};

    if (w->sums.top == 0) {
        for (int64_t r = 0; r < out->dim[0]; r++)
            memset(linear_element(out, r, 0), 0,
                   (size_t)out->dim[1] * (size_t)ls_dtype_size(out->type));
        return;
    }
    const float *sums = sum_forest_fold(&w->sums).at;
    for (int64_t j = 0; j < linear_panels(out->dim[1]); j++)
        cpu_linear_finish(&finish, sums + j * LINEAR_AREA, 0, j * LINEAR_SIDE);
}

/* The strip's rows of a head. */
static struct ls_tensor rows_of(const struct ls_tensor *head,
                                const struct materialized_strip *strip)
{
    struct ls_tensor view = *head;

    view.data = linear_element(head, strip->row, 0);
    view.dim[0] = strip->rows;
    return view;
}

void cpu_materialized_gather_rows(const struct materialized_job *job, struct materialized_worker *w,
                                  const struct materialized_strip *strip,
                                  const struct ls_tensor *probabilities,
                                  const struct ls_tensor *out)
{
    const struct ls_materialized_kernel *kernel = job->kernel;
    const struct ls_tensor left = rows_of(probabilities, strip);
    const struct ls_tensor head = cpu_materialized_head_of(out, strip->batch, strip->head);
    const struct ls_tensor rows = rows_of(&head, strip);

    cpu_materialized_start_sums(kernel, w);
    for (int64_t leaf = 0; leaf * LS_LEAF < strip->keys; leaf++) {
        const int64_t seen = strip->keys - leaf * LS_LEAF;
        const int depth = seen < LS_LEAF ? (int)seen : LS_LEAF;
        const int steps = linear_steps(materialized_leaf_keys(&kernel->shape, leaf));

        cpu_linear_pack_lines(w->left, kernel->products, false,
                              (struct linear_operand){&left, false}, 0, strip->rows, leaf * LS_LEAF,
                              depth);
        cpu_materialized_add_leaf(
            kernel, w, leaf, strip->slot->leaves + (size_t)leaf * materialized_leaf_bytes(kernel),
            linear_step_bytes(kernel->products, steps), linear_steps(depth));
    }
    cpu_materialized_end_sums(w, &rows);
}

struct materialized_rows cpu_materialized_rows_of(const struct materialized_job *job,
                                                  const struct materialized_worker *w,
                                                  const struct materialized_strip *strip)
{
    const struct ls_materialized_shape *shape = &job->kernel->shape;
    const int64_t number = strip->batch * shape->h + strip->head;
    const int64_t at = (number * shape->rows + strip->row) * shape->s;
    const int64_t bytes = at * ls_dtype_size(shape->type);
    const struct ls_probabilities *kept = &job->kept;

    return (struct materialized_rows){
        .values = w->strip,
        .rows = strip->rows,
        .s = shape->s,
        .keys = strip->keys,
        .position = strip->position,
        .causal = shape->causal,
        .type = shape->type,
        .kept = {.softmax = (char *)kept->softmax + bytes,
                 .mask = kept->mask ? kept->mask + at : NULL,
                 .dropped = kept->dropped ? (char *)kept->dropped + bytes : NULL},
        .scale = shape->scale,
        .keep = 1 / (1 - shape->dropout),
    };
}
