#include "cli/verify_keys.h"

#include <string.h>

#include "base/ledger.h"
#include "comm/comm.h"

/* Key rows of one k/v head that are judged together; a pair of arrays is of dk and of dv. */
struct batch {
    int64_t b, kv_head;
    int n;
    const int64_t *position;             /* [n] */
    double *rows;                        /* [n, 4 d]: k, v, dk, dv of each */
    struct ls_reference_sum *partial[2]; /* [n]: of this rank's queries */
    struct ls_reference_sum *all;        /* [p, n] */
};

/* One thread's share of a batch: rows first, first + step, ... */
struct share {
    const struct cli_verify *what;
    struct batch *batch;
    const struct cli_world *world;
    int first, step;
    double *q, *d_o, *o, *o_lo; /* one leaf, [256, d] */
};

/* ---- the queries of a rank */

static void load_leaf(const struct share *s, int64_t row, int64_t rows, int64_t head)
{
    const struct cli_verify *w = s->what;
    const struct cli_verify_gradients *g = w->gradients;
    const int64_t b = s->batch->b;

    cli_rows_load(s->q, &w->q, b, row, rows, head);
    cli_rows_load(s->d_o, &g->d_o, b, row, rows, head);
    cli_rows_load(s->o, &w->o, b, row, rows, head);
    if (!g->has_o_lo) return;
    cli_rows_load(s->o_lo, &g->o_lo, b, row, rows, head);
    for (int64_t i = 0; i < rows * w->shape.d; i++) s->o[i] += s->o_lo[i];
}

static void add_query(const struct share *s, const struct ls_reference_backward *row)
{
    const struct batch *batch = s->batch;
    const int64_t d = s->what->shape.d;

    for (int i = s->first; i < batch->n; i += s->step) {
        const double *k = batch->rows + i * 4 * d;

        ls_reference_add_dkv(&batch->partial[0][i], &batch->partial[1][i], row, k, k + d,
                             batch->position[i], (int)d);
    }
}

/* One leaf of queries of one head, whose first row is `row` of the part. */
static void add_leaf(const struct share *s, int64_t leaf, int64_t row, int64_t head)
{
    const struct cli_verify *w = s->what;
    const struct ls_attention_shape *n = &w->shape;
    const int64_t rows = ls_layout_leaf_rows(&w->q_layout, leaf);
    const float *lse =
        w->lse + (s->batch->b * n->h + head) * ls_layout_part_rows(&w->q_layout, s->world->rank) +
        row;

    load_leaf(s, row, rows, head);
    for (int64_t i = 0; i < rows; i++) {
        struct ls_reference_backward back = {.query = {.q = s->q + i * n->d,
                                                       .mask = &w->mask,
                                                       .scores = &w->scores,
                                                       .batch = s->batch->b,
                                                       .head = head,
                                                       .position = leaf * LS_LEAF + i},
                                             .d_o = s->d_o + i * n->d,
                                             .rounded_o = !w->gradients->has_o_lo};

        ls_reference_backward_set(&back, s->o + i * n->d, lse[i], 0, (int)n->d);
        add_query(s, &back);
    }
}

/* Whether one of a leaf's queries sees a key from the first to the last of the batch. */
static bool sees(const struct cli_verify *w, int64_t leaf, const struct batch *batch)
{
    const struct ls_visible seen =
        ls_mask_rows(&w->mask, leaf * LS_LEAF, ls_layout_leaf_rows(&w->q_layout, leaf));
    const int64_t first = batch->position[0], last = batch->position[batch->n - 1];

    return ls_visible_count(seen, first, last - first + 1) > 0;
}

static void *add_queries(void *argument)
{
    const struct share *s = argument;
    const struct cli_verify *w = s->what;
    const int64_t group = w->shape.h / w->shape.h_kv;
    const int64_t leaves = ls_layout_part_leaves(&w->q_layout, s->world->rank);

    for (int64_t i = 0; i < leaves; i++) {
        const int64_t leaf = ls_layout_part_leaf(&w->q_layout, s->world->rank, i);

        if (!sees(w, leaf, s->batch)) continue;
        if (s->first == 0) cli_world_beat(s->world);
        for (int64_t head = s->batch->kv_head * group; head < (s->batch->kv_head + 1) * group;
             head++)
            add_leaf(s, leaf, i * LS_LEAF, head);
    }
    return NULL;
}

/* ---- a batch, from its positions to its errors */

/* Rows of other ranks are zero, so that a sum over ranks gives every rank all of them. */
static void load_rows(struct batch *batch, const struct cli_verify *w, int rank)
{
    const struct cli_verify_gradients *g = w->gradients;
    const struct ls_tensor *const tensors[] = {&w->k, &w->v, &g->of[CLI_DK], &g->of[CLI_DV]};
    const bool wanted[] = {true, true, g->has[CLI_DK], g->has[CLI_DV]};
    const int64_t d = w->shape.d;

    memset(batch->rows, 0, (size_t)(batch->n * 4 * d) * sizeof(double));
    for (int i = 0; i < batch->n; i++) {
        const int64_t local = cli_rows_find(&w->k_layout, rank, batch->position[i]);

        for (int t = 0; t < 4 && local >= 0; t++)
            if (wanted[t])
                cli_rows_load(batch->rows + (4 * i + t) * d, tensors[t], batch->b, local, 1,
                              batch->kv_head);
    }
}

/* which: 0 dk, 1 dv */
static ls_status judge_rows(struct ls_gradient_errors *errors, struct batch *batch,
                            const struct cli_verify *w, const struct cli_world *world, int which)
{
    const int d = (int)w->shape.d;

    if (!w->gradients->has[CLI_DK + which]) return LS_OK;
    LS_TRY(ls_comm_gather(batch->all, world->comm, batch->partial[which],
                          (size_t)batch->n * sizeof(*batch->all)));
    for (int i = 0; i < batch->n; i++) {
        const int64_t where[3] = {batch->b, batch->position[i], batch->kv_head};

        for (int r = 1; r < world->size; r++)
            ls_reference_sum_merge(&batch->all[i], &batch->all[r * batch->n + i], d);
        ls_gradient_errors_add_row(&errors[CLI_DK + which], w->contract,
                                   batch->rows + (4 * i + 2 + which) * d, &batch->all[i], d, where);
    }
    return LS_OK;
}

/* ---- all of it */

struct checker {
    const struct cli_world *world;
    const struct cli_verify *what;
    struct ls_gradient_errors *errors;
    struct batch batch;
    struct share *shares; /* [threads] */
    pthread_t *threads;
    double *leaves;    /* [threads, 4, 256, d] */
    int64_t *position; /* as many as are judged of a head */
};

static ls_status check_batch(struct ls_gradient_errors *errors, struct checker *c)
{
    struct batch *batch = &c->batch;
    const struct cli_verify *w = c->what;

    load_rows(batch, w, c->world->rank);
    LS_TRY(ls_comm_reduce(batch->rows, c->world->comm, (int)(batch->n * 4 * w->shape.d),
                          LS_REDUCE_SUM));
    for (int i = 0; i < 2 * batch->n; i++) ls_reference_sum_init(&batch->partial[i % 2][i / 2]);
    cli_rows_share(add_queries, c->shares, sizeof(*c->shares), w->threads, c->threads);
    LS_TRY(judge_rows(errors, batch, w, c->world, 0));
    return judge_rows(errors, batch, w, c->world, 1);
}

static ls_status check_rows(void *context, int64_t i, const int64_t *position, int n)
{
    struct checker *c = context;

    c->batch.b = i / c->what->shape.h_kv;
    c->batch.kv_head = i % c->what->shape.h_kv;
    c->batch.n = n;
    c->batch.position = position;
    return check_batch(c->errors, c);
}

static ls_status checker_init(struct checker *c)
{
    const struct cli_verify *w = c->what;
    const size_t threads = (size_t)w->threads, leaf = (size_t)(LS_LEAF * w->shape.d);
    const size_t sums = (size_t)CLI_BATCH_ROWS * sizeof(struct ls_reference_sum);
    struct batch *batch = &c->batch;

    LS_TRY(cli_rows_room(&batch->rows,
                         (size_t)(CLI_BATCH_ROWS * 4 * w->shape.d) * sizeof(*batch->rows)));
    for (int i = 0; i < 2; i++) LS_TRY(cli_rows_room(&batch->partial[i], sums));
    LS_TRY(cli_rows_room(&batch->all, (size_t)c->world->size * sums));
    LS_TRY(cli_rows_room(&c->shares, threads * sizeof(*c->shares)));
    LS_TRY(cli_rows_room(&c->threads, threads * sizeof(*c->threads)));
    LS_TRY(cli_rows_room(&c->leaves, threads * 4 * leaf * sizeof(*c->leaves)));
    LS_TRY(cli_rows_room(&c->position,
                         (size_t)cli_rows_most(&w->k_layout, w->rows) * sizeof(*c->position)));
    for (int i = 0; i < w->threads; i++) {
        double *q = c->leaves + (size_t)i * 4 * leaf;

        c->shares[i] = (struct share){.what = w,
                                      .batch = batch,
                                      .world = c->world,
                                      .first = i,
                                      .step = w->threads,
                                      .q = q,
                                      .d_o = q + leaf,
                                      .o = q + 2 * leaf,
                                      .o_lo = q + 3 * leaf};
    }
    return LS_OK;
}

static void checker_fini(struct checker *c)
{
    ls_free(c->position);
    ls_free(c->leaves);
    ls_free(c->threads);
    ls_free(c->shares);
    ls_free(c->batch.all);
    for (int i = 0; i < 2; i++) ls_free(c->batch.partial[i]);
    ls_free(c->batch.rows);
}

ls_status cli_verify_keys(struct ls_gradient_errors *errors, const struct cli_world *world,
                          const struct cli_verify *what, struct cli_progress *progress)
{
    struct checker c = {.world = world, .what = what, .errors = errors};
    const struct ls_attention_shape *n = &what->shape;
    ls_status status;

    if (!what->gradients->has[CLI_DK] && !what->gradients->has[CLI_DV]) return LS_OK;
    cli_progress_begin(progress, "verifying dk, dv");
    LS_TRY_GOTO(status, ls_comm_agree(world->comm, checker_init(&c)), fini);
    LS_TRY_GOTO(status,
                cli_rows_each(c.position, &what->k_layout, what->rows, n->b * n->h_kv, progress,
                              check_rows, &c),
                fini);
fini:
    cli_progress_end(progress);
    checker_fini(&c);
    return status;
}
