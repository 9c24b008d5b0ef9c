/* Which positions of a sequence each rank holds. Pure arithmetic, the same on every rank. */
#ifndef LONGSPAN_LAYOUT_H
#define LONGSPAN_LAYOUT_H

#include <stdint.h>

#include "longspan/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Positions are cut into leaves of 256, the unit that layouts deal and sums are built from. */
#define LS_LEAF 256

typedef enum {
    LS_LAYOUT_AUTO = 0,   /* the plan chooses; never in a struct ls_layout */
    LS_LAYOUT_CONTIGUOUS, /* rank r holds the r-th run of leaves */
    LS_LAYOUT_ZIGZAG,     /* 2p runs; rank r holds runs r and 2p - 1 - r: even causal work */
    LS_LAYOUT_STRIPED,    /* rank r holds leaves r, r + p, r + 2p, ... */
    LS_LAYOUT_BALANCED,   /* leaves are dealt by the work that their queries are under the mask */
} ls_layout_kind;

struct ls_dealing; /* which leaves each rank holds */

struct ls_layout {
    ls_layout_kind kind;
    int64_t s;                        /* positions of the whole sequence */
    int p;                            /* ranks */
    const struct ls_dealing *dealing; /* balanced: the plan's, as long as that lives; else NULL */
};

/* Number of leaves of the whole sequence, and of rank's part (which may be empty). */
LS_API int64_t ls_layout_leaves(const struct ls_layout *layout);
LS_API int64_t ls_layout_part_leaves(const struct ls_layout *layout, int rank);

/* Global number of the i-th leaf of rank's part; increasing in i. The i-th leaf is stored in the
 * part's rows [256 i, 256 i + ls_leaf_rows): only the last leaf of the sequence can be short, and
 * it is the last one of its part. */
LS_API int64_t ls_layout_part_leaf(const struct ls_layout *layout, int rank, int64_t i);

/* Rows (positions) of the given global leaf, and of rank's whole part. */
LS_API int64_t ls_layout_leaf_rows(const struct ls_layout *layout, int64_t leaf);
LS_API int64_t ls_layout_part_rows(const struct ls_layout *layout, int rank);

/* Global position of a local row of rank's part. */
LS_API int64_t ls_layout_position(const struct ls_layout *layout, int rank, int64_t row);

LS_API const char *ls_layout_name(ls_layout_kind kind);

#ifdef __cplusplus
}
#endif
#endif
