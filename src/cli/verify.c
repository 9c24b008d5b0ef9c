#include "cli/verify.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ledger.h"
#include "base/random.h"
#include "cli/format.h"
#include "comm/comm.h"
#include "tensor/dtype.h"

#define BATCH_ROWS 64
#define SAMPLE_SEED 20240613
#define SAMPLE_STREAM 3 /* q, k and v are 0 to 2 */

/* Query rows of one head that are judged together. */
struct batch {
    int64_t b, head;
    int n;
    int64_t position[BATCH_ROWS];
    double *rows;                     /* [n, 2 d + 1]: q, o, lse of each */
    struct ls_reference_row *partial; /* [n]: of this rank's keys */
    struct ls_reference_row *all;     /* [p, n] */
};

/* One thread's share of a batch: rows first, first + step, ... */
struct share {
    const struct cli_verify *what;
    struct batch *batch;
    int rank, first, step;
    double *k, *v; /* one leaf, [256, d] */
};

static int64_t row_length(const struct cli_verify *w)
{
    return 2 * w->shape.d + 1;
}

static const char *row_of(const struct ls_tensor *t, int64_t b, int64_t row, int64_t head)
{
    return (const char *)t->data +
           (b * t->stride[0] + row * t->stride[1] + head * t->stride[2]) * ls_dtype_size(t->type);
}

/* Local row of a position, -1 if another rank holds it. A part's leaves are in rising order. */
static int64_t find_local(const struct ls_layout *layout, int rank, int64_t position)
{
    const int64_t leaf = position / LS_LEAF;
    int64_t low = 0, high = ls_layout_part_leaves(layout, rank);

    while (low < high) {
        const int64_t middle = low + (high - low) / 2,
                      at = ls_layout_part_leaf(layout, rank, middle);

        if (at == leaf) return middle * LS_LEAF + position % LS_LEAF;
        if (at < leaf)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

/* ---- the oracle's partial rows */

static void load_leaf(double *out, const struct ls_tensor *t, int64_t b, int64_t first, int64_t n,
                      int64_t head)
{
    const int64_t d = t->dim[3];

    for (int64_t i = 0; i < n; i++)
        ls_dtype_convert(out + i * d, LS_F64, row_of(t, b, first + i, head), t->type, d);
}

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

static void *add_keys(void *argument)
{
    struct share *s = argument;
    const struct cli_verify *w = s->what;
    const struct ls_attention_shape *n = &w->shape;
    struct batch *batch = s->batch;
    const int64_t kv_head = batch->head / (n->h / n->h_kv);
    const int64_t leaves = ls_layout_part_leaves(&w->k_layout, s->rank);
    const int64_t first = batch->position[0], last = batch->position[batch->n - 1];
    const struct ls_visible seen = ls_mask_rows(&w->mask, first, last - first + 1);

    for (int64_t j = 0; j < leaves; j++) {
        const int64_t leaf = ls_layout_part_leaf(&w->k_layout, s->rank, j);
        const int64_t keys = ls_layout_leaf_rows(&w->k_layout, leaf);

        if (ls_visible_count(seen, leaf * LS_LEAF, keys) == 0) continue;
        load_leaf(s->k, &w->k, batch->b, j * LS_LEAF, keys, kv_head);
        load_leaf(s->v, &w->v, batch->b, j * LS_LEAF, keys, kv_head);
        for (int i = s->first; i < batch->n; i += s->step) {
            const struct ls_reference_query query = query_at(batch, w, i);

            ls_reference_row_add(&batch->partial[i], &query, s->k, s->v, leaf * LS_LEAF, keys,
                                 (int)n->d);
        }
    }
    return NULL;
}

/* The first share is this thread's own; a thread that cannot be started is stood in for. */
static void add_keys_all(struct share *shares, int count, pthread_t *threads)
{
    int started = 1;

    while (started < count &&
           pthread_create(&threads[started], NULL, add_keys, &shares[started]) == 0)
        started++;
    add_keys(&shares[0]);
    for (int i = started; i < count; i++) add_keys(&shares[i]);
    for (int i = 1; i < started; i++) pthread_join(threads[i], NULL);
}

/* ---- a batch, from its positions to its errors */

/* Fills in the rows that this rank holds and zeroes the others, so that a sum over ranks gives
 * every rank all of them. */
static void load_rows(struct batch *batch, const struct cli_verify *w, int rank)
{
    const int64_t d = w->shape.d, local_rows = ls_layout_part_rows(&w->q_layout, rank);

    memset(batch->rows, 0, (size_t)(batch->n * row_length(w)) * sizeof(double));
    for (int i = 0; i < batch->n; i++) {
        const int64_t local = find_local(&w->q_layout, rank, batch->position[i]);
        double *row = batch->rows + i * row_length(w);

        if (local < 0) continue;
        ls_dtype_convert(row, LS_F64, row_of(&w->q, batch->b, local, batch->head), w->q.type, d);
        ls_dtype_convert(row + d, LS_F64, row_of(&w->o, batch->b, local, batch->head), w->o.type,
                         d);
        if (w->lse) row[2 * d] = w->lse[(batch->b * w->shape.h + batch->head) * local_rows + local];
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
    }
}

/* ---- which rows */

/* First and last rows of every part are always taken; they begin and end leaves. */
static bool is_edge(const struct ls_layout *layout, int64_t position)
{
    const int64_t in_leaf = position % LS_LEAF;

    if (in_leaf != 0 && in_leaf != LS_LEAF - 1 && position != layout->s - 1) return false;
    for (int r = 0; r < layout->p; r++) {
        const int64_t rows = ls_layout_part_rows(layout, r);

        if (rows > 0 && (position == ls_layout_position(layout, r, 0) ||
                         position == ls_layout_position(layout, r, rows - 1)))
            return true;
    }
    return false;
}

/* Takes exactly `rows` positions in rising order, each set of them equally likely but for the
 * edges. Source: Knuth, TAOCP 2, 3.4.2, algorithm S. Returns how many there are. */
static int64_t sample(int64_t *out, const struct ls_layout *layout, int64_t rows, int64_t head)
{
    int64_t edges = 0, taken = 0;

    for (int64_t i = 0; i < layout->s; i++) edges += is_edge(layout, i);
    int64_t left = layout->s - edges, wanted = rows > edges ? rows - edges : 0;

    for (int64_t i = 0; i < layout->s; i++) {
        bool take = is_edge(layout, i);

        if (!take) {
            const uint64_t index = (uint64_t)(head * layout->s + i);

            take = (int64_t)ls_random_below(SAMPLE_SEED, SAMPLE_STREAM, index, (uint64_t)left) <
                   wanted;
            wanted -= take;
            left--;
        }
        if (take) out[taken++] = i;
    }
    return taken;
}

static int64_t choose_rows(int64_t *out, const struct cli_verify *w, int64_t head)
{
    if (w->rows > 0 && w->rows < w->shape.s_q) return sample(out, &w->q_layout, w->rows, head);
    for (int64_t i = 0; i < w->shape.s_q; i++) out[i] = i;
    return w->shape.s_q;
}

/* The most that choose_rows can give. */
static int64_t most_rows(const struct cli_verify *w)
{
    const int64_t sampled = w->rows + 2 * w->q_layout.p;

    return w->rows > 0 && sampled < w->shape.s_q ? sampled : w->shape.s_q;
}

/* ---- all of it */

struct checker {
    const struct cli_world *world;
    const struct cli_verify *what;
    struct batch batch;
    struct share *shares; /* [threads] */
    pthread_t *threads;
    double *leaves;    /* [threads, 2, 256, d] */
    int64_t *position; /* [most_rows] */
};

static ls_status check_batch(struct ls_errors *errors, struct checker *c)
{
    struct batch *batch = &c->batch;
    struct ls_comm *comm = c->world->comm;

    load_rows(batch, c->what, c->world->rank);
    LS_TRY(ls_comm_reduce(batch->rows, comm, (int)(batch->n * row_length(c->what)), LS_REDUCE_SUM));
    for (int i = 0; i < batch->n; i++) ls_reference_row_init(&batch->partial[i]);
    add_keys_all(c->shares, c->what->threads, c->threads);
    LS_TRY(ls_comm_gather(batch->all, comm, batch->partial,
                          (size_t)batch->n * sizeof(*batch->partial)));
    judge_rows(errors, batch, c->what, c->world->size);
    return LS_OK;
}

/* The i-th of b h heads. */
static ls_status check_head(struct ls_errors *errors, struct checker *c, int64_t i,
                            struct cli_progress *progress)
{
    const struct ls_attention_shape *n = &c->what->shape;
    const int64_t rows = choose_rows(c->position, c->what, i);

    c->batch.b = i / n->h;
    c->batch.head = i % n->h;
    for (int64_t first = 0; first < rows; first += BATCH_ROWS) {
        cli_progress_set(progress, i * rows + first, n->b * n->h * rows);
        c->batch.n = (int)(rows - first < BATCH_ROWS ? rows - first : BATCH_ROWS);
        memcpy(c->batch.position, c->position + first,
               (size_t)c->batch.n * sizeof(*c->batch.position));
        LS_TRY(check_batch(errors, c));
    }
    return LS_OK;
}

/* Points *slot, a pointer to any type, to fresh memory. */
static ls_status room(void *slot, size_t bytes)
{
    void *memory;

    LS_TRY(ls_alloc(&memory, LS_TAG_WORKSPACE, bytes));
    memcpy(slot, &memory, sizeof(memory));
    return LS_OK;
}

static ls_status checker_init(struct checker *c)
{
    const struct cli_verify *w = c->what;
    const size_t threads = (size_t)w->threads, leaf = (size_t)(LS_LEAF * w->shape.d);
    struct batch *batch = &c->batch;

    LS_TRY(room(&batch->rows, (size_t)(BATCH_ROWS * row_length(w)) * sizeof(*batch->rows)));
    LS_TRY(room(&batch->partial, (size_t)BATCH_ROWS * sizeof(*batch->partial)));
    LS_TRY(room(&batch->all, (size_t)BATCH_ROWS * (size_t)c->world->size * sizeof(*batch->all)));
    LS_TRY(room(&c->shares, threads * sizeof(*c->shares)));
    LS_TRY(room(&c->threads, threads * sizeof(*c->threads)));
    LS_TRY(room(&c->leaves, threads * 2 * leaf * sizeof(*c->leaves)));
    LS_TRY(room(&c->position, (size_t)most_rows(w) * sizeof(*c->position)));
    for (int i = 0; i < w->threads; i++) {
        double *k = c->leaves + (size_t)i * 2 * leaf;

        c->shares[i] = (struct share){.what = w,
                                      .batch = batch,
                                      .rank = c->world->rank,
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
    ls_free(c->batch.all);
    ls_free(c->batch.partial);
    ls_free(c->batch.rows);
}

static ls_status check_all(struct ls_errors *errors, struct checker *c,
                           struct cli_progress *progress)
{
    const struct ls_attention_shape *n = &c->what->shape;

    for (int64_t i = 0; i < n->b * n->h; i++) LS_TRY(check_head(errors, c, i, progress));
    return LS_OK;
}

ls_status cli_verify(struct cli_verdict *out, const struct cli_world *world,
                     const struct cli_verify *what, struct cli_progress *progress)
{
    struct checker c = {.world = world, .what = what};
    ls_status status;

    *out = (struct cli_verdict){.contract = what->contract, .has_lse = what->lse != NULL};
    ls_errors_init(&out->errors);
    cli_progress_begin(progress, "verifying");
    LS_TRY_GOTO(status, ls_comm_agree(world->comm, checker_init(&c)), fini);
    LS_TRY_GOTO(status, check_all(&out->errors, &c, progress), fini);
    ls_errors_judge(&out->verdict, &out->errors, what->contract, 1);
fini:
    cli_progress_end(progress);
    checker_fini(&c);
    return status;
}

/* ---- telling it */

static json_t *verdict_json(const struct cli_verdict *c)
{
    const struct ls_verdict *v = &c->verdict;
    json_t *json = json_object();

    json_object_set_new(json, "ok", json_boolean(v->ok));
    json_object_set_new(json, "contract", json_string(ls_dtype_name(c->contract)));
    json_object_set_new(json, "rows", json_integer(c->errors.rows));
    json_object_set_new(json, "rel_o", cli_json_real(v->rel_o));
    json_object_set_new(json, "rel_o_limit", cli_json_real(v->rel_o_limit));
    json_object_set_new(json, "max_units", cli_json_real(v->max_units));
    json_object_set_new(json, "abs_lse", c->has_lse ? cli_json_real(v->abs_lse) : json_null());
    json_object_set_new(json, "rel_lse", c->has_lse ? cli_json_real(v->max_lse) : json_null());
    json_object_set_new(json, "lse_limit", cli_json_real(v->lse_limit));
    json_object_set_new(json, "kappa", cli_json_real(c->errors.kappa));
    return json;
}

void cli_verify_report(const struct cli_report *report, const struct cli_verdict *v)
{
    const struct ls_verdict *x = &v->verdict;
    const int64_t *worst = v->errors.worst;
    char where[128] = "no element errs";

    if (worst[0] >= 0)
        snprintf(where, sizeof(where),
                 "worst at batch %" PRId64 ", position %" PRId64 ", head %" PRId64
                 ", element %" PRId64,
                 worst[0], worst[1], worst[2], worst[3]);
    cli_report_value(report, "verify", verdict_json(v));
    cli_report_line(report, "errors", "o    rel    %-9.3g limit %.3g (contract of %s)", x->rel_o,
                    x->rel_o_limit, ls_dtype_name(v->contract));
    cli_report_line(report, "", "o    units  %-9.3g limit 1, %s", x->max_units, where);
    if (v->has_lse)
        cli_report_line(report, "", "lse  rel    %-9.3g limit %.3g, relative to max(1, |lse|)",
                        x->max_lse, x->lse_limit);
    if (v->has_lse) cli_report_line(report, "", "lse  abs    %.3g", x->abs_lse);
    cli_report_say(report, "verified: %s, %s against the double-precision oracle%s",
                   x->ok ? "ok" : "FAILED", cli_counted(v->errors.rows, "row", "rows").s,
                   v->has_lse ? "" : " (no lse to judge)");
}
