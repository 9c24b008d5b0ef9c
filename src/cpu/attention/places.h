/* Which places of a call's list of keys hold leaves that a leaf of queries sees. */
#ifndef LS_CPU_ATTENTION_PLACES_H
#define LS_CPU_ATTENTION_PLACES_H

#include "device/attention.h"

/* Places from `place` on of leaves of which one of `rows` queries of the leaf sees a key, as far as
 * they follow each other: the next run of them; behind the last one it is empty, at keys->count. */
struct ls_range cpu_seen_places(const struct ls_mask *mask, const struct ls_leaf *queries, int rows,
                                const struct ls_leaf_list *keys, int64_t place);

#endif
