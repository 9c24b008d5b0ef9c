#include "store/order.h"

const char *ls_order_name(ls_order order)
{
    return order == LS_ORDER_BSHD ? "bshd" : "bhsd";
}

struct ls_tensor ls_order_view(void *data, ls_dtype type, ls_order order, int64_t b, int64_t s,
                               int64_t h, int64_t d)
{
    struct ls_tensor view = ls_tensor_view(data, type, 4, (const int64_t[]){b, s, h, d});

    if (order == LS_ORDER_BHSD) {
        view.stride[1] = d;
        view.stride[2] = s * d;
    }
    return view;
}

struct ls_blocks ls_blocks_of(ls_order order, int64_t b, int64_t s, int64_t h, int64_t d)
{
    if (order == LS_ORDER_BSHD) return (struct ls_blocks){.outer = b, .s = s, .row = h * d};
    return (struct ls_blocks){.outer = b * h, .s = s, .row = d};
}

int64_t ls_blocks_runs(const struct ls_blocks *blocks, const struct ls_layout *layout, int rank)
{
    return blocks->outer * ls_layout_part_leaves(layout, rank);
}

struct ls_run ls_blocks_run(const struct ls_blocks *blocks, const struct ls_layout *layout,
                            int rank, int64_t i)
{
    const int64_t leaves = ls_layout_part_leaves(layout, rank);
    const int64_t outer = i / leaves, leaf = ls_layout_part_leaf(layout, rank, i % leaves);
    const int64_t local_rows = ls_layout_part_rows(layout, rank);

    return (struct ls_run){
        .global = (outer * blocks->s + leaf * LS_LEAF) * blocks->row,
        .local = (outer * local_rows + i % leaves * LS_LEAF) * blocks->row,
        .n = ls_layout_leaf_rows(layout, leaf) * blocks->row,
    };
}

ls_status ls_part_check(const struct ls_tensor *part, const struct ls_tensor *wanted,
                        const char *name)
{
    bool empty = false;

    if (part->ndim != wanted->ndim)
        return ls_fail(LS_ESHAPE, "%s: the part has %d dimensions, must have %d", name, part->ndim,
                       wanted->ndim);
    for (int i = 0; i < part->ndim; i++) empty |= wanted->dim[i] == 0;
    for (int i = 0; i < part->ndim; i++)
        if (part->dim[i] != wanted->dim[i] ||
            (part->dim[i] > 1 && !empty && part->stride[i] != wanted->stride[i]))
            return ls_fail(LS_ESHAPE,
                           "%s: dimension %d of the part is %lld with stride %lld, must be %lld "
                           "with %lld on this rank",
                           name, i, (long long)part->dim[i], (long long)part->stride[i],
                           (long long)wanted->dim[i], (long long)wanted->stride[i]);
    if (!part->data && !empty)
        return ls_fail(LS_EVALUE, "%s: the part has no memory: its data is NULL", name);
    return LS_OK;
}

ls_status ls_part_layout_check(const struct ls_layout *layout, const struct ls_comm *comm)
{
    if (layout->p == ls_comm_size(comm)) return LS_OK;
    return ls_fail(LS_ESHAPE, "the layout is of %d ranks, there are %d", layout->p,
                   ls_comm_size(comm));
}
