/* How the results of the parts of the keys, which come one after the other, are merged. Fast mode:
 * as they come. Strict mode: by the binary tree over leaf numbers, whichever rank holds which
 * leaves and in whatever order they come. A node (level, i) of the tree covers leaves [i 2^level,
 * (i+1) 2^level) as far as there are any; a part is cut into the largest nodes that it holds
 * entirely, and a node waits in a slot until its other half is there. Leaves that no part brings,
 * since nobody sees them, are not there at all: where one half of a node has none, the other half
 * is the node. What happens when is the same in every execution, so it is a list, made with the
 * plan. */
#ifndef LS_ATTENTION_MERGING_FOREST_H
#define LS_ATTENTION_MERGING_FOREST_H

#include "device/attention.h"

typedef enum {
    LS_NODE_ALONE,  /* nothing to merge with: the slot is written */
    LS_NODE_AFTER,  /* merged with what is in the slot, which comes before it */
    LS_NODE_BEFORE, /* the same, which comes after it */
    LS_NODE_MERGE,  /* no keys: slot `from` is merged into `slot`, which comes before it */
} ls_node_join;

struct ls_forest_step {
    int part;             /* when this part of the keys is there */
    int64_t first, count; /* leaves of that part, by position */
    int slot;             /* -1: the result is whole and was never in a slot */
    ls_node_join join;
    int from;
    bool whole; /* the result is that of all keys */
};

struct ls_forest {
    struct ls_forest_step *step;
    int64_t steps;
    int slots; /* states that can wait at once */
    int *kept; /* [kept_count] slots of what an open forest leaves, by leaf number */
    int kept_count;
};

/* Parts [p] of the keys come in the order of the array. What one step brings are leaves one after
 * the other. The last step is whole. The caller calls fini. Errors: LS_ENOMEM. */
ls_status ls_forest_init(struct ls_forest *out, const struct ls_leaf_list *part, int p,
                         bool strict);

/* Open: parts of which more will be made, elsewhere. They need not hold all leaves of the sequence,
 * every step that is no LS_NODE_MERGE brings a result, none is whole, and what there is in the end
 * stays in its slots: in strict mode the largest nodes of all parts together. */
ls_status ls_forest_init_open(struct ls_forest *out, const struct ls_leaf_list *part, int p,
                              bool strict, int64_t leaves);
void ls_forest_fini(struct ls_forest *forest);

/* Into how many nodes a list is cut, of a sequence of so many leaves. */
int64_t ls_forest_nodes(const struct ls_leaf_list *list, int64_t leaves);

#endif
