/* The error contract of gradients, beside that of o (reference/contract.h). Errors of one of dq, dk
 * and dv are gathered row by row, merged over ranks, judged once. A gradient is good if every error
 * is within its element-wise bound and the relative Frobenius error is within its limit. */
#ifndef LS_REFERENCE_GRADIENT_CONTRACT_H
#define LS_REFERENCE_GRADIENT_CONTRACT_H

#include "reference/gradient.h"

/* Sums and maxima over the rows judged so far; plain numbers, so that ranks can exchange them. */
struct ls_gradient_errors {
    double diff2, norm2; /* sums over elements of (value - exact)^2 and exact^2 */
    double round2;       /* sum of (round(exact) - exact)^2 */
    double spread2;      /* sum of squares of what is rounded to the storage type on the way */
    double base2;        /* sum of squares of terms before they cancel */
    double row2;         /* largest of the rows: sum over its elements of max(exact^2, spread^2) */
    double max_units;    /* largest error / element-wise bound */
    double kappa;        /* largest of the rows where it is finite */
    int64_t rows;
    int64_t compared;  /* elements that are finite in the exact gradient */
    int64_t unlimited; /* of them, those whose bound is not finite */
    int64_t worst[4];  /* b, position, head, element of max_units; all -1 if no element errs */
};

struct ls_gradient_verdict {
    bool ok;
    const char *why;       /* it is not ok; NULL */
    double rel, rel_limit; /* relative Frobenius error, absolute if the exact gradient is 0 */
    double max_units;      /* limit: the factor */
};

void ls_gradient_errors_init(struct ls_gradient_errors *errors);

/* Adds one row, widened, against the oracle's; `where` is {b, position, head}. A row without terms
 * must be exactly 0, and what is no number must be the same in both. storage is f32, bf16 or f16,
 * the type of q, also for dsink, which is stored in f32; f64 is judged as f32. */
void ls_gradient_errors_add_row(struct ls_gradient_errors *errors, ls_dtype storage,
                                const double *value, const struct ls_reference_sum *exact, int d,
                                const int64_t where[3]);

void ls_gradient_errors_merge(struct ls_gradient_errors *errors,
                              const struct ls_gradient_errors *other);

/* factor scales every limit, as in ls_errors_judge. The table's rel is relative to the norm of the
 * exact gradient and speaks of logits of about 1 and rows that see 64 keys or more. Elsewhere more
 * is allowed for, the largest of these:
 *   - 1.5 times what roundings to the storage type amount to: of p and ds where they enter a
 *     product, of the result, and of o where delta is made of it as stored;
 *   - the f32 limit, relative to terms before dp - delta is taken, which may cancel.
 * One row may err by 3 units, added in quadrature for the largest row. */
void ls_gradient_errors_judge(struct ls_gradient_verdict *out,
                              const struct ls_gradient_errors *errors, ls_dtype storage,
                              double factor);

#endif
