/* What the tests of the oracle share. */
#ifndef TESTS_REFERENCE_PLAIN_H
#define TESTS_REFERENCE_PLAIN_H

#include "../tensor/masks.h"
#include "reference/attention.h"

/* Shows a row n keys that it sees all of, k [n, d] and v [n, d_v], whose logits are scale q.k. */
static inline void add_plain(struct ls_reference_row *row, const double *q, const double *k,
                             const double *v, int64_t n, int d, int d_v, double scale)
{
    const struct ls_mask mask = full_mask(1, n);
    const struct ls_scores scores = {.scale = (float)scale, .heads = 1};
    const struct ls_reference_query query = {.q = q, .mask = &mask, .scores = &scores};

    ls_reference_row_add(row, &query, k, v, 0, n, d, d_v);
}

#endif
