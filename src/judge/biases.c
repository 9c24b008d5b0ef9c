/* The gradient of a bias of a pair is a sum over the entries and heads that share it: some keys,
 * which all ranks know, meet all queries of each rank, which has their rows of it. */
#include "base/ledger.h"
#include "base/tell.h"
#include "judge/batch.h"
#include "tensor/dtype.h"

#define BIT(tensor) LS_JUDGE_BIT(LS_JUDGE_##tensor)

/* Of a batch of keys and the heads that dbias tells apart of those that share them, or one:
 * [heads][keys of a batch][sums], each sum of some of this rank's queries. */
struct biases {
    struct ls_judge_batch batch;
    bool entries, heads;  /* have biases of their own */
    int64_t q_rows, sums; /* of this rank; of a key */
    struct ls_reference_sum *own;
    struct ls_gradient_errors errors, *all; /* of this rank; [p] */
};

static const struct ls_attention_shape *shape_of(const struct biases *d)
{
    return &d->batch.judge->problem.shape;
}

/* Heads that the sums of a batch are of. */
static int64_t slots(const struct biases *d)
{
    return d->heads ? shape_of(d)->h / shape_of(d)->h_kv : 1;
}

static struct ls_reference_sum *sums_of(const struct biases *d, int64_t slot, int64_t key)
{
    return d->own + (slot * LS_JUDGE_BATCH + key) * d->sums;
}

/* The i-th query of the leaf, with this thread's keys of the batch. */
static void add_query(const struct ls_share *s, int64_t i)
{
    const struct biases *d = s->batch->context;
    const struct ls_columns *rows = &s->batch->rows;
    const struct ls_judge *judge = s->batch->judge;
    const int64_t row = ls_judge_find_row(&judge->q_layout, judge->rank, s->position) + i;
    const struct ls_reference_backward back =
        ls_judge_own_backward(&s->leaf, i, s->batch->b, s->head, s->position + i);

    for (int64_t j = s->first; j < rows->n; j += s->step)
        ls_reference_add_dbias(sums_of(d, s->head % slots(d), j), row, &back,
                               ls_column(rows, LS_JUDGE_K, j), ls_column(rows, LS_JUDGE_V, j),
                               s->batch->position[j], (int)judge->tensor[LS_JUDGE_K].dim[3],
                               (int)judge->tensor[LS_JUDGE_V].dim[3]);
}

static void add_queries(const struct ls_share *s)
{
    if (s->first >= s->batch->rows.n) return;
    ls_columns_add_residual(&s->leaf);
    for (int64_t i = 0; i < s->leaf.n; i++) add_query(s, i);
}

/* *out: number n of sums, which is a row of its own: one that nobody adds to has to be 0. */
static void take_element(struct ls_reference_sum *out, const struct ls_reference_sum *sums,
                         int64_t n)
{
    const struct ls_reference_sum *sum = &sums[n / LS_REFERENCE_BIASES];
    const int64_t e = n % LS_REFERENCE_BIASES;

    out->value[0] = sum->value[e];
    out->majorant[0] = sum->majorant[e];
    out->strained[0] = sum->strained[e];
    out->factors[0] = sum->factors[e];
    out->flushed[0] = sum->flushed[e];
    out->spread[0] = sum->spread[e];
    out->base[0] = sum->base[e];
    out->pull[0] = out->pulled2 = 0;
    out->kappa = sum->kappa;
    out->terms = sum->flushed[e] > 0;
}

static void judge_element(struct biases *d, int64_t entry, int64_t head, int64_t row, int64_t key)
{
    const struct ls_judge *judge = d->batch.judge;
    const struct ls_tensor *t = &judge->tensor[LS_JUDGE_DBIAS];
    const int64_t position = d->batch.position[key],
                  at = entry * t->stride[0] + head * t->stride[1] + row * t->stride[2] + position;
    const double value =
                     ls_dtype_load(t->type, (const char *)t->data + at * ls_dtype_size(t->type)),
                 worst = d->errors.max_units;
    struct ls_reference_sum exact;

    take_element(&exact, sums_of(d, head % slots(d), key), row);
    ls_gradient_errors_add_row(
        &d->errors, judge->contract, &value, &exact, 1,
        (const int64_t[]){entry, ls_layout_position(&judge->q_layout, judge->rank, row), head});
    if (d->errors.max_units != worst) d->errors.worst[3] = position;
}

/* Some keys of an entry and a key/value head, or of all that share biases. */
static ls_status judge_keys(struct biases *d, int64_t entry, int64_t kv_head)
{
    const struct ls_attention_shape *s = shape_of(d);
    struct ls_judge_batch *batch = &d->batch;

    for (int64_t i = 0; i < slots(d) * LS_JUDGE_BATCH * d->sums; i++)
        ls_reference_sum_init(&d->own[i]);
    for (batch->b = entry; batch->b < (d->entries ? entry + 1 : s->b); batch->b++)
        for (batch->head = kv_head; batch->head < (d->heads ? kv_head + 1 : s->h_kv);
             batch->head++) {
            LS_TRY(ls_judge_batch_load(batch));
            ls_judge_batch_meet(batch, add_queries);
        }
    for (int64_t slot = 0; slot < slots(d); slot++)
        for (int64_t row = 0; row < d->q_rows; row++)
            for (int64_t key = 0; key < batch->rows.n; key++)
                judge_element(d, entry, kv_head * slots(d) + slot, row, key);
    return LS_OK;
}

static ls_status judge_all(struct biases *d)
{
    struct ls_judge *judge = d->batch.judge;
    struct ls_judge_batch *batch = &d->batch;
    const int64_t kv_heads = d->heads ? shape_of(d)->h_kv : 1;
    const int64_t matrices = (d->entries ? shape_of(d)->b : 1) * kv_heads;

    for (int64_t n = 0; n < matrices; n++) {
        const int64_t keys =
            ls_judge_choose_rows(batch->positions, &judge->k_layout, judge->rows, n);

        for (int64_t first = 0; first < keys; first += LS_JUDGE_BATCH) {
            ls_tell(judge->progress, "verifying dbias", n * keys + first, matrices * keys);
            batch->position = batch->positions + first;
            batch->rows.n = keys - first < LS_JUDGE_BATCH ? keys - first : LS_JUDGE_BATCH;
            LS_TRY(judge_keys(d, n / kv_heads, n % kv_heads));
        }
    }
    LS_TRY(ls_comm_gather(d->all, judge->comm, &d->errors, sizeof(d->errors)));
    for (int r = 0; r < judge->p; r++)
        ls_gradient_errors_merge(&judge->gradient_errors[LS_JUDGE_DBIAS - LS_JUDGE_DQ], &d->all[r]);
    return LS_OK;
}

static ls_status biases_init(struct biases *d, struct ls_judge *judge)
{
    d->q_rows = ls_layout_part_rows(&judge->q_layout, judge->rank);
    d->sums = ls_reference_bias_sums(d->q_rows);
    ls_gradient_errors_init(&d->errors);
    LS_TRY(ls_judge_batch_init(&d->batch, judge, true, BIT(K) | BIT(V),
                               BIT(Q) | BIT(D_O) | BIT(O) | BIT(O_LO) | BIT(LSE) | BIT(DLSE), d));
    LS_TRY(ls_judge_room(&d->own, (size_t)(slots(d) * LS_JUDGE_BATCH * d->sums) * sizeof(*d->own)));
    return ls_judge_room(&d->all, (size_t)judge->p * sizeof(*d->all));
}

ls_status ls_judge_biases(struct ls_judge *judge)
{
    const struct ls_scores *scores = &judge->problem.scores;
    struct biases d = {.batch = {.judge = judge},
                       .entries = scores->bias_entry > 0,
                       .heads = scores->bias_head > 0};
    ls_status status;

    if (!judge->has[LS_JUDGE_DBIAS]) return LS_OK;
    status = ls_comm_agree(judge->comm, biases_init(&d, judge));
    if (status == LS_OK) status = judge_all(&d);
    ls_tell_end(judge->progress);
    ls_free(d.all);
    ls_free(d.own);
    ls_judge_batch_fini(&d.batch);
    return status;
}
