/* Which queries visit all ranks in which step: of every rank the next few leaves of its part. */
#ifndef LS_ATTENTION_METHODS_VISITS_H
#define LS_ATTENTION_METHODS_VISITS_H

#include "attention/merging/states.h"
#include "attention/plan.h"

int64_t ls_visit_steps(const struct ls_layout *queries);

/* Rows that a rank with enough of them brings to a step: rank's row i visits in step i / this. */
int64_t ls_visit_most_rows(const struct ls_layout *queries);

/* Rows that a rank, and that all ranks, bring to a step; never more than to an earlier step. */
int64_t ls_visit_rows(const struct ls_layout *queries, int rank, int64_t step);
int64_t ls_visit_all_rows(const struct ls_layout *queries, int64_t step);

/* Steps to which a rank brings rows, and those added up over ranks. */
int64_t ls_visits_of(const struct ls_layout *queries, int rank);
int64_t ls_visit_count(const struct ls_layout *queries);

/* The queries of one step, rank after rank: those of rank r are rows [first_row[r],
 * first_row[r + 1]). */
struct ls_visit {
    const int64_t *first_row; /* [p + 1] */
    struct ls_leaf_list leaves;
};

struct ls_visits {
    int p;
    struct ls_visit *step; /* [ls_visit_steps] */
    int64_t *first_row;    /* storage of every step's */
    struct ls_leaf *leaf;  /* storage of every step's leaves */
};

/* fini accepts what init left when it failed. Errors: LS_ENOMEM. */
ls_status ls_visits_init(struct ls_visits *out, const struct ls_layout *queries);
void ls_visits_fini(struct ls_visits *visits);

/* A rank's rows among those of a step. */
struct ls_row_range ls_visits_range(const struct ls_visits *visits, int64_t step, int rank);

/* Adds to a batch what a tensor of a step needs, of which `all` has room for every rank's rows and
 * `part` has all of this rank's: its own are put in place and go to the others, theirs come. */
void ls_visits_bring(struct ls_batch *batch, const struct ls_visits *visits,
                     const struct ls_attention_plan *plan, int64_t step,
                     const struct ls_tensor *all, const struct ls_tensor *part);

/* Adds what goes back to the owners of all rows, where rank r finds first[r + 1] - first[r] results
 * of so many bytes for each row. */
void ls_visits_count_back(int64_t *bytes, int64_t *messages, const struct ls_layout *queries,
                          const int64_t *first, int64_t row_bytes);

#endif
