#include "tensor/row_nodes.h"

#include <stdbool.h>
#include <stdlib.h>

/* Makes the node its parent. */
static void rise(struct ls_row_node *node)
{
    node->level++;
    node->index /= 2;
}

/* Whether this is the left half of a larger node that has no row from `end` on; what has all rows
 * is the root. */
static bool may_rise(const struct ls_row_node *node, int64_t end, int64_t rows)
{
    struct ls_row_node parent = *node;

    if (node->index % 2 != 0 || (node->index == 0 && ls_row_node_end(node, rows) == rows))
        return false;
    rise(&parent);
    return ls_row_node_end(&parent, rows) <= end;
}

/* ---- the nodes of rows that are there */

struct listing {
    struct ls_row_node *out; /* NULL: only counted */
    int64_t count, rows;
    int64_t first, end; /* of the stretch of rows that is not listed yet */
};

static void list_stretch(struct listing *l)
{
    while (l->first < l->end) {
        struct ls_row_node node = {.index = l->first, .slot = l->count};

        while (may_rise(&node, l->end, l->rows)) rise(&node);
        l->first = ls_row_node_end(&node, l->rows);
        if (l->out) l->out[l->count] = node;
        l->count++;
    }
}

int64_t ls_row_nodes_list(struct ls_row_node *out, const struct ls_row_runs *runs, int64_t b)
{
    struct listing l = {.out = out, .rows = b * runs->s};

    for (int64_t i = 0; i < b * runs->count; i++) {
        const struct ls_row_run *run = &runs->run[i % runs->count];
        const int64_t first = i / runs->count * runs->s + run->position;

        if (run->count == 0) continue;
        if (first != l.end) {
            list_stretch(&l);
            l.first = first;
        }
        l.end = first + run->count;
    }
    list_stretch(&l);
    return l.count;
}

/* ---- up the tree */

static int by_rows(const void *a, const void *b)
{
    const int64_t x = ls_row_node_first(a), y = ls_row_node_first(b);

    return (x > y) - (x < y);
}

static bool are_halves(const struct ls_row_node *left, const struct ls_row_node *right)
{
    return left->level == right->level && left->index % 2 == 0 && right->index == left->index + 1;
}

int64_t ls_row_nodes_merge(struct ls_row_add *add, struct ls_row_node *node, int64_t *count,
                           int64_t rows)
{
    int64_t adds = 0, kept = 0;

    qsort(node, (size_t)*count, sizeof *node, by_rows);
    for (int64_t i = 0; i < *count; i++) {
        node[kept++] = node[i];
        while (kept > 1 && are_halves(&node[kept - 2], &node[kept - 1])) {
            struct ls_row_node *const left = &node[kept - 2];

            add[adds++] = (struct ls_row_add){left->slot, node[kept - 1].slot};
            rise(left);
            while (may_rise(left, rows, rows) && ls_row_node_end(left, rows) == rows) rise(left);
            kept--;
        }
    }
    *count = kept;
    return adds;
}
