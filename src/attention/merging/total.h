/* A total of f32 sums to which the parts of a sequence add, one part after the other. Fast mode: a
 * part brings one sum, and they are added as they come. Strict mode: it brings one for each of the
 * largest nodes of the tree over leaf numbers that it holds entirely, and they are added by that
 * tree (forest.h), in whatever order parts come. */
#ifndef LS_ATTENTION_MERGING_TOTAL_H
#define LS_ATTENTION_MERGING_TOTAL_H

#include "attention/gradient.h"
#include "attention/merging/forest.h"

struct ls_total {
    int64_t *first;            /* [parts + 1] part i brings sums [first[i], first[i + 1]) */
    struct ls_leaf_list *node; /* the leaves of each sum, by the rows of its part */
    int64_t slots;             /* sums that wait for others at once */
    int parts;

    struct ls_forest forest; /* strict mode */
    struct ls_leaf *leaf;    /* storage of node, unless that is borrowed */
    float *slot;             /* [slots][floats] */
    int64_t floats;          /* of a sum */
    int64_t added, step;     /* sums, and steps of the forest, so far */
    struct ls_terms whole;   /* partial until the last sum was added; 0 if there is none */
};

/* Rank order[i] holds the i-th part that comes. fini accepts what init left when it failed.
 * Errors: LS_ENOMEM. */
ls_status ls_total_init(struct ls_total *out, const struct ls_layout *layout, const int *order,
                        bool strict);
void ls_total_fini(struct ls_total *total);

/* The same of parts whose leaves are borrowed. */
ls_status ls_total_init_parts(struct ls_total *out, const struct ls_leaf_list *part, int parts,
                              bool strict);

/* Sums that part i brings, and the most that one of the parts behind the first brings. */
int64_t ls_total_sums(const struct ls_total *total, int i);
int64_t ls_total_most_sums(const struct ls_total *total, int p);

/* Starts an execution; the memory [slots][floats] is borrowed until its end. */
void ls_total_begin(struct ls_total *total, float *memory, int64_t floats);

/* Where the next sum may be written, so that adding it need not copy it: `spare`, or the slot in
 * which it is to wait. */
float *ls_total_room(const struct ls_total *total, const struct ls_problem *problem, float *spare);

/* The next sum [floats], or NULL: it is 0. It may be overwritten afterwards, unless it is of the
 * last part: that one may be a term of `whole`. */
void ls_total_add(struct ls_total *total, const struct ls_problem *problem, const float *sum);

#endif
