#include "attention/methods/visits.h"

#include <stdlib.h>

#include "attention/leaves.h"
#include "attention/travelling/travel.h"
#include "plan/attention_size.h"

/* Leaves of queries that a step brings together, or one of each rank if there are more ranks. More
 * of them pack the keys less often, measured 4 % of the time with 16, and need more memory. */
#define LEAVES_A_STEP 16

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most_leaves(const struct ls_layout *queries)
{
    return queries->p < LEAVES_A_STEP ? LEAVES_A_STEP / queries->p : 1;
}

int64_t ls_visit_most_rows(const struct ls_layout *queries)
{
    return most_leaves(queries) * LS_LEAF;
}

/* Steps that it takes so many rows of one rank to visit all. */
static int64_t steps_of(const struct ls_layout *queries, int64_t rows)
{
    const int64_t most = ls_visit_most_rows(queries);

    return (rows + most - 1) / most;
}

int64_t ls_visit_steps(const struct ls_layout *queries)
{
    return steps_of(queries, ls_layout_most_rows(queries));
}

int64_t ls_visit_rows(const struct ls_layout *queries, int rank, int64_t step)
{
    const int64_t most = ls_visit_most_rows(queries);
    const int64_t left = ls_layout_part_rows(queries, rank) - step * most;

    return left < 0 ? 0 : smaller(left, most);
}

int64_t ls_visit_all_rows(const struct ls_layout *queries, int64_t step)
{
    int64_t rows = 0;

    for (int r = 0; r < queries->p; r++) rows += ls_visit_rows(queries, r, step);
    return rows;
}

int64_t ls_visits_of(const struct ls_layout *queries, int rank)
{
    return steps_of(queries, ls_layout_part_rows(queries, rank));
}

int64_t ls_visit_count(const struct ls_layout *queries)
{
    int64_t count = 0;

    for (int r = 0; r < queries->p; r++) count += ls_visits_of(queries, r);
    return count;
}

/* One step, its lists at first_row and leaf. */
static struct ls_visit list_step(int64_t *first_row, struct ls_leaf *leaf,
                                 const struct ls_layout *queries, int64_t step)
{
    struct ls_visit visit = {.first_row = first_row, .leaves = {.leaf = leaf}};
    const int64_t first = step * most_leaves(queries);

    first_row[0] = 0;
    for (int r = 0; r < queries->p; r++) {
        const int64_t end =
            smaller(first + most_leaves(queries), ls_layout_part_leaves(queries, r));

        first_row[r + 1] = first_row[r] + ls_visit_rows(queries, r, step);
        for (int64_t i = first; i < end; i++)
            leaf[visit.leaves.count++] =
                (struct ls_leaf){.number = ls_layout_part_leaf(queries, r, i),
                                 .row = first_row[r] + (i - first) * LS_LEAF};
    }
    ls_leaves_sort(leaf, visit.leaves.count);
    return visit;
}

ls_status ls_visits_init(struct ls_visits *out, const struct ls_layout *queries)
{
    const size_t n = (size_t)ls_visit_steps(queries), p = (size_t)queries->p;

    out->p = queries->p;
    out->step = calloc(n + 1, sizeof *out->step);
    out->first_row = calloc((n + 1) * (p + 1), sizeof *out->first_row);
    out->leaf = calloc((size_t)ls_layout_leaves(queries) + 1, sizeof *out->leaf);
    if (!out->step || !out->first_row || !out->leaf)
        return ls_fail(LS_ENOMEM, "visiting queries: out of memory");
    struct ls_leaf *leaf = out->leaf;
    for (size_t i = 0; i < n; i++) {
        out->step[i] = list_step(out->first_row + i * (p + 1), leaf, queries, (int64_t)i);
        leaf += out->step[i].leaves.count;
    }
    return LS_OK;
}

void ls_visits_fini(struct ls_visits *visits)
{
    free(visits->leaf);
    free(visits->first_row);
    free(visits->step);
}

struct ls_row_range ls_visits_range(const struct ls_visits *visits, int64_t step, int rank)
{
    const int64_t *first_row = visits->step[step].first_row;

    return (struct ls_row_range){.first = first_row[rank],
                                 .count = first_row[rank + 1] - first_row[rank],
                                 .of = first_row[visits->p]};
}

void ls_visits_bring(struct ls_batch *batch, const struct ls_visits *visits,
                     const struct ls_attention_plan *plan, int64_t step,
                     const struct ls_tensor *all, const struct ls_tensor *part)
{
    const struct ls_row_range own = ls_visits_range(visits, step, plan->rank);
    const struct ls_tensor from =
        ls_range_of(part, 1, step * ls_visit_most_rows(&plan->problem.q_layout), own.count);
    struct ls_tensor mine = ls_range_of(all, 1, own.first, own.count);

    ls_problem_copy(&plan->problem, &mine, &from);
    for (int r = 0; r < visits->p; r++) {
        const struct ls_row_range range = ls_visits_range(visits, step, r);
        const struct ls_tensor theirs = ls_range_of(all, 1, range.first, range.count);

        if (r == plan->rank) continue;
        if (range.count > 0) ls_batch_receive(batch, theirs.data, ls_travel_bytes(&theirs), r);
        if (own.count > 0) ls_batch_send(batch, mine.data, ls_travel_bytes(&mine), r);
    }
}

void ls_visits_count_back(int64_t *bytes, int64_t *messages, const struct ls_layout *queries,
                          const int64_t *first, int64_t row_bytes)
{
    int64_t senders = 0;

    for (int r = 0; r < queries->p; r++) senders += first[r + 1] > first[r];
    for (int r = 0; r < queries->p; r++) {
        const int64_t own = first[r + 1] - first[r];

        *bytes += (first[queries->p] - own) * ls_layout_part_rows(queries, r) * row_bytes;
        *messages += ls_visits_of(queries, r) * (senders - (own > 0));
    }
}
