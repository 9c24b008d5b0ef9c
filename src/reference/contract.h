/* The error contract: what a result may differ from the oracle by (docs/NUMERICS.md gives the
 * table and the element-wise bound). Errors are gathered row by row, merged over ranks, judged
 * once. A result is good if all three hold:
 *   element-wise   every error of o is within its bound (units <= 1);
 *   as a whole     the relative Frobenius error of o is within its limit, see ls_errors_judge;
 *   lse            every error is within its row's limit, see ls_lse_limit.
 * The first alone would not do: over many keys the bound is hundreds of times what a good kernel
 * errs by, and a lost key hides in it. Nor is a result good that was held to no finite limit, or of
 * which nothing is finite: what is no number has only to be the same. */
#ifndef LS_REFERENCE_CONTRACT_H
#define LS_REFERENCE_CONTRACT_H

#include "reference/attention.h"

/* Sums and maxima over the rows judged so far; plain numbers, so that ranks can exchange them. */
struct ls_errors {
    double diff2, norm2; /* sums over elements of (o - exact)^2 and exact^2 */
    double round2; /* sum of (round(exact) - exact)^2: the least any result in this type has */
    double
        spread2; /* sum of sum_j (p_j v_j)^2: what exact^2 is where the terms' signs are random */
    double row2; /* largest of the rows: sum over its elements of max(exact^2, spread^2) */
    double max_units; /* largest error / element-wise bound */
    /* of the row whose error of lse is largest by its limit: both, divided by max(1, |lse|) */
    double max_lse, lse_limit;
    double abs_lse; /* largest |lse - exact| */
    double kappa;   /* largest of the rows where it is finite */
    int64_t rows;
    int64_t compared;  /* elements that are finite in the exact o */
    int64_t unlimited; /* of them and of lse, those whose limit is not finite */
    int64_t worst[4];  /* b, position, head, element of max_units; all -1 if no element errs */
};

struct ls_verdict {
    bool ok;
    const char *why;           /* it is not ok; NULL */
    double rel_o, rel_o_limit; /* relative Frobenius error, absolute if the exact o is 0 */
    double max_units;          /* limit: the factor */
    double max_lse, lse_limit; /* of the worst row, divided by max(1, |lse|) */
    double abs_lse;
};

/* Why a result is not good, NULL if it is: whether no error is beyond its limit, whether all limits
 * are finite, and how many finite elements were compared. */
const char *ls_contract_why(bool held, bool limited, int64_t compared);

/* What lse of a row may err by, divided by max(1, |lse|). kappa: the row's largest
 * |scale| sum_e |q_e k_e| over d elements, and what a bias adds to it. */
double ls_lse_limit(ls_dtype storage, int d, double kappa, double lse);

void ls_errors_init(struct ls_errors *errors);

/* Adds one row of a result: o [d_v] and lse as stored (already widened), against the oracle's row,
 * whose scores are sums over d.
 * `where` is {b, position, head}. A NaN or infinity counts as an infinite error unless the oracle
 * has the same there, and so does a value at a row that sees no key unless it is exactly o = 0,
 * lse = -inf. storage is f32, bf16 or f16; f64 is judged as f32, the type of the accumulators. */
void ls_errors_add_row(struct ls_errors *errors, ls_dtype storage, const double *o, double lse,
                       const struct ls_reference_row *exact, int d, int d_v,
                       const int64_t where[3]);

void ls_errors_merge(struct ls_errors *errors, const struct ls_errors *other);

/* factor scales every limit: 1 for a result against the oracle, 2 for two results.
 *
 * The table's rel is relative to the norm of the exact o. Two things are allowed for, both of no
 * effect for N(0,1) inputs and many rows:
 *   - Cancellation. The terms p_j v_j err independently of each other, so o errs in proportion to
 *     sqrt(sum_j (p_j v_j)^2). For random v that is the size of o itself; where o is smaller (a v
 *     of balanced signs under flat p), rel is taken of the spread instead of o.
 *   - Few rows. The table is about the mean over many roundings; one row may err by 3 units of its
 *     storage type, added in quadrature for the largest row. */
void ls_errors_judge(struct ls_verdict *out, const struct ls_errors *errors, ls_dtype storage,
                     double factor);

#endif
