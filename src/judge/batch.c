#include "judge/batch.h"

#include <string.h>

#include "base/ledger.h"
#include "base/tell.h"

ls_status ls_judge_room(void *slot, size_t bytes)
{
    void *memory;

    LS_TRY(ls_alloc(&memory, LS_TAG_WORKSPACE, bytes));
    memcpy(slot, &memory, sizeof(memory));
    return LS_OK;
}

/* ---- columns */

ls_status ls_columns_init(struct ls_columns *out, const struct ls_judge *judge, unsigned wanted,
                          int64_t most)
{
    *out = (struct ls_columns){.judge = judge};
    for (int t = 0; t < LS_JUDGE_TENSORS; t++) {
        if (!(wanted & LS_JUDGE_BIT(t)) || !judge->has[t]) continue;
        out->set |= LS_JUDGE_BIT(t);
        out->offset[t] = out->length;
        out->length += judge->tensor[t].dim[3];
    }
    return ls_judge_room(&out->data, (size_t)(most * out->length) * sizeof(*out->data));
}

void ls_columns_load(const struct ls_columns *c, int64_t at, int64_t b, int64_t first, int64_t rows,
                     int64_t head)
{
    for (int t = 0; t < LS_JUDGE_TENSORS; t++)
        if (ls_columns_have(c, t))
            ls_judge_load_rows(ls_column(c, t, at), &c->judge->tensor[t], b, first, rows, head);
}

void ls_columns_add_residual(const struct ls_columns *c)
{
    const int64_t elements = c->n * c->judge->tensor[LS_JUDGE_O].dim[3];

    if (!ls_columns_have(c, LS_JUDGE_O_LO)) return;
    double *o = ls_column(c, LS_JUDGE_O, 0);
    const double *o_lo = ls_column(c, LS_JUDGE_O_LO, 0);

    for (int64_t i = 0; i < elements; i++) o[i] += o_lo[i];
}

struct ls_reference_query ls_judge_query(const struct ls_columns *columns, int64_t i, int64_t batch,
                                         int64_t head, int64_t position)
{
    const struct ls_problem *problem = &columns->judge->problem;
    const int64_t of_all = problem->scores.first_head + head;

    return (struct ls_reference_query){.q = ls_column(columns, LS_JUDGE_Q, i),
                                       .mask = ls_masks_of(&problem->masks, batch, of_all),
                                       .scores = &problem->scores,
                                       .batch = batch,
                                       .head = of_all,
                                       .position = position};
}

struct ls_reference_backward ls_judge_backward(const struct ls_columns *columns, int64_t i,
                                               const struct ls_reference_query *query,
                                               const double *o, double lse)
{
    const struct ls_judge *judge = columns->judge;
    const double dlse =
        ls_columns_have(columns, LS_JUDGE_DLSE) ? *ls_column(columns, LS_JUDGE_DLSE, i) : 0;
    struct ls_reference_backward back = {.query = *query,
                                         .d_o = ls_column(columns, LS_JUDGE_D_O, i),
                                         .rounded_o = !judge->has[LS_JUDGE_O_LO]};

    ls_reference_backward_set(&back, o, lse, dlse, (int)judge->tensor[LS_JUDGE_D_O].dim[3]);
    return back;
}

struct ls_reference_backward ls_judge_own_backward(const struct ls_columns *columns, int64_t i,
                                                   int64_t batch, int64_t head, int64_t position)
{
    const struct ls_reference_query query = ls_judge_query(columns, i, batch, head, position);

    return ls_judge_backward(columns, i, &query, ls_column(columns, LS_JUDGE_O, i),
                             *ls_column(columns, LS_JUDGE_LSE, i));
}

/* ---- the other side, leaf by leaf */

static const struct ls_layout *layout_of(const struct ls_judge *judge, bool keys)
{
    return keys ? &judge->k_layout : &judge->q_layout;
}

/* Whether a row from the first to the last of the batch is one of a pair with a row of the leaf, of
 * this head of the other side. */
static bool meets(const struct ls_judge_batch *batch, int64_t position, int64_t rows, int64_t head)
{
    const struct ls_problem *problem = &batch->judge->problem;
    const int64_t of_all = problem->scores.first_head + (batch->of_keys ? head : batch->head);
    const struct ls_mask *mask = ls_masks_of(&problem->masks, batch->b, of_all);
    const int64_t first = batch->position[0], span = batch->position[batch->rows.n - 1] - first + 1;

    return batch->of_keys ? ls_mask_meets(mask, position, rows, first, span)
                          : ls_mask_meets(mask, first, span, position, rows);
}

/* The heads of the other side that belong to the batch's. */
static void find_heads(int64_t *first, int64_t *count, const struct ls_judge_batch *batch)
{
    const struct ls_attention_shape *shape = &batch->judge->problem.shape;
    const int64_t group = shape->h / shape->h_kv;

    *first = batch->of_keys ? batch->head * group : batch->head / group;
    *count = batch->of_keys ? group : 1;
}

static void *add_leaves(void *argument)
{
    struct ls_share *s = argument;
    const struct ls_judge_batch *batch = s->batch;
    const struct ls_judge *judge = batch->judge;
    const struct ls_layout *layout = layout_of(judge, !batch->of_keys);
    int64_t first, heads;

    find_heads(&first, &heads, batch);
    for (int64_t i = 0; i < ls_layout_part_leaves(layout, judge->rank); i++) {
        const int64_t leaf = ls_layout_part_leaf(layout, judge->rank, i);

        s->position = leaf * LS_LEAF;
        s->leaf.n = ls_layout_leaf_rows(layout, leaf);
        for (s->head = first; s->head < first + heads; s->head++) {
            if (!meets(batch, s->position, s->leaf.n, s->head)) continue;
            if (s->first == 0) ls_comm_beat(judge->comm); /* so that others hear */
            ls_columns_load(&s->leaf, 0, batch->b, i * LS_LEAF, s->leaf.n, s->head);
            s->add(s);
        }
    }
    return NULL;
}

/* The first share is this thread's own; a thread that cannot be started is stood in for. */
void ls_judge_batch_meet(struct ls_judge_batch *batch, void (*add)(const struct ls_share *))
{
    const int count = batch->judge->problem.device->facts.threads;
    struct ls_share *shares = batch->shares;
    int started = 1;

    for (int i = 0; i < count; i++) shares[i].add = add;
    while (started < count &&
           pthread_create(&batch->threads[started], NULL, add_leaves, &shares[started]) == 0)
        started++;
    add_leaves(&shares[0]);
    for (int i = started; i < count; i++) add_leaves(&shares[i]);
    for (int i = 1; i < started; i++) pthread_join(batch->threads[i], NULL);
}

ls_status ls_judge_batch_judge_gradient(const struct ls_judge_batch *batch, int tensor,
                                        const struct ls_reference_sum *partial,
                                        struct ls_reference_sum *all)
{
    struct ls_judge *judge = batch->judge;
    const int d = (int)judge->tensor[tensor].dim[3];
    const int64_t n = batch->rows.n;

    LS_TRY(ls_comm_gather(all, judge->comm, partial, (size_t)n * sizeof(*partial)));
    for (int64_t i = 0; i < n; i++) {
        for (int r = 1; r < judge->p; r++) ls_reference_sum_merge(&all[i], &all[r * n + i], d);
        ls_gradient_errors_add_row(&judge->gradient_errors[tensor - LS_JUDGE_DQ], judge->contract,
                                   ls_column(&batch->rows, tensor, i), &all[i], d,
                                   (const int64_t[]){batch->b, batch->position[i], batch->head});
    }
    return LS_OK;
}

/* ---- one batch after the other */

ls_status ls_judge_batch_init(struct ls_judge_batch *out, struct ls_judge *judge, bool of_keys,
                              unsigned rows, unsigned leaf, void *context)
{
    const size_t threads = (size_t)judge->problem.device->facts.threads;
    const int64_t most = ls_judge_most_rows(layout_of(judge, of_keys), judge->rows);

    *out = (struct ls_judge_batch){.judge = judge, .of_keys = of_keys, .context = context};
    LS_TRY(ls_columns_init(&out->rows, judge, rows, LS_JUDGE_BATCH));
    LS_TRY(ls_judge_room(&out->positions, (size_t)most * sizeof(*out->positions)));
    LS_TRY(ls_judge_room(&out->threads, threads * sizeof(*out->threads)));
    LS_TRY(ls_judge_room(&out->shares, threads * sizeof(*out->shares)));
    memset(out->shares, 0, threads * sizeof(*out->shares));
    for (size_t i = 0; i < threads; i++) {
        struct ls_share *share = &out->shares[i];

        *share = (struct ls_share){.batch = out, .first = (int)i, .step = (int)threads};
        LS_TRY(ls_columns_init(&share->leaf, judge, leaf, LS_LEAF));
    }
    return LS_OK;
}

void ls_judge_batch_fini(struct ls_judge_batch *batch)
{
    for (int i = 0; batch->shares && i < batch->judge->problem.device->facts.threads; i++)
        ls_free(batch->shares[i].leaf.data);
    ls_free(batch->shares);
    ls_free(batch->threads);
    ls_free(batch->positions);
    ls_free(batch->rows.data);
}

/* Rows of other ranks are zero, so that a sum over ranks gives every rank all of them. */
ls_status ls_judge_batch_load(struct ls_judge_batch *batch)
{
    const struct ls_judge *judge = batch->judge;
    const struct ls_columns *rows = &batch->rows;
    const int64_t elements = rows->n * rows->length;

    memset(rows->data, 0, (size_t)elements * sizeof(*rows->data));
    for (int64_t i = 0; i < rows->n; i++) {
        const int64_t local =
            ls_judge_find_row(layout_of(judge, batch->of_keys), judge->rank, batch->position[i]);

        if (local >= 0) ls_columns_load(rows, i, batch->b, local, 1, batch->head);
    }
    return ls_comm_reduce(rows->data, judge->comm, (int)elements, LS_REDUCE_SUM);
}

ls_status ls_judge_batch_each(struct ls_judge_batch *batch, const char *phase,
                              ls_status (*judge)(void *))
{
    const struct ls_judge *j = batch->judge;
    const struct ls_attention_shape *shape = &j->problem.shape;
    const int64_t h = batch->of_keys ? shape->h_kv : shape->h, heads = shape->b * h;

    for (int64_t i = 0; i < heads; i++) {
        batch->b = i % shape->b;
        batch->head = i / shape->b;
        const int64_t all = ls_judge_choose_rows(batch->positions, layout_of(j, batch->of_keys),
                                                 j->rows, batch->b * h + batch->head);

        for (int64_t first = 0; first < all; first += LS_JUDGE_BATCH) {
            ls_tell(j->progress, phase, i * all + first, heads * all);
            batch->position = batch->positions + first;
            batch->rows.n = all - first < LS_JUDGE_BATCH ? all - first : LS_JUDGE_BATCH;
            LS_TRY(ls_judge_batch_load(batch));
            LS_TRY(judge(batch->context));
        }
    }
    return LS_OK;
}
