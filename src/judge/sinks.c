/* The gradient of a sink is a sum over all rows of its head, o and lse of the result being taken
 * for what they are: no row is left to chance, and nobody meets keys. */
#include "base/ledger.h"
#include "base/tell.h"
#include "judge/batch.h"

#define BIT(tensor) LS_JUDGE_BIT(LS_JUDGE_##tensor)

/* What this rank's rows give to the sink of one head, and room for that of all ranks, [p]. */
struct sinks {
    struct ls_judge *judge;
    struct ls_columns leaf;
    struct ls_reference_sum own, *all;
};

static void add_leaf(struct sinks *sinks, int64_t b, int64_t head, int64_t position)
{
    const struct ls_columns *leaf = &sinks->leaf;

    for (int64_t i = 0; i < leaf->n; i++) {
        const struct ls_reference_backward back =
            ls_judge_own_backward(leaf, i, b, head, position + i);

        ls_reference_add_dsink(&sinks->own, &back);
    }
}

static void add_own_rows(struct sinks *sinks, int64_t head)
{
    const struct ls_judge *judge = sinks->judge;
    const struct ls_layout *layout = &judge->q_layout;
    const int64_t leaves = ls_layout_part_leaves(layout, judge->rank);

    for (int64_t i = 0; i < judge->problem.shape.b * leaves; i++) {
        const int64_t b = i / leaves, leaf = ls_layout_part_leaf(layout, judge->rank, i % leaves);

        ls_comm_beat(judge->comm); /* so that others hear */
        sinks->leaf.n = ls_layout_leaf_rows(layout, leaf);
        ls_columns_load(&sinks->leaf, 0, b, i % leaves * LS_LEAF, sinks->leaf.n, head);
        ls_columns_add_residual(&sinks->leaf);
        add_leaf(sinks, b, head, leaf * LS_LEAF);
    }
}

static ls_status judge_head(struct sinks *sinks, int64_t head)
{
    struct ls_judge *judge = sinks->judge;
    double value;

    ls_reference_sum_init(&sinks->own);
    add_own_rows(sinks, head);
    LS_TRY(ls_comm_gather(sinks->all, judge->comm, &sinks->own, sizeof(sinks->own)));
    for (int r = 1; r < judge->p; r++) ls_reference_sum_merge(&sinks->all[0], &sinks->all[r], 1);
    ls_judge_load_rows(&value, &judge->tensor[LS_JUDGE_DSINKS], 0, 0, 1, head);
    ls_gradient_errors_add_row(&judge->gradient_errors[LS_JUDGE_DSINKS - LS_JUDGE_DQ],
                               judge->contract, &value, &sinks->all[0], 1,
                               (const int64_t[]){-1, -1, head});
    return LS_OK;
}

static ls_status judge_heads(struct sinks *sinks)
{
    const int64_t heads = sinks->judge->problem.shape.h;

    for (int64_t head = 0; head < heads; head++) {
        ls_tell(sinks->judge->progress, "verifying dsinks", head, heads);
        LS_TRY(judge_head(sinks, head));
    }
    return LS_OK;
}

static ls_status sinks_init(struct sinks *sinks, const struct ls_judge *judge)
{
    LS_TRY(ls_columns_init(&sinks->leaf, judge,
                           BIT(Q) | BIT(D_O) | BIT(O) | BIT(O_LO) | BIT(LSE) | BIT(DLSE), LS_LEAF));
    return ls_judge_room(&sinks->all, (size_t)judge->p * sizeof(*sinks->all));
}

ls_status ls_judge_sinks(struct ls_judge *judge)
{
    struct sinks sinks = {.judge = judge};
    ls_status status;

    if (!judge->has[LS_JUDGE_DSINKS]) return LS_OK;
    status = ls_comm_agree(judge->comm, sinks_init(&sinks, judge));
    if (status == LS_OK) status = judge_heads(&sinks);
    ls_tell_end(judge->progress);
    ls_free(sinks.all);
    ls_free(sinks.leaf.data);
    return status;
}
