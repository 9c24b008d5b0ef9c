/* How far the queries of a rank see: the leaves of keys that one of them sees any key of. Pure
 * arithmetic, the same on every rank. */
#ifndef LS_ATTENTION_METHODS_REACH_H
#define LS_ATTENTION_METHODS_REACH_H

#include "attention/method.h"

/* seen [leaves of the keys] = whether a query of this rank sees a key of the leaf. */
void ls_reach_mark(bool *seen, const struct ls_problem *problem, int rank);

/* The leaves of owner's part that are marked, by the rows of that part; adds them to list at
 * *count. Returns their rows. */
int64_t ls_reach_append(struct ls_leaf *list, int64_t *count, const struct ls_problem *problem,
                        int owner, const bool *seen);

#endif
