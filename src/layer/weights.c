#include "layer/weights.h"

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

/* ---- memory */

/* Shares are of one size: with the last row goes what lies behind it, zeros or former sums. */
static ls_status create_memory(struct ls_weight_sums *w, const struct ls_weight_shape *shape)
{
    void *memory;

    w->floats = larger(shape->most_weights / (w->tree.sums + 1), w->ranks * shape->most_columns);
    const int64_t all = (w->tree.sums + 1) * w->floats;
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
    LS_TRY(ls_sum_tree_init(&out->tree, shape->layout, shape->b, out->rank, shape->strict));
    LS_TRY(ls_batch_init_collective(&out->batch, transport));
    return create_memory(out, shape);
}

void ls_weight_sums_fini(struct ls_weight_sums *w)
{
    if (!w->device) return;
    ls_device_free(w->device, w->own);
    ls_batch_fini(&w->batch);
    ls_sum_tree_fini(&w->tree);
}

/* ---- a gradient */

/* dy^T x of the leaves of sum i goes to `own`. */
static void sum_leaves(struct ls_weight_sums *w, struct ls_linear_kernel *kernel,
                       const struct ls_tensor *dy, const struct ls_tensor *x, int64_t i)
{
    const int64_t dim[] = {dy->dim[1], x->dim[1]}, *first = w->tree.first + i;
    const struct ls_leaf_list leaves = {w->all.leaf + first[0], first[1] - first[0]};
    struct ls_tensor dw = ls_tensor_view(w->own, LS_F32, 2, dim);

    ls_linear_dw(&w->device->queue, kernel,
                 &(struct ls_linear_sum){.dw = &dw, .dy = dy, .x = x, .leaves = leaves});
}

/* The sum of all that is in the slots, n numbers each, comes to this rank's place in `own`. */
static void add_up(struct ls_weight_sums *w, int64_t n)
{
    struct ls_queue *queue = &w->device->queue;
    struct ls_tensor to = ls_tensor_view(w->own + w->rank * n, LS_F32, 1, &n);
    const struct ls_tensor whole =
        ls_tensor_view(ls_sum_tree_add(&w->tree, queue, w->slots, n), LS_F32, 1, &n);

    ls_copy(queue, &to, &whole);
}

/* Of as many rows as dy has columns, a share for each rank. */
static ls_status add_rows(float *gradient, struct ls_weight_sums *w,
                          struct ls_linear_kernel *kernel, const struct ls_tensor *dy,
                          const struct ls_tensor *x)
{
    const int64_t rows = dy->dim[1], in = x->dim[1];
    const int64_t n = (rows + w->ranks - 1) / w->ranks * in;
    const size_t bytes = (size_t)n * sizeof(float);

    for (int64_t i = 0; i < w->tree.sums; i++) {
        sum_leaves(w, kernel, dy, x, i);
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
