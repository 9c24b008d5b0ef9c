/* What goes between tensor-parallel ranks at the borders of attention and MLP: g and its
 * counterpart with sequence parallelism, f and its counterpart without (Korthikanti et al. 2022,
 * figures 4 and 5). Rows outside are [b, r, e], inside [b, R, e], of the storage type. */
#ifndef LS_LAYER_EXCHANGE_H
#define LS_LAYER_EXCHANGE_H

#include "layer/grid.h"
#include "longspan/tensor.h"

struct ls_exchange {
    const struct ls_grid *grid;
    struct ls_queue *queue;
    struct ls_batch batch;
    int64_t b, rows, e; /* rows: of a sequence, inside */
    ls_dtype type;
    void *blocks; /* [t + 1][b, most outer rows, e] where tensors are no such blocks; else NULL */
    struct ls_tensor arriving; /* of what is under way: where it belongs in the end */
    enum { LS_ARRIVES_IN_PLACE, LS_ARRIVES_FROM_ALL, LS_ARRIVES_IN_A_BLOCK } arrives;
};

/* Bytes that it takes, of tag comm. */
size_t ls_exchange_bytes(const struct ls_grid *grid, int64_t b, int64_t rows, int64_t e,
                         ls_dtype type);

/* fini accepts one of zeros, and what init left when it failed. Errors: LS_ENOMEM. */
ls_status ls_exchange_init(struct ls_exchange *out, const struct ls_grid *grid,
                           const struct ls_transport *transport, struct ls_queue *queue, int64_t b,
                           int64_t rows, int64_t e, ls_dtype type);
void ls_exchange_fini(struct ls_exchange *exchange);

/* Rows inside, of all sequences one after the other, of which the linear at the border has its
 * turn. All rows come once, in one piece or several. */
struct ls_exchange_piece {
    int64_t first, count;
    bool is_first;
};

struct ls_exchange_work {
    void (*run)(const void *job, const struct ls_exchange_piece *piece);
    const void *job;
};

/* inside = the rows of all ranks, by all-gather; without sequence parallelism nothing is done, as
 * outside is inside. All tensors are contiguous. One exchange at a time; between start and wait,
 * neither tensor is touched. Collective over the tensor-parallel ranks. Errors: LS_ECOMM. */
ls_status ls_exchange_start_gather(struct ls_exchange *x, const struct ls_tensor *inside,
                                   const struct ls_tensor *outside);

/* outside = the sum of all ranks' `inside`, of which this rank's rows, by reduce-scatter, or all
 * rows, by all-reduce: then inside is where the sum is, too. Parts are rounded already; they are
 * added in f32 in the order of ranks, and rounded once more. */
ls_status ls_exchange_start_sum(struct ls_exchange *x, const struct ls_tensor *outside,
                                const struct ls_tensor *inside);

ls_status ls_exchange_wait(struct ls_exchange *x);

/* The same from start to end, beside the linear that reads what is gathered or writes what is
 * summed. With sequence parallelism, where rows inside are the ranks' rows one after the other (one
 * sequence, which t divides), there is a piece for each rank, and one is computed while another
 * travels: a rank's own comes first where rows are gathered, and last where they are summed. Else
 * all rows are one piece. Bits and bytes sent are the same. parts: as inside, for what comes from
 * other ranks; unused without sequence parallelism. Errors: LS_ECOMM. */
ls_status ls_exchange_gather_beside(struct ls_exchange *x, const struct ls_tensor *inside,
                                    const struct ls_tensor *outside,
                                    const struct ls_exchange_work *work);
ls_status ls_exchange_sum_beside(struct ls_exchange *x, const struct ls_tensor *outside,
                                 const struct ls_tensor *inside, const struct ls_tensor *parts,
                                 const struct ls_exchange_work *work);

#endif
