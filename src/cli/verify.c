#include "cli/verify.h"

#include <string.h>

#include "base/ledger.h"
#include "cli/verify_keys.h"
#include "comm/comm.h"

/* Query rows of one head that are judged together. */
struct batch {
    int64_t b, head;
    int n;
    const int64_t *position;          /* [n] */
    double *rows;                     /* [n, 2 d + 1]: q, o, lse of each; [n, 4 d + 1]: d_o, dq */
    struct ls_reference_row *partial; /* [n]: of this rank's keys */
    struct ls_reference_row *all;     /* [p, n] */
    /* with gradients: what is exact of each row, and the sums of dq as the results above */
    struct ls_reference_backward *back;
    struct ls_reference_sum *partial_dq, *all_dq;
};

/* One thread's share of a batch: rows first, first + step, ... */
struct share {
    const struct cli_verify *what;
    struct batch *batch;
    const struct cli_world *world;
    int first, step;
    bool back;     /* add to dq */
    double *k, *v; /* one leaf, [256, d] */
};

static int64_t row_length(const struct cli_verify *w)
{
    return (w->gradients ? 4 : 2) * w->shape.d + 1;
}

/* ---- the oracle's partial rows */

static struct ls_reference_query query_at(const struct batch *batch, const struct cli_verify *w,
                                          int i)
{
    return (struct ls_reference_query){.q = batch->rows + i * row_length(w),
                                       .mask = &w->mask,
                                       .scores = &w->scores,
                                       .batch = batch->b,
                                       .head = batch->head,
                                       .position = batch->position[i]};
}

static void add_leaf(const struct share *s, int64_t first, int64_t keys)
{
    const struct cli_verify *w = s->what;
    struct batch *batch = s->batch;
    const int d = (int)w->shape.d;

    for (int i = s->first; i < batch->n; i += s->step) {
        const struct ls_reference_query query = query_at(batch, w, i);

        if (s->back)
            ls_reference_add_dq(&batch->partial_dq[i], &batch->back[i], s->k, s->v, first, keys, d);
        else
            ls_reference_row_add(&batch->partial[i], &query, s->k, s->v, first, keys, d);
    }
}

static void *add_keys(void *argument)
{
    struct share *s = argument;
    const struct cli_verify *w = s->what;
    const struct ls_attention_shape *n = &w->shape;
    struct batch *batch = s->batch;
    const int64_t kv_head = batch->head / (n->h / n->h_kv);
    const int64_t leaves = ls_layout_part_leaves(&w->k_layout, s->world->rank);
    const int64_t first = batch->position[0], last = batch->position[batch->n - 1];
    const struct ls_visible seen = ls_mask_rows(&w->mask, first, last - first + 1);

    for (int64_t j = 0; j < leaves; j++) {
        const int64_t leaf = ls_layout_part_leaf(&w->k_layout, s->world->rank, j);
        const int64_t keys = ls_layout_leaf_rows(&w->k_layout, leaf);

        if (ls_visible_count(seen, leaf * LS_LEAF, keys) == 0) continue;
        if (s->first == 0) cli_world_beat(s->world);
        cli_rows_load(s->k, &w->k, batch->b, j * LS_LEAF, keys, kv_head);
        cli_rows_load(s->v, &w->v, batch->b, j * LS_LEAF, keys, kv_head);
        add_leaf(s, leaf * LS_LEAF, keys);
    }
    return NULL;
}

/* ---- a batch, from its positions to its errors */

/* Fills in the rows that this rank holds and zeroes the others, so that a sum over ranks gives
 * every rank all of them. */
static void load_rows(struct batch *batch, const struct cli_verify *w, int rank)
{
    const int64_t d = w->shape.d, local_rows = ls_layout_part_rows(&w->q_layout, rank);

    memset(batch->rows, 0, (size_t)(batch->n * row_length(w)) * sizeof(double));
    for (int i = 0; i < batch->n; i++) {
        const int64_t local = cli_rows_find(&w->q_layout, rank, batch->position[i]);
        double *row = batch->rows + i * row_length(w);

        if (local < 0) continue;
        cli_rows_load(row, &w->q, batch->b, local, 1, batch->head);
        cli_rows_load(row + d, &w->o, batch->b, local, 1, batch->head);
        if (w->lse) row[2 * d] = w->lse[(batch->b * w->shape.h + batch->head) * local_rows + local];
        if (!w->gradients) continue;
        cli_rows_load(row + 2 * d + 1, &w->gradients->d_o, batch->b, local, 1, batch->head);
        if (w->gradients->has[CLI_DQ])
            cli_rows_load(row + 3 * d + 1, &w->gradients->of[CLI_DQ], batch->b, local, 1,
                          batch->head);
    }
}

static void judge_rows(struct ls_errors *errors, struct batch *batch, const struct cli_verify *w,
                       int p)
{
    const int d = (int)w->shape.d;
    double o[LS_MAX_HEAD_DIM], exact_lse;

    for (int i = 0; i < batch->n; i++) {
        const double *row = batch->rows + i * row_length(w);
        const int64_t where[3] = {batch->b, batch->position[i], batch->head};
        const struct ls_reference_query query = query_at(batch, w, i);
        struct ls_reference_row *exact = &batch->all[i];

        for (int r = 1; r < p; r++) ls_reference_row_merge(exact, &batch->all[r * batch->n + i], d);
        ls_reference_row_add_sink(exact, &query, d);
        ls_reference_row_finish(o, &exact_lse, exact, d);
        ls_errors_add_row(errors, w->contract, row + d, w->lse ? row[2 * d] : exact_lse, exact, d,
                          where);
        if (!w->gradients) continue;
        batch->back[i] = (struct ls_reference_backward){
            .query = query, .d_o = row + 2 * d + 1, .rounded_o = !w->gradients->has_o_lo};
        ls_reference_backward_set(&batch->back[i], o, exact_lse, 0, d);
    }
}

static void judge_dq(struct ls_gradient_errors *errors, const struct batch *batch,
                     const struct cli_verify *w, int p)
{
    const int d = (int)w->shape.d;

    for (int i = 0; i < batch->n; i++) {
        const double *dq = batch->rows + i * row_length(w) + 3 * d + 1;
        const int64_t where[3] = {batch->b, batch->position[i], batch->head};
        struct ls_reference_sum *exact = &batch->all_dq[i];

        for (int r = 1; r < p; r++)
            ls_reference_sum_merge(exact, &batch->all_dq[r * batch->n + i], d);
        ls_gradient_errors_add_row(errors, w->contract, dq, exact, d, where);
    }
}

/* ---- all of it */

struct checker {
    const struct cli_world *world;
    const struct cli_verify *what;
    struct cli_verdict *out;
    struct batch batch;
    struct share *shares; /* [threads] */
    pthread_t *threads;
    double *leaves;    /* [threads, 2, 256, d] */
    int64_t *position; /* [most_rows] */
};

static void add_all_keys(struct checker *c, bool back)
{
    for (int i = 0; i < c->what->threads; i++) c->shares[i].back = back;
    cli_rows_share(add_keys, c->shares, sizeof(*c->shares), c->what->threads, c->threads);
}

static ls_status check_dq(struct ls_gradient_errors *errors, struct checker *c)
{
    struct batch *batch = &c->batch;

    for (int i = 0; i < batch->n; i++) ls_reference_sum_init(&batch->partial_dq[i]);
    add_all_keys(c, true);
    LS_TRY(ls_comm_gather(batch->all_dq, c->world->comm, batch->partial_dq,
                          (size_t)batch->n * sizeof(*batch->partial_dq)));
    judge_dq(errors, batch, c->what, c->world->size);
    return LS_OK;
}

static ls_status check_batch(struct cli_verdict *out, struct checker *c)
{
    struct batch *batch = &c->batch;
    struct ls_comm *comm = c->world->comm;

    load_rows(batch, c->what, c->world->rank);
    LS_TRY(ls_comm_reduce(batch->rows, comm, (int)(batch->n * row_length(c->what)), LS_REDUCE_SUM));
    for (int i = 0; i < batch->n; i++) ls_reference_row_init(&batch->partial[i]);
    add_all_keys(c, false);
    LS_TRY(ls_comm_gather(batch->all, comm, batch->partial,
                          (size_t)batch->n * sizeof(*batch->partial)));
    judge_rows(&out->errors, batch, c->what, c->world->size);
    if (!c->what->gradients || !c->what->gradients->has[CLI_DQ]) return LS_OK;
    return check_dq(&out->gradient_errors[CLI_DQ], c);
}

static ls_status check_rows(void *context, int64_t i, const int64_t *position, int n)
{
    struct checker *c = context;

    c->batch.b = i / c->what->shape.h;
    c->batch.head = i % c->what->shape.h;
    c->batch.n = n;
    c->batch.position = position;
    return check_batch(c->out, c);
}

static ls_status checker_init(struct checker *c)
{
    const struct cli_verify *w = c->what;
    const size_t threads = (size_t)w->threads, leaf = (size_t)(LS_LEAF * w->shape.d);
    struct batch *batch = &c->batch;

    LS_TRY(cli_rows_room(&batch->rows,
                         (size_t)(CLI_BATCH_ROWS * row_length(w)) * sizeof(*batch->rows)));
    LS_TRY(cli_rows_room(&batch->partial, (size_t)CLI_BATCH_ROWS * sizeof(*batch->partial)));
    LS_TRY(cli_rows_room(&batch->all,
                         (size_t)CLI_BATCH_ROWS * (size_t)c->world->size * sizeof(*batch->all)));
    if (w->gradients) {
        LS_TRY(cli_rows_room(&batch->back, (size_t)CLI_BATCH_ROWS * sizeof(*batch->back)));
        LS_TRY(
            cli_rows_room(&batch->partial_dq, (size_t)CLI_BATCH_ROWS * sizeof(*batch->partial_dq)));
        LS_TRY(cli_rows_room(&batch->all_dq, (size_t)CLI_BATCH_ROWS * (size_t)c->world->size *
                                                 sizeof(*batch->all_dq)));
    }
    LS_TRY(cli_rows_room(&c->shares, threads * sizeof(*c->shares)));
    LS_TRY(cli_rows_room(&c->threads, threads * sizeof(*c->threads)));
    LS_TRY(cli_rows_room(&c->leaves, threads * 2 * leaf * sizeof(*c->leaves)));
    LS_TRY(cli_rows_room(&c->position,
                         (size_t)cli_rows_most(&w->q_layout, w->rows) * sizeof(*c->position)));
    for (int i = 0; i < w->threads; i++) {
        double *k = c->leaves + (size_t)i * 2 * leaf;

        c->shares[i] = (struct share){.what = w,
                                      .batch = batch,
                                      .world = c->world,
                                      .first = i,
                                      .step = w->threads,
                                      .k = k,
                                      .v = k + leaf};
    }
    return LS_OK;
}

static void checker_fini(struct checker *c)
{
    ls_free(c->position);
    ls_free(c->leaves);
    ls_free(c->threads);
    ls_free(c->shares);
    ls_free(c->batch.all_dq);
    ls_free(c->batch.partial_dq);
    ls_free(c->batch.back);
    ls_free(c->batch.all);
    ls_free(c->batch.partial);
    ls_free(c->batch.rows);
}

static void judge(struct cli_verdict *out, const struct cli_verify *what)
{
    ls_errors_judge(&out->verdict, &out->errors, what->contract, 1);
    out->ok = out->verdict.ok;
    for (int i = 0; i < CLI_GRADIENTS; i++) {
        if (!out->has_gradient[i]) continue;
        ls_gradient_errors_judge(&out->gradients[i], &out->gradient_errors[i], what->contract, 1);
        out->ok = out->ok && out->gradients[i].ok;
    }
}

ls_status cli_verify(struct cli_verdict *out, const struct cli_world *world,
                     const struct cli_verify *what, struct cli_progress *progress)
{
    struct checker c = {.world = world, .what = what, .out = out};
    ls_status status;

    *out = (struct cli_verdict){.contract = what->contract, .has_lse = what->lse != NULL};
    ls_errors_init(&out->errors);
    for (int i = 0; i < CLI_GRADIENTS; i++) {
        ls_gradient_errors_init(&out->gradient_errors[i]);
        out->has_gradient[i] = what->gradients && what->gradients->has[i];
    }
    cli_progress_begin(progress, "verifying");
    LS_TRY_GOTO(status, ls_comm_agree(world->comm, checker_init(&c)), fini);
    LS_TRY_GOTO(status,
                cli_rows_each(c.position, &what->q_layout, what->rows,
                              what->shape.b * what->shape.h, progress, check_rows, &c),
                fini);
fini:
    cli_progress_end(progress);
    checker_fini(&c);
    if (status == LS_OK && what->gradients)
        status = cli_verify_keys(out->gradient_errors, world, what, progress);
    if (status == LS_OK) judge(out, what);
    return status;
}
