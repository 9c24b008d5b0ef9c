/* Where the rows of a rank lie in a whole tensor: runs of contiguous elements. */
#ifndef LS_STORE_ORDER_H
#define LS_STORE_ORDER_H

#include "base/status.h"
#include "longspan/store.h"

/* A tensor as `outer` blocks of s positions of `row` contiguous elements. */
struct ls_blocks {
    int64_t outer, s, row;
};

struct ls_blocks ls_blocks_of(ls_order order, int64_t b, int64_t s, int64_t h, int64_t d);

/* Contiguous elements that belong to one leaf: where they are in the whole tensor and in the part
 * of a rank. */
struct ls_run {
    int64_t global, local, n;
};

int64_t ls_blocks_runs(const struct ls_blocks *blocks, const struct ls_layout *layout, int rank);
struct ls_run ls_blocks_run(const struct ls_blocks *blocks, const struct ls_layout *layout,
                            int rank, int64_t i);

/* Whether a rank's part is laid out as `wanted`. Errors: LS_ESHAPE, LS_EVALUE; what it is called
 * heads the message. */
ls_status ls_part_check(const struct ls_tensor *part, const struct ls_tensor *wanted,
                        const char *name);

/* Whether a layout is of these ranks. Errors: LS_ESHAPE. */
ls_status ls_part_layout_check(const struct ls_layout *layout, const struct ls_comm *comm);

#endif
