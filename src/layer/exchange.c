#include "layer/exchange.h"

#include "attention/problem.h"
#include "base/profile.h"
#include "base/trace.h"
#include "device/rows.h"

/* ---- blocks: one of each rank, [b, most outer rows, e] */

static int64_t most_outer_rows(const struct ls_grid *grid, int64_t rows)
{
    return ls_grid_outer_rows(grid, rows, 0).count;
}

/* Whether rows inside are the ranks' blocks, one after the other. */
static bool is_blocks(const struct ls_grid *grid, int64_t b, int64_t rows)
{
    return b == 1 && rows % grid->t == 0;
}

static size_t block_bytes(const struct ls_exchange *x)
{
    return (size_t)(x->b * most_outer_rows(x->grid, x->rows) * x->e) *
           (size_t)ls_dtype_size(x->type);
}

static size_t all_blocks_bytes(const struct ls_exchange *x)
{
    if (!x->grid->sp || is_blocks(x->grid, x->b, x->rows)) return 0;
    return (size_t)(x->grid->t + 1) * block_bytes(x);
}

size_t ls_exchange_bytes(const struct ls_grid *grid, int64_t b, int64_t rows, int64_t e,
                         ls_dtype type)
{
    const struct ls_exchange x = {.grid = grid, .b = b, .rows = rows, .e = e, .type = type};

    return grid->t > 1 ? ls_batch_collective_bytes(grid->t) + all_blocks_bytes(&x) : 0;
}

ls_status ls_exchange_init(struct ls_exchange *out, const struct ls_grid *grid,
                           const struct ls_transport *transport, struct ls_queue *queue, int64_t b,
                           int64_t rows, int64_t e, ls_dtype type)
{
    *out = (struct ls_exchange){
        .grid = grid, .queue = queue, .b = b, .rows = rows, .e = e, .type = type};
    if (grid->t == 1) return LS_OK;
    LS_TRY(ls_batch_init_collective(&out->batch, transport));
    if (all_blocks_bytes(out) == 0) return LS_OK;
    return ls_device_alloc(&out->blocks, queue->device, LS_TAG_COMM, all_blocks_bytes(out));
}

void ls_exchange_fini(struct ls_exchange *x)
{
    if (!x->grid || x->grid->t == 1) return;
    ls_batch_fini(&x->batch);
    ls_device_free(x->queue->device, x->blocks);
}

/* The rows of a rank in its block, and among all. */
static struct ls_tensor in_block(const struct ls_exchange *x, int tensor)
{
    const int64_t most = most_outer_rows(x->grid, x->rows);
    const int64_t dim[] = {x->b, ls_grid_outer_rows(x->grid, x->rows, tensor).count, x->e};
    struct ls_tensor view =
        ls_tensor_view((char *)x->blocks + (size_t)tensor * block_bytes(x), x->type, 3, dim);

    view.stride[0] = most * x->e;
    return view;
}

/* Where the sum of this rank's rows arrives: behind the blocks. */
static struct ls_tensor sum_block(const struct ls_exchange *x)
{
    struct ls_tensor view = in_block(x, x->grid->tensor);

    view.data = (char *)x->blocks + (size_t)x->grid->t * block_bytes(x);
    return view;
}

static struct ls_tensor among_all(const struct ls_exchange *x, const struct ls_tensor *inside,
                                  int tensor)
{
    const struct ls_outer_rows rows = ls_grid_outer_rows(x->grid, x->rows, tensor);

    return ls_range_of(inside, 1, rows.first, rows.count);
}

static void to_blocks(struct ls_exchange *x, const struct ls_tensor *inside)
{
    for (int i = 0; i < x->grid->t; i++) {
        struct ls_tensor to = in_block(x, i);
        const struct ls_tensor from = among_all(x, inside, i);

        ls_copy(x->queue, &to, &from);
    }
}

static void from_blocks(struct ls_exchange *x)
{
    for (int i = 0; i < x->grid->t; i++) {
        struct ls_tensor to = among_all(x, &x->arriving, i);
        const struct ls_tensor from = in_block(x, i);

        ls_copy(x->queue, &to, &from);
    }
}

/* ---- exchanges */

ls_status ls_exchange_start_gather(struct ls_exchange *x, const struct ls_tensor *inside,
                                   const struct ls_tensor *outside)
{
    const int own = x->grid->tensor;

    if (!x->grid->sp) return LS_OK;
    struct ls_tensor mine = x->blocks ? in_block(x, own) : among_all(x, inside, own);

    ls_copy(x->queue, &mine, outside);
    x->arriving = *inside;
    x->arrives = x->blocks ? LS_ARRIVES_FROM_ALL : LS_ARRIVES_IN_PLACE;
    ls_batch_all_gather(&x->batch, x->blocks ? x->blocks : inside->data, block_bytes(x));
    return ls_batch_start(&x->batch);
}

ls_status ls_exchange_start_sum(struct ls_exchange *x, const struct ls_tensor *outside,
                                const struct ls_tensor *inside)
{
    const int64_t all = x->b * x->rows * x->e;

    if (x->grid->t == 1) return LS_OK;
    x->arriving = *outside;
    x->arrives = x->blocks ? LS_ARRIVES_IN_A_BLOCK : LS_ARRIVES_IN_PLACE;
    if (x->blocks) to_blocks(x, inside);
    if (x->grid->sp)
        ls_batch_reduce_scatter(&x->batch, x->blocks ? sum_block(x).data : outside->data,
                                x->blocks ? x->blocks : inside->data, x->type,
                                x->blocks ? (int64_t)block_bytes(x) / ls_dtype_size(x->type)
                                          : all / x->grid->t);
    else
        ls_batch_all_reduce(&x->batch, inside->data, x->type, all, LS_REDUCE_SUM);
    return ls_batch_start(&x->batch);
}

ls_status ls_exchange_wait(struct ls_exchange *x)
{
    static const struct ls_trace_kind kind = {"exchange", "layer", {NULL}};

    if (x->grid->t == 1) return LS_OK;
    const double begin = ls_now();
    LS_TRY(ls_batch_wait(&x->batch));
    if (x->arrives == LS_ARRIVES_FROM_ALL) from_blocks(x);
    if (x->arrives == LS_ARRIVES_IN_A_BLOCK) {
        const struct ls_tensor sum = sum_block(x);

        ls_copy(x->queue, &x->arriving, &sum);
    }
    x->arrives = LS_ARRIVES_IN_PLACE;
    ls_trace_note(&kind, begin, 0);
    return LS_OK;
}

/* ---- beside a linear, rank by rank */

static bool goes_by_rank(const struct ls_exchange *x)
{
    return x->grid->sp && !x->blocks;
}

/* The rank so many places behind this one, or before it. */
static int rank_at(const struct ls_exchange *x, int places)
{
    return (x->grid->tensor + places + x->grid->t) % x->grid->t;
}

static void compute_all(const struct ls_exchange *x, const struct ls_exchange_work *work)
{
    work->run(work->job, &(struct ls_exchange_piece){0, x->b * x->rows, true});
}

static void compute_rows_of(const struct ls_exchange *x, int rank, bool is_first,
                            const struct ls_exchange_work *work)
{
    const struct ls_outer_rows rows = ls_grid_outer_rows(x->grid, x->rows, rank);

    work->run(work->job, &(struct ls_exchange_piece){rows.first, rows.count, is_first});
}

/* A block goes so many places on, and one comes from as many places before. */
static ls_status start_round(struct ls_exchange *x, int places, const struct ls_tensor *into,
                             const struct ls_tensor *from)
{
    ls_batch_receive(&x->batch, into->data, block_bytes(x), rank_at(x, -places));
    ls_batch_send(&x->batch, from->data, block_bytes(x), rank_at(x, places));
    return ls_batch_start(&x->batch);
}

ls_status ls_exchange_gather_beside(struct ls_exchange *x, const struct ls_tensor *inside,
                                    const struct ls_tensor *outside,
                                    const struct ls_exchange_work *work)
{
    struct ls_tensor own = among_all(x, inside, x->grid->tensor);

    if (!goes_by_rank(x)) {
        LS_TRY(ls_exchange_start_gather(x, inside, outside));
        LS_TRY(ls_exchange_wait(x));
        compute_all(x, work);
        return LS_OK;
    }
    ls_copy(x->queue, &own, outside);
    for (int i = 0; i < x->grid->t; i++) {
        const struct ls_tensor next = among_all(x, inside, rank_at(x, -i - 1));

        if (i > 0) LS_TRY(ls_exchange_wait(x));
        if (i + 1 < x->grid->t) LS_TRY(start_round(x, i + 1, &next, &own));
        compute_rows_of(x, rank_at(x, -i), i == 0, work);
    }
    return LS_OK;
}

ls_status ls_exchange_sum_beside(struct ls_exchange *x, const struct ls_tensor *outside,
                                 const struct ls_tensor *inside, const struct ls_tensor *parts,
                                 const struct ls_exchange_work *work)
{
    const int t = x->grid->t, own = x->grid->tensor;

    if (!goes_by_rank(x)) {
        compute_all(x, work);
        LS_TRY(ls_exchange_start_sum(x, outside, inside));
        return ls_exchange_wait(x);
    }
    for (int i = 1; i <= t; i++) {
        const struct ls_tensor part = among_all(x, parts, rank_at(x, -i));
        const struct ls_tensor theirs = among_all(x, inside, rank_at(x, i));

        compute_rows_of(x, rank_at(x, i), i == 1, work);
        if (i > 1) LS_TRY(ls_exchange_wait(x));
        if (i < t) LS_TRY(start_round(x, i, &part, &theirs));
    }
    struct ls_tensor mine = among_all(x, parts, own);
    const struct ls_tensor computed = among_all(x, inside, own);

    ls_copy(x->queue, &mine, &computed);
    ls_batch_fold(&x->batch, outside->data, parts->data, x->type, x->rows / t * x->e);
    return LS_OK;
}
