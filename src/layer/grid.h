/* The ranks of a layer: t tensor-parallel ones, which share heads and columns, times c
 * context-parallel ones, which share the sequence. Rank i is number i % t of the i / t-th group of
 * tensor-parallel ranks. With sequence parallelism these share the rows outside of attention and
 * MLP, as evenly as can be: the first ones have one more. */
#ifndef LS_LAYER_GRID_H
#define LS_LAYER_GRID_H

#include "comm/transport.h"
#include "device/device.h"

struct ls_grid {
    int t, c;
    int tensor, context; /* this rank's number in its two groups */
    bool sp;
    struct ls_comm *all, *tensor_ranks, *context_ranks;
};

/* Collective over comm, whose size is t x c. fini accepts one of zeros, and what init left when it
 * failed. Errors: LS_EVALUE, LS_ENOMEM, LS_ECOMM; the same on every rank. */
ls_status ls_grid_init(struct ls_grid *out, struct ls_comm *comm, int t, int c, bool sp);
void ls_grid_fini(struct ls_grid *grid);

/* The n tensor-parallel ranks after each other of which this is one; n divides t. Collective over
 * all ranks. The caller destroys it, before the grid. Errors: LS_ENOMEM, LS_ECOMM. */
ls_status ls_grid_split(struct ls_comm **out, const struct ls_grid *grid, int n);

/* Of n rows of a part, those of a tensor-parallel rank outside of attention and MLP. */
struct ls_outer_rows {
    int64_t first, count;
};

struct ls_outer_rows ls_grid_outer_rows(const struct ls_grid *grid, int64_t n, int tensor);

#endif
