#include "layer/sum_tree.h"

#include <stdlib.h>

#include "device/rows.h"

/* What the tree is over: the leaves of b sequences as they are dealt to ranks; in fast mode the
 * ranks, as if each had one leaf. */
struct places {
    struct ls_layout layout;
    int64_t b;
    struct ls_row_run *run; /* storage: [leaves of a sequence] */
};

static struct places places_of(const struct ls_layout *layout, int64_t b, bool strict)
{
    const int p = layout->p;
    const struct ls_layout ranks = {.kind = LS_LAYOUT_CONTIGUOUS, .s = p * LS_LEAF, .p = p};

    if (!strict) return (struct places){.layout = ranks, .b = 1};
    return (struct places){.layout = *layout, .b = b};
}

/* The largest nodes that a rank holds entirely; node NULL: their number. */
static int64_t list_nodes(struct ls_row_node *node, const struct places *places, int rank)
{
    const int64_t n = ls_layout_part_leaves(&places->layout, rank);

    for (int64_t i = 0; i < n; i++)
        places->run[i] = (struct ls_row_run){
            .row = i, .count = 1, .position = ls_layout_part_leaf(&places->layout, rank, i)};
    return ls_row_nodes_list(
        node, &(struct ls_row_runs){places->run, n, ls_layout_leaves(&places->layout)}, places->b);
}

/* Leaves of a node follow each other. */
static void cut_leaves(struct ls_sum_tree *tree, const struct ls_row_node *node, int64_t count,
                       int64_t all)
{
    for (int64_t i = 0; i < tree->sums; i++)
        tree->first[i + 1] =
            tree->first[i] +
            (i < count ? ls_row_node_end(&node[i], all) - ls_row_node_first(&node[i]) : 0);
}

static void list_sums(struct ls_sum_tree *tree, struct ls_row_node *node,
                      const struct places *places, int rank)
{
    const int64_t all = places->b * ls_layout_leaves(&places->layout);
    int64_t count = 0;

    for (int r = 0; r < tree->ranks; r++) {
        const int64_t n = list_nodes(node + count, places, r);

        if (r == rank) cut_leaves(tree, node + count, n, all);
        for (int64_t i = 0; i < n; i++) node[count++].slot = i * tree->ranks + r;
    }
    tree->adds = ls_row_nodes_merge(tree->add, node, &count, all);
    tree->whole = node[0].slot;
}

ls_status ls_sum_tree_init(struct ls_sum_tree *out, const struct ls_layout *layout, int64_t b,
                           int rank, bool strict)
{
    struct places places = places_of(layout, b, strict);
    struct ls_row_node *node;

    *out = (struct ls_sum_tree){.ranks = layout->p};
    places.run = calloc((size_t)ls_layout_leaves(&places.layout), sizeof *places.run);
    for (int r = 0; r < out->ranks && places.run; r++) {
        const int64_t n = list_nodes(NULL, &places, r);

        if (n > out->sums) out->sums = n;
    }
    const size_t slots = (size_t)(out->sums * out->ranks) + 1;
    node = calloc(slots, sizeof *node);
    out->add = calloc(slots, sizeof *out->add);
    out->first = calloc((size_t)out->sums + 1, sizeof *out->first);
    const bool is_there = places.run && node && out->add && out->first;
    if (is_there) list_sums(out, node, &places, rank);
    if (is_there && !strict) out->first[1] = b * ls_layout_part_leaves(layout, rank);
    free(node);
    free(places.run);
    return is_there ? LS_OK : ls_fail(LS_ENOMEM, "layer: out of memory");
}

void ls_sum_tree_fini(struct ls_sum_tree *tree)
{
    free(tree->add);
    free(tree->first);
}

float *ls_sum_tree_add(const struct ls_sum_tree *tree, struct ls_queue *queue, float *slots,
                       int64_t n)
{
    for (int64_t i = 0; i < tree->adds; i++)
        ls_add(queue, slots + tree->add[i].into * n, slots + tree->add[i].from * n, n);
    return slots + tree->whole * n;
}
