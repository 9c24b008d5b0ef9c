/* The gradient of a bias by distance is a sum over all pairs that are so far apart, in all entries:
 * every pair is met, however few rows of others are judged. */
#include "base/ledger.h"
#include "base/tell.h"
#include "judge/batch.h"

#define BIT(tensor) LS_JUDGE_BIT(LS_JUDGE_##tensor)

/* What this rank's queries give to the biases of the heads that share the batch's keys,
 * [threads][group][sums]; room for [p] of one sum. */
struct distances {
    struct ls_judge_batch batch;
    int64_t sums, kv_head; /* whose sums these are */
    struct ls_reference_sum *own, *all;
};

static int64_t group(const struct distances *d)
{
    const struct ls_attention_shape *shape = &d->batch.judge->problem.shape;

    return shape->h / shape->h_kv;
}

static int64_t sums_of_a_thread(const struct distances *d)
{
    return group(d) * d->sums;
}

/* Threads that have keys of a batch. */
static int64_t threads(const struct ls_judge *judge)
{
    const int64_t n = judge->problem.device->facts.threads;

    return n < LS_JUDGE_BATCH ? n : LS_JUDGE_BATCH;
}

static void clear_sums(struct distances *d)
{
    for (int64_t i = 0; i < threads(d->batch.judge) * sums_of_a_thread(d); i++)
        ls_reference_sum_init(&d->own[i]);
}

/* The i-th query of the leaf, with this thread's keys of the batch. */
static void add_query(const struct ls_share *s, int64_t i)
{
    const struct distances *d = s->batch->context;
    const struct ls_columns *rows = &s->batch->rows;
    const struct ls_tensor *tensor = s->batch->judge->tensor;
    const struct ls_reference_backward back =
        ls_judge_own_backward(&s->leaf, i, s->batch->b, s->head, s->position + i);
    struct ls_reference_sum *sums =
        d->own + s->first * sums_of_a_thread(d) + s->head % group(d) * d->sums;

    for (int64_t j = s->first; j < rows->n; j += s->step)
        ls_reference_add_dbias(sums, ls_reference_distance(&back.query, s->batch->position[j]),
                               &back, ls_column(rows, LS_JUDGE_K, j),
                               ls_column(rows, LS_JUDGE_V, j), s->batch->position[j],
                               (int)tensor[LS_JUDGE_K].dim[3], (int)tensor[LS_JUDGE_V].dim[3]);
}

static void add_queries(const struct ls_share *s)
{
    if (s->first >= s->batch->rows.n) return;
    ls_columns_add_residual(&s->leaf);
    for (int64_t i = 0; i < s->leaf.n; i++) add_query(s, i);
}

/* Sum number i of a head, which is whole then. */
static ls_status judge_sum(struct distances *d, int64_t head, int64_t i)
{
    struct ls_judge *judge = d->batch.judge;
    const struct ls_tensor *t = &judge->tensor[LS_JUDGE_DDISTANCE_BIAS];
    const int64_t first = i * LS_REFERENCE_BIASES, left = t->dim[3] - first;
    const int n = left < LS_REFERENCE_BIASES ? (int)left : LS_REFERENCE_BIASES;
    struct ls_reference_sum *own = d->own + head % group(d) * d->sums + i;
    double value[LS_REFERENCE_BIASES];

    for (int64_t thread = 1; thread < threads(judge); thread++)
        ls_reference_sum_merge(own, own + thread * sums_of_a_thread(d), n);
    LS_TRY(ls_comm_gather(d->all, judge->comm, own, sizeof(*own)));
    for (int r = 1; r < judge->p; r++) ls_reference_sum_merge(&d->all[0], &d->all[r], n);
    const struct ls_tensor part = {.type = t->type,
                                   .ndim = 4,
                                   .dim = {1, 1, t->dim[2], n},
                                   .stride = {0, 0, t->stride[2], 1},
                                   .data = (float *)t->data + first};

    ls_judge_load_rows(value, &part, 0, 0, 1, head);
    ls_gradient_errors_add_row(&judge->gradient_errors[LS_JUDGE_DDISTANCE_BIAS - LS_JUDGE_DQ],
                               judge->contract, value, &d->all[0], n,
                               (const int64_t[]){-1, first, head});
    return LS_OK;
}

/* All entries have been met. */
static ls_status judge_group(struct distances *d)
{
    for (int64_t i = 0; i < sums_of_a_thread(d); i++)
        LS_TRY(judge_sum(d, d->kv_head * group(d) + i / d->sums, i % d->sums));
    clear_sums(d);
    d->kv_head++;
    return LS_OK;
}

static ls_status meet_batch(void *context)
{
    struct distances *d = context;

    while (d->kv_head < d->batch.head) LS_TRY(judge_group(d));
    ls_judge_batch_meet(&d->batch, add_queries);
    return LS_OK;
}

static ls_status judge_rest(struct distances *d)
{
    while (d->kv_head < d->batch.judge->problem.shape.h_kv) LS_TRY(judge_group(d));
    return LS_OK;
}

static ls_status distances_init(struct distances *d, struct ls_judge *judge)
{
    const int64_t all = threads(judge) * sums_of_a_thread(d);

    LS_TRY(ls_judge_batch_init(&d->batch, judge, true, BIT(K) | BIT(V),
                               BIT(Q) | BIT(D_O) | BIT(O) | BIT(O_LO) | BIT(LSE) | BIT(DLSE), d));
    LS_TRY(ls_judge_room(&d->own, (size_t)all * sizeof(*d->own)));
    clear_sums(d);
    return ls_judge_room(&d->all, (size_t)judge->p * sizeof(*d->all));
}

ls_status ls_judge_distances(struct ls_judge *judge)
{
    struct distances d = {.batch = {.judge = judge},
                          .sums = ls_reference_bias_sums(judge->problem.scores.distances)};
    const int64_t rows = judge->rows;
    ls_status status;

    if (!judge->has[LS_JUDGE_DDISTANCE_BIAS]) return LS_OK;
    judge->rows = 0; /* all */
    status = ls_comm_agree(judge->comm, distances_init(&d, judge));
    if (status == LS_OK)
        status = ls_judge_batch_each(&d.batch, "verifying ddistance_bias", meet_batch);
    if (status == LS_OK) status = judge_rest(&d);
    judge->rows = rows;
    ls_tell_end(judge->progress);
    ls_free(d.all);
    ls_free(d.own);
    ls_judge_batch_fini(&d.batch);
    return status;
}
