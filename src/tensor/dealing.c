#include "tensor/dealing.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/status.h"

struct weighed {
    int64_t leaf, work;
};

struct hand {
    int64_t work, leaves;
};

static int heaviest_first(const void *a, const void *b)
{
    const struct weighed *x = a, *y = b;

    if (x->work != y->work) return x->work < y->work ? 1 : -1;
    return (x->leaf > y->leaf) - (x->leaf < y->leaf);
}

static bool has_less(const struct hand *a, const struct hand *b, bool weightless)
{
    if (!weightless && a->work != b->work) return a->work < b->work;
    return a->leaves < b->leaves;
}

static int next_rank(const struct hand *hand, int p, bool weightless)
{
    int least = 0;

    for (int r = 1; r < p; r++)
        if (has_less(&hand[r], &hand[least], weightless)) least = r;
    return least;
}

/* owner [leaves] */
static void deal(int *owner, struct hand *hand, const struct weighed *order, int64_t leaves, int p)
{
    for (int64_t i = 0; i < leaves; i++) {
        const int rank = next_rank(hand, p, order[i].work == 0);

        owner[order[i].leaf] = rank;
        hand[rank].work += order[i].work;
        hand[rank].leaves++;
    }
}

static void list_leaves(struct ls_dealing *out, const int *owner, int64_t leaves, int p)
{
    int64_t count = 0;

    for (int r = 0; r < p; r++) {
        out->first[r] = count;
        for (int64_t leaf = 0; leaf < leaves; leaf++)
            if (owner[leaf] == r) out->leaf[count++] = leaf;
    }
    out->first[p] = count;
}

ls_status ls_dealing_create(struct ls_dealing **out, const int64_t *work, int64_t leaves, int p)
{
    struct weighed *order = calloc((size_t)leaves + 1, sizeof *order);
    struct hand *hand = calloc((size_t)p, sizeof *hand);
    int *owner = calloc((size_t)leaves + 1, sizeof *owner);
    struct ls_dealing *dealing = calloc(1, sizeof *dealing);
    ls_status status = LS_OK;

    if (dealing) {
        dealing->first = calloc((size_t)p + 1, sizeof *dealing->first);
        dealing->leaf = calloc((size_t)leaves + 1, sizeof *dealing->leaf);
    }
    if (!order || !hand || !owner || !dealing || !dealing->first || !dealing->leaf) {
        ls_dealing_destroy(dealing);
        status = ls_fail(LS_ENOMEM, "balanced layout: out of memory");
    } else {
        for (int64_t i = 0; i < leaves; i++) order[i] = (struct weighed){i, work[i]};
        qsort(order, (size_t)leaves, sizeof *order, heaviest_first);
        deal(owner, hand, order, leaves, p);
        list_leaves(dealing, owner, leaves, p);
        dealing->last = leaves > 0 ? owner[leaves - 1] : -1;
        *out = dealing;
    }
    free(owner);
    free(hand);
    free(order);
    return status;
}

void ls_dealing_destroy(struct ls_dealing *dealing)
{
    if (!dealing) return;
    free(dealing->leaf);
    free(dealing->first);
    free(dealing);
}
