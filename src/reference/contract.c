#include "reference/contract.h"

#include <math.h>

#include "reference/measure.h"

/* The table of docs/NUMERICS.md, forward columns; the f32 limit of o grows with kappa / 30. */
struct limits {
    double rel_o;
    double lse;    /* of an element, beside what ls_lse_limit adds for large logits */
    bool rounds_p; /* probabilities are rounded to the storage type */
    double eta_p;  /* half the smallest subnormal of the type of P, or what becomes 0 */
};

/* Exponentials below this are 0. */
#define NO_P 0x1p-126

static const struct limits table[] = {
    [LS_F32] = {.rel_o = 2e-6, .lse = 1e-6, .eta_p = NO_P},
    [LS_BF16] = {.rel_o = 3e-3, .lse = 2e-5, .rounds_p = true, .eta_p = NO_P},
    [LS_F16] = {.rel_o = 5e-4, .lse = 2e-5, .rounds_p = true, .eta_p = 0x1p-25},
    [LS_F64] = {.rel_o = 2e-6, .lse = 1e-6, .eta_p = NO_P},
};

/* What rounding logits of the size of ALiBi's share, or of a sink, does to the probabilities: keys
 * count as much as they weigh, for a far key with a large bias has next to no weight. */
static double mean_bias(const struct ls_reference_row *row)
{
    return row->bias > 0 ? row->bias / row->l : 0;
}

static double logit_size(const struct ls_reference_row *row)
{
    return row->kappa + mean_bias(row);
}

const char *ls_contract_why(bool held, bool limited, int64_t compared)
{
    if (!held) return "an error is beyond its limit";
    if (compared == 0) return "nothing finite was compared";
    return limited ? NULL : "the limit is infinite";
}

/* Every type has f32 accumulators, u = 2^-24. lse is a mean of logits by their weights plus what
 * depends on weights alone, so it errs by what one logit does, however many there are:
 *   sqrt(d) kappa u   a dot product of d terms, in any order: each of d - 1 sums is at most
 *                     sum_e |q_e k_e| and errs by u of itself, in either direction
 *   2 kappa u         the factor scale log2(e), rounded, and its product
 *   2 u               exponentials, their sum and its logarithm
 * What is left, lse's own rounding among it, is in proportion to lse and within the table's limit.
 * The worst that was seen, half of this, are products that are positive in the first half of d and
 * negative in the second. */
double ls_lse_limit(ls_dtype storage, int d, double kappa, double lse)
{
    const double limit = (2 + (2 + sqrt(d)) * kappa) * 0x1p-24;

    return fmax(table[storage].lse, limit / fmax(1, fabs(lse)));
}

/* The element-wise bound on the error of o[e], whose exact value is given. */
static double element_bound(ls_dtype storage, const struct ls_reference_row *row, int e,
                            double exact)
{
    const double u = ls_dtype_unit(storage), u_p = table[storage].rounds_p ? u : 0;

    const double growth = 4 + 8 * logit_size(row);

    return ((2 * u_p + growth * 0x1p-24) * row->majorant[e] + 8 * 0x1p-24 * row->biased[e]) /
               row->l +
           table[storage].eta_p * row->v_abs[e] + u * fabs(exact) + ls_dtype_smallest(storage);
}

/* Keeps an error of lse and its limit if it is the worst so far; of equals, the smaller limit. */
static void keep_worse_lse(struct ls_errors *errors, double error, double limit)
{
    const double units = ratio(error, limit), worst = ratio(errors->max_lse, errors->lse_limit);

    if (units < worst || (units == worst && limit >= errors->lse_limit)) return;
    errors->max_lse = error;
    errors->lse_limit = limit;
}

static void add_lse(struct ls_errors *errors, ls_dtype storage, double lse,
                    const struct ls_reference_row *row, double exact, int d)
{
    const double error = distance(lse, exact);
    /* what is no number allows no error */
    const double kappa = isfinite(exact) ? logit_size(row) : 0;
    const double limit = ls_lse_limit(storage, d, kappa, exact);

    errors->abs_lse = fmax(errors->abs_lse, error);
    keep_worse_lse(errors, ratio(error, fmax(1, fabs(exact))), limit);
    errors->unlimited += !isfinite(limit);
}

/* Returns the element's part of row2. */
static double add_element(struct ls_errors *errors, ls_dtype storage, double error, double exact,
                          double spread2)
{
    errors->diff2 += square(error);
    errors->compared += isfinite(exact);
    if (!isfinite(exact) || !isfinite(spread2)) return 0;
    errors->norm2 += square(exact);
    errors->round2 += square(rounding_error(storage, exact));
    errors->spread2 += spread2;
    return fmax(square(exact), spread2);
}

void ls_errors_init(struct ls_errors *errors)
{
    *errors = (struct ls_errors){.lse_limit = INFINITY, .worst = {-1, -1, -1, -1}};
}

void ls_errors_add_row(struct ls_errors *errors, ls_dtype storage, const double *o, double lse,
                       const struct ls_reference_row *exact, int d, int d_v, const int64_t where[3])
{
    const bool empty = exact->m == -INFINITY;
    double exact_o[LS_MAX_HEAD_DIM], exact_lse, row2 = 0;

    ls_reference_row_finish(exact_o, &exact_lse, exact, d_v);
    add_lse(errors, storage, lse, exact, exact_lse, d);
    for (int e = 0; e < d_v; e++) {
        double error = distance(o[e], exact_o[e]);

        if (empty && error > 0) error = INFINITY;
        const double bound = empty ? 0 : element_bound(storage, exact, e, exact_o[e]);
        const double units = ratio(error, bound);

        errors->unlimited += isfinite(exact_o[e]) && !isfinite(bound);
        if (units > errors->max_units) {
            errors->max_units = units;
            for (int i = 0; i < 3; i++) errors->worst[i] = where[i];
            errors->worst[3] = e;
        }
        row2 += add_element(errors, storage, error, exact_o[e],
                            empty ? 0 : exact->spread[e] / square(exact->l));
    }
    errors->row2 = fmax(errors->row2, row2);
    /* a row of infinite scores is NaN, which nothing but NaN matches; limits are for the others */
    const double kappa = logit_size(exact);

    if (isfinite(kappa)) errors->kappa = fmax(errors->kappa, kappa);
    errors->rows++;
}

void ls_errors_merge(struct ls_errors *errors, const struct ls_errors *other)
{
    errors->diff2 += other->diff2;
    errors->norm2 += other->norm2;
    errors->round2 += other->round2;
    errors->spread2 += other->spread2;
    errors->row2 = fmax(errors->row2, other->row2);
    if (other->max_units > errors->max_units) {
        errors->max_units = other->max_units;
        for (int i = 0; i < 4; i++) errors->worst[i] = other->worst[i];
    }
    keep_worse_lse(errors, other->max_lse, other->lse_limit);
    errors->abs_lse = fmax(errors->abs_lse, other->abs_lse);
    errors->kappa = fmax(errors->kappa, other->kappa);
    errors->rows += other->rows;
    errors->compared += other->compared;
    errors->unlimited += other->unlimited;
}

/* The Frobenius norm of the error that o may have. */
static double permitted_error(const struct ls_errors *errors, ls_dtype storage)
{
    const double growth = fmax(1, errors->kappa / 30);
    const double size2 = fmax(errors->norm2, errors->spread2);
    const double by_type = table[storage].rel_o * (table[storage].rounds_p ? 1 : growth);
    const double many = fmax(by_type * sqrt(size2), 1.3 * sqrt(errors->round2));

    return sqrt(square(many) + square(3 * ls_dtype_unit(storage)) * errors->row2);
}

void ls_errors_judge(struct ls_verdict *out, const struct ls_errors *errors, ls_dtype storage,
                     double factor)
{
    const double error = sqrt(errors->diff2), norm = sqrt(errors->norm2);
    const double permitted = factor * permitted_error(errors, storage);
    const char *why =
        ls_contract_why(error <= permitted && errors->max_units <= factor &&
                            ratio(errors->max_lse, errors->lse_limit) <= factor,
                        isfinite(permitted) && errors->unlimited == 0, errors->compared);

    *out = (struct ls_verdict){
        .ok = !why,
        .why = why,
        .rel_o = relative(error, norm),
        .rel_o_limit = relative(permitted, norm),
        .max_units = errors->max_units,
        .max_lse = errors->max_lse,
        .lse_limit = factor * errors->lse_limit,
        .abs_lse = errors->abs_lse,
    };
}
