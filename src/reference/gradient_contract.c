#include "reference/gradient_contract.h"

#include <math.h>

#include "reference/contract.h"
#include "reference/measure.h"

/* The table of docs/NUMERICS.md, its column of gradients. */
struct limits {
    double rel;
    bool rounds;  /* p and ds are rounded to the storage type */
    double eta_p; /* half the smallest subnormal of that type; of bf16, it is next to FLUSHED */
};

/* A number below this may become 0 wherever it stands in a term: exponentials do, and the products
 * and sums of units that know no subnormals. With p lost, a term of dq or dk loses scale slope
 * (dp - delta) k times as much; with ds, k times; with ds k, just so much. */
#define FLUSHED 0x1p-126

static const struct limits table[] = {
    [LS_F32] = {.rel = 4e-6},
    [LS_BF16] = {.rel = 4e-3, .rounds = true},
    [LS_F16] = {.rel = 8e-4, .rounds = true, .eta_p = 0x1p-25},
    [LS_F64] = {.rel = 4e-6},
};

/* The root mean square of a rounding error, over the unit: 1 / sqrt(3) of the last place's half,
 * for numbers whose mantissa is as often near 1 as near 2. */
#define MEAN_ROUNDING 0.425

static double rounding_of_terms(ls_dtype storage)
{
    return table[storage].rounds ? ls_dtype_unit(storage) : 0;
}

/* The element-wise bound on the error of value[e]. There is none where rounding logits and lse may
 * change probabilities by half of what they are: exp is not straight so far. */
static double element_bound(ls_dtype storage, const struct ls_reference_sum *exact, int e)
{
    if (0x1p-24 * exact->strained[e] > 0.5 * exact->majorant[e]) return INFINITY;
    return 2 * rounding_of_terms(storage) * exact->majorant[e] + 0x1p-24 * exact->strained[e] +
           table[storage].eta_p * exact->factors[e] + FLUSHED * exact->flushed[e] +
           ls_dtype_unit(storage) * fabs(exact->value[e]) + ls_dtype_smallest(storage);
}

/* Returns the element's part of row2. */
static double add_element(struct ls_gradient_errors *errors, ls_dtype storage, double error,
                          const struct ls_reference_sum *exact, int e)
{
    const double value = exact->value[e];
    const double spread2 = exact->spread[e] + exact->pulled2 * square(exact->pull[e]);

    errors->diff2 += square(error);
    errors->compared += isfinite(value);
    if (!isfinite(value) || !isfinite(spread2)) return 0;
    errors->norm2 += square(value);
    errors->round2 += square(rounding_error(storage, value));
    errors->spread2 += spread2;
    errors->base2 += exact->base[e];
    return fmax(square(value), spread2);
}

void ls_gradient_errors_init(struct ls_gradient_errors *errors)
{
    *errors = (struct ls_gradient_errors){.worst = {-1, -1, -1, -1}};
}

void ls_gradient_errors_add_row(struct ls_gradient_errors *errors, ls_dtype storage,
                                const double *value, const struct ls_reference_sum *exact, int d,
                                const int64_t where[3])
{
    double row2 = 0;

    for (int e = 0; e < d; e++) {
        double error = distance(value[e], exact->value[e]);

        if (exact->terms == 0 && error > 0) error = INFINITY;
        const double bound = element_bound(storage, exact, e), units = ratio(error, bound);

        errors->unlimited += isfinite(exact->value[e]) && !isfinite(bound);
        if (units > errors->max_units) {
            errors->max_units = units;
            for (int i = 0; i < 3; i++) errors->worst[i] = where[i];
            errors->worst[3] = e;
        }
        row2 += add_element(errors, storage, error, exact, e);
    }
    errors->row2 = fmax(errors->row2, row2);
    if (isfinite(exact->kappa)) errors->kappa = fmax(errors->kappa, exact->kappa);
    errors->rows++;
}

void ls_gradient_errors_merge(struct ls_gradient_errors *errors,
                              const struct ls_gradient_errors *other)
{
    errors->diff2 += other->diff2;
    errors->norm2 += other->norm2;
    errors->round2 += other->round2;
    errors->spread2 += other->spread2;
    errors->base2 += other->base2;
    errors->row2 = fmax(errors->row2, other->row2);
    if (other->max_units > errors->max_units) {
        errors->max_units = other->max_units;
        for (int i = 0; i < 4; i++) errors->worst[i] = other->worst[i];
    }
    errors->kappa = fmax(errors->kappa, other->kappa);
    errors->rows += other->rows;
    errors->compared += other->compared;
    errors->unlimited += other->unlimited;
}

/* The Frobenius norm of the error that a gradient may have. */
static double permitted_error(const struct ls_gradient_errors *errors, ls_dtype storage)
{
    const double f32 = table[LS_F32].rel * fmax(1, errors->kappa / 30);
    const double by_type = table[storage].rounds ? table[storage].rel : f32;
    const double roundings2 =
        square(MEAN_ROUNDING * rounding_of_terms(storage)) * errors->spread2 + errors->round2;
    const double many = fmax(by_type * sqrt(errors->norm2), 1.5 * sqrt(roundings2));

    return sqrt(square(fmax(many, f32 * sqrt(errors->base2))) +
                square(3 * ls_dtype_unit(storage)) * errors->row2);
}

void ls_gradient_errors_judge(struct ls_gradient_verdict *out,
                              const struct ls_gradient_errors *errors, ls_dtype storage,
                              double factor)
{
    const double error = sqrt(errors->diff2), norm = sqrt(errors->norm2);
    const double permitted = factor * permitted_error(errors, storage);
    const char *why =
        ls_contract_why(error <= permitted && errors->max_units <= factor,
                        isfinite(permitted) && errors->unlimited == 0, errors->compared);

    *out = (struct ls_gradient_verdict){
        .ok = !why,
        .why = why,
        .rel = relative(error, norm),
        .rel_limit = relative(permitted, norm),
        .max_units = errors->max_units,
    };
}
