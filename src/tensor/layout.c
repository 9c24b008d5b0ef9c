#include "tensor/layout.h"

#include <assert.h>
#include <stdbool.h>

#include "tensor/dealing.h"

#define KIND_COUNT (LS_LAYOUT_BALANCED + 1)

static const char *const kind_names[KIND_COUNT] = {
    [LS_LAYOUT_AUTO] = "auto",         [LS_LAYOUT_CONTIGUOUS] = "contiguous",
    [LS_LAYOUT_ZIGZAG] = "zigzag",     [LS_LAYOUT_STRIPED] = "striped",
    [LS_LAYOUT_BALANCED] = "balanced",
};

struct span {
    int64_t begin, length;
};

/* The r-th run when n leaves are cut into `runs` of them; the first n % runs get one more. */
static struct span run(int64_t n, int runs, int r)
{
    const int64_t base = n / runs, extra = n % runs;

    return (struct span){.begin = r * base + (r < extra ? r : extra), .length = base + (r < extra)};
}

/* The leaves of a part are one span, or two with the first before the second. Striped and
 * balanced parts have no spans. */
static struct span first_span(const struct ls_layout *layout, int rank)
{
    const int64_t n = ls_layout_leaves(layout);

    if (layout->kind == LS_LAYOUT_ZIGZAG) return run(n, 2 * layout->p, rank);
    return run(n, layout->p, rank);
}

static struct span second_span(const struct ls_layout *layout, int rank)
{
    if (layout->kind != LS_LAYOUT_ZIGZAG) return (struct span){0};
    return run(ls_layout_leaves(layout), 2 * layout->p, 2 * layout->p - 1 - rank);
}

static void assert_valid(const struct ls_layout *layout, int rank)
{
    assert(layout->kind > LS_LAYOUT_AUTO && layout->kind < KIND_COUNT);
    assert(layout->s >= 0 && rank >= 0 && rank < layout->p);
    (void)layout, (void)rank;
}

int64_t ls_layout_leaves(const struct ls_layout *layout)
{
    return layout->s / LS_LEAF + (layout->s % LS_LEAF != 0);
}

int64_t ls_layout_part_leaves(const struct ls_layout *layout, int rank)
{
    assert_valid(layout, rank);
    if (layout->kind == LS_LAYOUT_STRIPED)
        return run(ls_layout_leaves(layout), layout->p, rank).length;
    if (layout->kind == LS_LAYOUT_BALANCED)
        return layout->dealing->first[rank + 1] - layout->dealing->first[rank];
    return first_span(layout, rank).length + second_span(layout, rank).length;
}

int64_t ls_layout_part_leaf(const struct ls_layout *layout, int rank, int64_t i)
{
    assert_valid(layout, rank);
    assert(i >= 0 && i < ls_layout_part_leaves(layout, rank));
    if (layout->kind == LS_LAYOUT_STRIPED) return rank + i * layout->p;
    if (layout->kind == LS_LAYOUT_BALANCED)
        return layout->dealing->leaf[layout->dealing->first[rank] + i];
    const struct span first = first_span(layout, rank);

    if (i < first.length) return first.begin + i;
    return second_span(layout, rank).begin + (i - first.length);
}

int64_t ls_layout_leaf_rows(const struct ls_layout *layout, int64_t leaf)
{
    const int64_t rest = layout->s - leaf * LS_LEAF;

    assert(leaf >= 0 && rest > 0);
    return rest < LS_LEAF ? rest : LS_LEAF;
}

/* The last leaf of the sequence, the only one that may be short. */
static bool has_last_leaf(const struct ls_layout *layout, int rank, int64_t leaves)
{
    if (leaves == 0) return false;
    if (layout->kind == LS_LAYOUT_BALANCED) return layout->dealing->last == rank;
    return ls_layout_part_leaf(layout, rank, leaves - 1) == ls_layout_leaves(layout) - 1;
}

int64_t ls_layout_part_rows(const struct ls_layout *layout, int rank)
{
    const int64_t leaves = ls_layout_part_leaves(layout, rank);
    const int64_t missing = ls_layout_leaves(layout) * LS_LEAF - layout->s;

    return leaves * LS_LEAF - (has_last_leaf(layout, rank, leaves) ? missing : 0);
}

int64_t ls_layout_position(const struct ls_layout *layout, int rank, int64_t row)
{
    return ls_layout_part_leaf(layout, rank, row / LS_LEAF) * LS_LEAF + row % LS_LEAF;
}

int64_t ls_layout_rows_before(const struct ls_layout *layout, int rank, int64_t position)
{
    const int64_t leaves = ls_layout_part_leaves(layout, rank), leaf = position / LS_LEAF;
    int64_t before = 0, end = leaves; /* the first leaf from `leaf` on is among these */

    while (before < end) {
        const int64_t middle = before + (end - before) / 2;

        if (ls_layout_part_leaf(layout, rank, middle) < leaf)
            before = middle + 1;
        else
            end = middle;
    }
    const bool within = before < leaves && ls_layout_part_leaf(layout, rank, before) == leaf;

    return before * LS_LEAF + (within ? position % LS_LEAF : 0);
}

const char *ls_layout_name(ls_layout_kind kind)
{
    return kind < KIND_COUNT ? kind_names[kind] : "unknown";
}
