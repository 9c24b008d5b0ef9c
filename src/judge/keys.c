#include "base/ledger.h"
#include "base/tell.h"
#include "judge/batch.h"

#define BIT(tensor) LS_JUDGE_BIT(LS_JUDGE_##tensor)

/* What this rank's queries give to a batch of keys, [n] each; and room for [p, n] of all ranks. */
struct keys {
    struct ls_judge_batch batch;
    struct ls_reference_sum *dk, *dv, *all;
};

/* The i-th query of the leaf. */
static void add_query(const struct ls_share *s, int64_t i)
{
    const struct keys *keys = s->batch->context;
    const struct ls_columns *rows = &s->batch->rows;
    const struct ls_tensor *tensor = s->batch->judge->tensor;
    const struct ls_reference_backward back =
        ls_judge_own_backward(&s->leaf, i, s->batch->b, s->head, s->position + i);

    for (int64_t j = s->first; j < rows->n; j += s->step)
        ls_reference_add_dkv(&keys->dk[j], &keys->dv[j], &back, ls_column(rows, LS_JUDGE_K, j),
                             ls_column(rows, LS_JUDGE_V, j), s->batch->position[j],
                             (int)tensor[LS_JUDGE_K].dim[3], (int)tensor[LS_JUDGE_V].dim[3]);
}

static void add_queries(const struct ls_share *s)
{
    ls_columns_add_residual(&s->leaf);
    for (int64_t i = 0; i < s->leaf.n; i++) add_query(s, i);
}

static ls_status judge_batch(void *context)
{
    struct keys *keys = context;
    struct ls_judge_batch *batch = &keys->batch;

    for (int64_t i = 0; i < batch->rows.n; i++) {
        ls_reference_sum_init(&keys->dk[i]);
        ls_reference_sum_init(&keys->dv[i]);
    }
    ls_judge_batch_meet(batch, add_queries);
    if (batch->judge->has[LS_JUDGE_DK])
        LS_TRY(ls_judge_batch_judge_gradient(batch, LS_JUDGE_DK, keys->dk, keys->all));
    if (batch->judge->has[LS_JUDGE_DV])
        LS_TRY(ls_judge_batch_judge_gradient(batch, LS_JUDGE_DV, keys->dv, keys->all));
    return LS_OK;
}

static ls_status keys_init(struct keys *keys, struct ls_judge *judge)
{
    const size_t bytes = (size_t)LS_JUDGE_BATCH * sizeof(*keys->all);

    LS_TRY(ls_judge_batch_init(&keys->batch, judge, true, BIT(K) | BIT(V) | BIT(DK) | BIT(DV),
                               BIT(Q) | BIT(D_O) | BIT(O) | BIT(O_LO) | BIT(LSE) | BIT(DLSE),
                               keys));
    LS_TRY(ls_judge_room(&keys->dk, bytes));
    LS_TRY(ls_judge_room(&keys->dv, bytes));
    return ls_judge_room(&keys->all, (size_t)judge->p * bytes);
}

ls_status ls_judge_keys(struct ls_judge *judge)
{
    struct keys keys = {.batch = {.judge = judge}};
    ls_status status;

    if (!judge->has[LS_JUDGE_DK] && !judge->has[LS_JUDGE_DV]) return LS_OK;
    status = ls_comm_agree(judge->comm, keys_init(&keys, judge));
    if (status == LS_OK) status = ls_judge_batch_each(&keys.batch, "verifying dk, dv", judge_batch);
    ls_tell_end(judge->progress);
    ls_free(keys.all);
    ls_free(keys.dv);
    ls_free(keys.dk);
    ls_judge_batch_fini(&keys.batch);
    return status;
}
