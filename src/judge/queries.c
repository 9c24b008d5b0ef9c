#include "base/ledger.h"
#include "base/tell.h"
#include "judge/batch.h"

#define BIT(tensor) LS_JUDGE_BIT(LS_JUDGE_##tensor)

/* What this rank's keys give to a batch of queries; and what is exact, [p, n], of all ranks. */
struct queries {
    struct ls_judge_batch batch;
    struct ls_reference_row *partial, *all;
    struct ls_reference_backward *back; /* with dq, as what follows */
    struct ls_reference_sum *partial_dq, *all_dq;
};

static int dim_of(const struct ls_columns *columns, int tensor)
{
    return (int)columns->judge->tensor[tensor].dim[3];
}

static struct ls_reference_query query_at(const struct ls_judge_batch *batch, int64_t i)
{
    return ls_judge_query(&batch->rows, i, batch->b, batch->head, batch->position[i]);
}

static void add_keys(const struct ls_share *s)
{
    const struct queries *q = s->batch->context;
    const double *k = ls_column(&s->leaf, LS_JUDGE_K, 0), *v = ls_column(&s->leaf, LS_JUDGE_V, 0);

    for (int64_t i = s->first; i < s->batch->rows.n; i += s->step) {
        const struct ls_reference_query query = query_at(s->batch, i);

        ls_reference_row_add(&q->partial[i], &query, k, v, s->position, s->leaf.n,
                             dim_of(&s->leaf, LS_JUDGE_K), dim_of(&s->leaf, LS_JUDGE_V));
    }
}

static void add_keys_to_dq(const struct ls_share *s)
{
    const struct queries *q = s->batch->context;
    const double *k = ls_column(&s->leaf, LS_JUDGE_K, 0), *v = ls_column(&s->leaf, LS_JUDGE_V, 0);

    for (int64_t i = s->first; i < s->batch->rows.n; i += s->step)
        ls_reference_add_dq(&q->partial_dq[i], &q->back[i], k, v, s->position, s->leaf.n,
                            dim_of(&s->leaf, LS_JUDGE_K), dim_of(&s->leaf, LS_JUDGE_V));
}

/* A row of o and lse; what is exact of it is kept for dq. */
static void judge_row(struct queries *q, int64_t i)
{
    const struct ls_judge_batch *batch = &q->batch;
    const struct ls_columns *rows = &batch->rows;
    struct ls_judge *judge = batch->judge;
    const int d = dim_of(rows, LS_JUDGE_Q), d_v = dim_of(rows, LS_JUDGE_O);
    const struct ls_reference_query query = query_at(batch, i);
    struct ls_reference_row *exact = &q->all[i];
    double o[LS_MAX_HEAD_DIM], lse;

    for (int r = 1; r < judge->p; r++) ls_reference_row_merge(exact, &q->all[r * rows->n + i], d_v);
    ls_reference_row_add_sink(exact, &query, d_v);
    ls_reference_row_finish(o, &lse, exact, d_v);
    ls_errors_add_row(&judge->errors, judge->contract, ls_column(rows, LS_JUDGE_O, i),
                      judge->has[LS_JUDGE_LSE] ? *ls_column(rows, LS_JUDGE_LSE, i) : lse, exact, d,
                      d_v, (const int64_t[]){batch->b, batch->position[i], batch->head});
    if (q->back) q->back[i] = ls_judge_backward(rows, i, &query, o, lse);
}

static ls_status judge_batch(void *context)
{
    struct queries *q = context;
    const int64_t n = q->batch.rows.n;

    for (int64_t i = 0; i < n; i++) ls_reference_row_init(&q->partial[i]);
    ls_judge_batch_meet(&q->batch, add_keys);
    LS_TRY(
        ls_comm_gather(q->all, q->batch.judge->comm, q->partial, (size_t)n * sizeof(*q->partial)));
    for (int64_t i = 0; i < n; i++) judge_row(q, i);
    if (!q->back) return LS_OK;
    for (int64_t i = 0; i < n; i++) ls_reference_sum_init(&q->partial_dq[i]);
    ls_judge_batch_meet(&q->batch, add_keys_to_dq);
    return ls_judge_batch_judge_gradient(&q->batch, LS_JUDGE_DQ, q->partial_dq, q->all_dq);
}

static ls_status queries_init(struct queries *q, struct ls_judge *judge)
{
    const unsigned back = judge->has[LS_JUDGE_DQ] ? BIT(D_O) | BIT(DLSE) | BIT(DQ) : 0;
    const size_t n = LS_JUDGE_BATCH, all = (size_t)judge->p * n;

    LS_TRY(ls_judge_batch_init(&q->batch, judge, false, BIT(Q) | BIT(O) | BIT(LSE) | back,
                               BIT(K) | BIT(V), q));
    LS_TRY(ls_judge_room(&q->partial, n * sizeof(*q->partial)));
    LS_TRY(ls_judge_room(&q->all, all * sizeof(*q->all)));
    if (!back) return LS_OK;
    LS_TRY(ls_judge_room(&q->back, n * sizeof(*q->back)));
    LS_TRY(ls_judge_room(&q->partial_dq, n * sizeof(*q->partial_dq)));
    return ls_judge_room(&q->all_dq, all * sizeof(*q->all_dq));
}

ls_status ls_judge_queries(struct ls_judge *judge)
{
    struct queries q = {.batch = {.judge = judge}};
    ls_status status = ls_comm_agree(judge->comm, queries_init(&q, judge));

    if (status == LS_OK) status = ls_judge_batch_each(&q.batch, "verifying", judge_batch);
    ls_tell_end(judge->progress);
    ls_free(q.all_dq);
    ls_free(q.partial_dq);
    ls_free(q.back);
    ls_free(q.all);
    ls_free(q.partial);
    ls_judge_batch_fini(&q.batch);
    return status;
}
