/* Leaves dealt to ranks by the work that each one is: what the balanced layout is made of. Every
 * leaf in turn, the heaviest first, goes to the rank that has least to do yet (of equals to the one
 * with fewest leaves, then to the first), so that ranks differ by about one leaf's work. Leaves
 * without work go where leaves are fewest. Pure arithmetic, the same on every rank.
 * Source: Graham 1969, "Bounds on multiprocessing timing anomalies" (longest processing time). */
#ifndef LS_TENSOR_DEALING_H
#define LS_TENSOR_DEALING_H

#include <stdint.h>

#include "longspan/status.h"

struct ls_dealing {
    int64_t *first; /* [p + 1] where a rank's leaves begin in `leaf` */
    int64_t *leaf;  /* rank after rank, increasing within a rank */
    int last;       /* the rank that holds the last leaf of the sequence; -1: none */
};

/* work [leaves], each >= 0. The caller destroys it. Errors: LS_ENOMEM. */
ls_status ls_dealing_create(struct ls_dealing **out, const int64_t *work, int64_t leaves, int p);

/* Accepts NULL. */
void ls_dealing_destroy(struct ls_dealing *dealing);

#endif
