#include "reference/gradient.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "reference/measure.h"

/* What a query and a key are to each other. */
struct pair {
    double weight;               /* of dq and dk: scale ds */
    double of_p;                 /* |scale| (drop sum_e |d_o v| + sum_e |d_o o|) */
    double majorant;             /* that times slope p */
    double base2;                /* the square of that, sums taken of squares */
    double pull;                 /* scale slope p */
    double p, dlogit;            /* p (dp - delta) */
    double dlogit_of_p, dlogit2; /* what of_p and base2 are of ds, of dlogit */
    double dropped;              /* drop p */
    double drop;
    double kappa, bias;
    double slope, bend; /* as in struct ls_reference_logit */
    bool unseen;        /* its logit is -inf */
};

LS_CLONED static struct pair meet(const struct ls_reference_backward *row, const double *k,
                                  const double *v, int64_t j, int d, int d_v)
{
    const struct ls_reference_logit logit = ls_reference_logit(&row->query, k, j, d);
    struct pair pair = {.kappa = logit.size + fabs(row->lse),
                        .bias = logit.bias,
                        .slope = logit.slope,
                        .bend = logit.bend};
    double dp = 0, size = 0, squares = 0;

    if (logit.value == -INFINITY) return (struct pair){.unseen = true};
    const double p = exp(logit.value - row->lse);

    for (int e = 0; e < d_v; e++) {
        const double product = row->d_o[e] * v[e];

        dp += product;
        size += fabs(product);
        squares += product * product;
    }
    ls_reference_drop(&pair.drop, &row->query, j, 1);
    pair.p = p;
    pair.dlogit = p * (pair.drop * dp - row->delta);
    pair.dlogit_of_p = pair.drop * size + row->delta_size;
    pair.dlogit2 = square(p) * (square(pair.drop) * squares + row->delta2);
    pair.dropped = pair.drop * p;
    pair.pull = row->query.scores->scale * logit.slope * p;
    pair.weight = pair.pull * (pair.drop * dp - row->delta);
    pair.of_p = fabs((double)row->query.scores->scale) * (pair.drop * size + row->delta_size);
    pair.majorant = logit.slope * p * pair.of_p;
    pair.base2 = square(pair.pull) * (square(pair.drop) * squares + row->delta2);
    return pair;
}

/* Adds a term whose weight is `weight`; majorant and base2 are what its size is without
 * cancellation, fixed that of a rounding to a number of fixed point, of_p that of p's share in
 * weight, spread2 the square of an error besides weight's own. */
struct term {
    double weight, majorant, base2, fixed, of_p, spread2, kappa, bias;
};

/* To element e of a sum. */
static inline void add_to_element(struct ls_reference_sum *restrict sum, int e, double factor,
                                  struct term term)
{
    const double strain = 4 + 8 * (term.kappa + term.bias),
                 spread2 = square(term.weight) + term.spread2, size = fabs(factor);

    sum->value[e] += term.weight * factor;
    sum->majorant[e] += term.majorant * size;
    sum->strained[e] += term.majorant * strain * size;
    sum->factors[e] += term.fixed * size;
    sum->flushed[e] += 1 + (1 + term.of_p) * size;
    sum->spread[e] += spread2 * square(size);
    sum->base[e] += term.base2 * square(size);
}

LS_CLONED static void add_term(struct ls_reference_sum *restrict sum, const double *restrict factor,
                               struct term term, int d)
{
    for (int e = 0; e < d; e++) add_to_element(sum, e, factor[e], term);
    sum->kappa = larger(sum->kappa, term.kappa);
    sum->terms++;
}

void ls_reference_backward_set(struct ls_reference_backward *row, const double *o, double lse,
                               double dlse, int d_v)
{
    row->near = ls_mask_bands(row->query.mask, row->query.position, row->query.position + 1);
    row->lse = lse;
    row->delta = -dlse;
    row->delta_size = fabs(dlse);
    row->delta2 = square(dlse);
    row->d_o_size = 0;
    for (int e = 0; e < d_v; e++) {
        const double product = row->d_o[e] * o[e];

        row->delta += product;
        row->delta_size += fabs(product);
        row->delta2 += square(product);
        row->d_o_size += fabs(row->d_o[e]);
    }
}

static bool sees(const struct ls_reference_backward *row, int64_t j)
{
    for (const struct ls_band *band = row->near.from; band < row->near.to; band++)
        if (ls_band_has(band, row->query.position, j))
            return ls_pair_bits_have(&row->query.mask->bits, row->query.position, j);
    return false;
}

void ls_reference_sum_init(struct ls_reference_sum *sum)
{
    memset(sum, 0, sizeof *sum);
}

/* The term of dq and dk. ds may be a number of fixed point, and o, of which delta is made. What a
 * soft cap bends counts for all terms by as much as it weighs. */
static struct term logit_term(const struct ls_reference_backward *row, const struct pair *pair)
{
    return (struct term){.weight = pair->weight,
                         .majorant = pair->majorant,
                         .base2 = pair->base2,
                         .fixed = fabs((double)row->query.scores->scale) +
                                  fabs(pair->pull) * row->d_o_size,
                         .of_p = pair->of_p,
                         .kappa = pair->kappa + pair->slope * pair->bend,
                         .bias = pair->bias + (1 - pair->slope) * pair->bend};
}

void ls_reference_add_dq(struct ls_reference_sum *dq, const struct ls_reference_backward *row,
                         const double *k, const double *v, int64_t first, int64_t n, int d, int d_v)
{
    if (row->rounded_o) dq->pulled2 = row->delta2;
    for (int64_t j = first; j < first + n; j++, k += d, v += d_v) {
        if (!sees(row, j)) continue;
        const struct pair pair = meet(row, k, v, j, d, d_v);

        if (pair.unseen) continue;
        add_term(dq, k, logit_term(row, &pair), d);
        for (int e = 0; e < d; e++) dq->pull[e] += pair.pull * k[e];
    }
}

void ls_reference_add_dkv(struct ls_reference_sum *dk, struct ls_reference_sum *dv,
                          const struct ls_reference_backward *row, const double *k, const double *v,
                          int64_t j, int d, int d_v)
{
    if (!sees(row, j)) return;
    const struct pair pair = meet(row, k, v, j, d, d_v);

    if (pair.unseen) return;
    struct term term = logit_term(row, &pair);

    if (row->rounded_o) term.spread2 = square(pair.pull) * row->delta2;
    add_term(dk, row->query.q, term, d);
    add_term(dv, row->d_o,
             (struct term){.weight = pair.dropped,
                           .majorant = pair.dropped,
                           .base2 = square(pair.dropped),
                           .fixed = pair.drop,
                           .of_p = pair.drop,
                           .kappa = pair.kappa,
                           .bias = pair.bias},
             d_v);
}

void ls_reference_add_dbias(struct ls_reference_sum *sums, int64_t n,
                            const struct ls_reference_backward *row, const double *k,
                            const double *v, int64_t j, int d, int d_v)
{
    if (!sees(row, j)) return;
    const struct pair pair = meet(row, k, v, j, d, d_v);
    struct ls_reference_sum *sum = &sums[n / LS_REFERENCE_BIASES];

    if (pair.unseen) return;
    add_to_element(sum, (int)(n % LS_REFERENCE_BIASES), 1,
                   (struct term){.weight = pair.dlogit,
                                 .majorant = pair.p * pair.dlogit_of_p,
                                 .of_p = pair.dlogit_of_p,
                                 .base2 = pair.dlogit2,
                                 .spread2 = row->rounded_o ? square(pair.p) * row->delta2 : 0,
                                 .kappa = pair.kappa + pair.bend,
                                 .bias = pair.bias});
    sum->kappa = larger(sum->kappa, pair.kappa);
    sum->terms++;
}

void ls_reference_add_dsink(struct ls_reference_sum *dsink, const struct ls_reference_backward *row)
{
    const double sink = row->query.scores->sinks[row->query.head], one = 1;

    if (sink == -INFINITY || !ls_mask_has(row->query.mask, row->query.position)) return;
    const double p = exp(sink - row->lse);

    add_term(dsink, &one,
             (struct term){.weight = -p * row->delta,
                           .majorant = p * row->delta_size,
                           .of_p = row->delta_size,
                           .base2 = square(p) * row->delta2,
                           .spread2 = row->rounded_o ? square(p) * row->delta2 : 0,
                           .kappa = fabs(sink) + fabs(row->lse)},
             1);
}

void ls_reference_sum_merge(struct ls_reference_sum *sum, const struct ls_reference_sum *other,
                            int d)
{
    for (int e = 0; e < d; e++) {
        sum->value[e] += other->value[e];
        sum->majorant[e] += other->majorant[e];
        sum->strained[e] += other->strained[e];
        sum->factors[e] += other->factors[e];
        sum->flushed[e] += other->flushed[e];
        sum->spread[e] += other->spread[e];
        sum->base[e] += other->base[e];
        sum->pull[e] += other->pull[e];
    }
    sum->pulled2 = larger(sum->pulled2, other->pulled2);
    sum->kappa = larger(sum->kappa, other->kappa);
    sum->terms += other->terms;
}
