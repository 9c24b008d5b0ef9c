/* Sums over rows, of one part after another into one array of nodes, which are then merged. */
#ifndef TESTS_DEVICE_NODES_H
#define TESTS_DEVICE_NODES_H

#include <fenv.h>

#include "device/rows.h"
#include "sheet.h"

enum { MOST_NODES = 2048 };

/* What has been summed so far; sums [slots, e]. */
struct nodes {
    struct ls_row_node node[MOST_NODES];
    int64_t count, slots, e;
    float *sum;
};

static inline struct nodes *nodes_create(int64_t e)
{
    struct nodes *n = calloc(1, sizeof *n);

    n->e = e;
    n->sum = malloc((size_t)(MOST_NODES * e) * sizeof *n->sum);
    memset(n->sum, SHEET_FILL, (size_t)(MOST_NODES * e) * sizeof *n->sum);
    return n;
}

static inline void nodes_destroy(struct nodes *n)
{
    free(n->sum);
    free(n);
}

/* Those of a part, whose sums come next. */
static inline struct ls_row_order nodes_add(struct nodes *n, const struct part *p, int64_t b)
{
    struct ls_row_node *const node = n->node + n->count;
    const int64_t count = ls_row_nodes_list(NULL, &p->runs, b);

    cr_assert_leq(n->count + count, MOST_NODES);
    ls_row_nodes_list(node, &p->runs, b);
    for (int64_t i = 0; i < count; i++) node[i].slot += n->slots;
    n->count += count;
    n->slots += count;
    return (struct ls_row_order){&p->runs, node, count};
}

static inline float *nodes_mirror(struct mirror *m, const struct nodes *n)
{
    return mirror_result(m, n->sum, (size_t)(MOST_NODES * n->e) * sizeof *n->sum);
}

/* The sum of all rows. */
static inline const float *nodes_merge(struct nodes *n, int64_t rows)
{
    struct ls_row_add *const add = malloc(MOST_NODES * sizeof *add);
    const int64_t slots = n->slots, adds = ls_row_nodes_merge(add, n->node, &n->count, rows);
    struct mirror mirror = {.device = open_device(1)};
    float *const sum = nodes_mirror(&mirror, n);

    cr_assert_eq(adds, slots - 1);
    cr_assert_eq(n->count, 1);
    for (int64_t i = 0; i < adds; i++)
        ls_add(&mirror.device->queue, sum + add[i].into * n->e, sum + add[i].from * n->e, n->e);
    cr_assert_eq(ls_queue_finish(NULL, &mirror.device->queue), LS_OK, "%s", ls_message());
    mirror_read_back(&mirror);
    free(add);
    return n->sum + n->node[0].slot * n->e;
}

/* out [e] = rows [first, first + 2^level) of the whole problem, by the tree; row(out, what, i) is
 * one of them. */
static inline void tree_of_rows(float *out, void (*row)(float *out, const void *what, int64_t i),
                                const void *what, int64_t first, int level, int64_t rows, int64_t e)
{
    const int64_t half = first + (INT64_C(1) << level) / 2;

    if (level == 0) {
        row(out, what, first);
        return;
    }
    tree_of_rows(out, row, what, first, level - 1, rows, e);
    if (half >= rows) return;
    float *const right = malloc((size_t)e * sizeof *right + 1);
    tree_of_rows(right, row, what, half, level - 1, rows, e);
    for (int64_t k = 0; k < e; k++) out[k] += right[k];
    free(right);
}

#endif
