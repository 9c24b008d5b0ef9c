/* Which heads a rank computes where heads are dealt to ranks. Pure arithmetic. */
#ifndef LS_PLAN_HEAD_SHARE_H
#define LS_PLAN_HEAD_SHARE_H

#include "longspan/attention.h"

struct ls_head_run {
    int64_t first, count;
};

/* A run of kv heads and of each of them the same number of query heads. Both are empty where there
 * are more ranks than query heads. */
struct ls_head_share {
    struct ls_head_run q, kv;
};

/* With no more ranks than kv heads, ranks get runs of kv heads with all their query heads. With
 * more, kv heads get runs of ranks, each of which has a copy and some of the group's query heads.
 * Where something does not divide evenly, the first ones get one more. */
struct ls_head_share ls_head_share(const struct ls_attention_shape *shape, int p, int rank);

/* Kv heads of all ranks together, copies counted. */
int64_t ls_head_share_copies(const struct ls_attention_shape *shape, int p);

/* The shape of a rank's heads; the smallest, for a kernel's, if it has none. */
struct ls_attention_shape ls_head_share_shape(const struct ls_attention_shape *shape,
                                              const struct ls_head_share *share);

#endif
