#include "layer/weights.h"

#include <stdlib.h>

#include "attention/problem.h"
#include "device/rows.h"

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- the tree, which every rank finds for itself */

/* What the tree is over: the leaves of b sequences as they are dealt to ranks; in fast mode the
 * ranks, as if each had one leaf. */
struct places {
    struct ls_layout layout;
    int64_t b;
    struct ls_row_run *run; /* storage: [leaves of a sequence] */
};

static struct places places_of(const struct ls_weight_shape *shape)
{
    const int p = shape->layout->p;
    const struct ls_layout ranks = {.kind = LS_LAYOUT_CONTIGUOUS, .s = p * LS_LEAF, .p = p};

    if (!shape->strict) return (struct places){.layout = ranks, .b = 1};
    return (struct places){.layout = *shape->layout, .b = shape->b};
}

static int64_t all_places(const struct places *places)
{
    return places->b * ls_layout_leaves(&places->layout);
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

/* The leaves of a rank's sums: those of a node follow each other. */
static void cut_leaves(struct ls_weight_sums *w, const struct ls_row_node *node, int64_t count,
                       int64_t all)
{
    int64_t first = 0;

    for (int64_t i = 0; i < count; i++) {
        const int64_t n = ls_row_node_end(&node[i], all) - ls_row_node_first(&node[i]);

        w->sum[i] = (struct ls_leaf_list){.leaf = w->all.leaf + first, .count = n};
        first += n;
    }
}

static void list_sums(struct ls_weight_sums *w, struct ls_row_node *node,
                      const struct places *places, bool strict)
{
    const int64_t all = all_places(places);
    int64_t count = 0;

    for (int r = 0; r < w->ranks; r++) {
        const int64_t n = list_nodes(node + count, places, r);

        if (r == w->rank) cut_leaves(w, node + count, n, all);
        for (int64_t i = 0; i < n; i++) node[count++].slot = i * w->ranks + r;
    }
    if (!strict) w->sum[0] = w->all;
    w->adds = ls_row_nodes_merge(w->add, node, &count, all);
    w->whole = node[0].slot;
}

static ls_status create_tree(struct ls_weight_sums *w, const struct ls_weight_shape *shape)
{
    struct places places = places_of(shape);
    struct ls_row_node *node;

    places.run = calloc((size_t)ls_layout_leaves(&places.layout), sizeof *places.run);
    for (int r = 0; r < w->ranks && places.run; r++)
        w->most = larger(w->most, list_nodes(NULL, &places, r));
    const size_t slots = (size_t)(w->most * w->ranks) + 1;
    node = calloc(slots, sizeof *node);
    w->add = calloc(slots, sizeof *w->add);
    w->sum = calloc(slots, sizeof *w->sum);
    const bool is_there = places.run && node && w->add && w->sum;
    if (is_there) list_sums(w, node, &places, shape->strict);
    free(node);
    free(places.run);
    return is_there ? LS_OK : ls_fail(LS_ENOMEM, "layer: out of memory");
}

/* ---- memory */

/* Shares are of one size: with the last row goes what lies behind it, zeros or former sums. */
static ls_status create_memory(struct ls_weight_sums *w, const struct ls_weight_shape *shape)
{
    void *memory;

    w->floats = larger(shape->most_weights / (w->most + 1), w->ranks * shape->most_columns);
    const int64_t all = (w->most + 1) * w->floats;
    LS_TRY(ls_device_alloc(&memory, w->device, LS_TAG_GRADIENT, (size_t)all * sizeof(float)));
    w->own = memory;
    w->slots = w->own + w->floats;
    struct ls_tensor nothing = ls_tensor_view(memory, LS_F32, 1, &all);
    ls_zero(&w->device->queue, &nothing);
    return LS_OK;
}

ls_status ls_weight_sums_init(struct ls_weight_sums *out, const struct ls_transport *transport,
                              struct ls_device *device, const struct ls_weight_shape *shape)
{
    *out = (struct ls_weight_sums){
        .device = device, .ranks = transport->size, .rank = transport->rank, .all = shape->leaves};
    if (out->ranks == 1) return LS_OK;
    LS_TRY(create_tree(out, shape));
    LS_TRY(ls_batch_init_collective(&out->batch, transport));
    return create_memory(out, shape);
}

void ls_weight_sums_fini(struct ls_weight_sums *w)
{
    if (!w->device) return;
    ls_device_free(w->device, w->own);
    ls_batch_fini(&w->batch);
    free(w->add);
    free(w->sum);
}

/* ---- a gradient */

/* dy^T x of these leaves, for rows [first, first + rows) of the gradient, goes to `own`. */
static void sum_leaves(struct ls_weight_sums *w, struct ls_linear_kernel *kernel,
                       const struct ls_tensor *dy, const struct ls_tensor *x,
                       struct ls_leaf_list leaves)
{
    const int64_t dim[] = {dy->dim[1], x->dim[1]};
    struct ls_tensor dw = ls_tensor_view(w->own, LS_F32, 2, dim);

    ls_linear_dw(&w->device->queue, kernel,
                 &(struct ls_linear_sum){.dw = &dw, .dy = dy, .x = x, .leaves = leaves});
}

/* The sum of all that is in the slots, n numbers each, comes to this rank's place in `own`. */
static void add_up(struct ls_weight_sums *w, int64_t n)
{
    struct ls_tensor to = ls_tensor_view(w->own + w->rank * n, LS_F32, 1, &n);
    const struct ls_tensor whole = ls_tensor_view(w->slots + w->whole * n, LS_F32, 1, &n);

    for (int64_t i = 0; i < w->adds; i++)
        ls_add(&w->device->queue, w->slots + w->add[i].into * n, w->slots + w->add[i].from * n, n);
    ls_copy(&w->device->queue, &to, &whole);
}

/* Of as many rows as dy has columns, a share for each rank. */
static ls_status add_rows(float *gradient, struct ls_weight_sums *w,
                          struct ls_linear_kernel *kernel, const struct ls_tensor *dy,
                          const struct ls_tensor *x)
{
    const int64_t rows = dy->dim[1], in = x->dim[1];
    const int64_t n = (rows + w->ranks - 1) / w->ranks * in;
    const size_t bytes = (size_t)n * sizeof(float);

    for (int64_t i = 0; i < w->most; i++) {
        sum_leaves(w, kernel, dy, x, w->sum[i]);
        ls_batch_all_to_all(&w->batch, w->slots + i * w->ranks * n, w->own, bytes);
        LS_TRY(ls_batch_run(&w->batch));
    }
    add_up(w, n);
    ls_batch_all_gather(&w->batch, w->own, bytes);
    LS_TRY(ls_batch_run(&w->batch));
    ls_add(&w->device->queue, gradient, w->own, rows * in);
    return LS_OK;
}

ls_status ls_weight_sums_add(struct ls_weight_sums *w, struct ls_linear_kernel *kernel,
                             struct ls_tensor *gradient, const struct ls_tensor *dy,
                             const struct ls_tensor *x)
{
    const int64_t out = gradient->dim[0], in = gradient->dim[1];

    if (w->ranks == 1) {
        ls_linear_dw(&w->device->queue, kernel,
                     &(struct ls_linear_sum){
                         .dw = gradient, .add = true, .dy = dy, .x = x, .leaves = w->all});
        return LS_OK;
    }
    const int64_t at_once = w->floats / in / w->ranks * w->ranks;
    for (int64_t first = 0; first < out; first += at_once) {
        const struct ls_tensor columns = ls_range_of(dy, 1, first, smaller(out - first, at_once));

        LS_TRY(add_rows((float *)gradient->data + first * in, w, kernel, &columns, x));
    }
    return LS_OK;
}
