#include "reference/attention.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "reference/measure.h"

/* Interleaved sums of a dot product: a compiler may not reorder one sum. */
enum { LANES = 8 };
typedef double lanes
    __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double)), may_alias));
typedef int64_t lane_bits __attribute__((vector_size(LANES * sizeof(double))));

/* *dot = sum_e q_e k_e, *size = sum_e |q_e k_e|. */
LS_CLONED static void multiply(double *dot, double *size, const double *q, const double *k, int d)
{
    const int whole = d - d % LANES;
    double sum = 0, sum_of_sizes = 0;
    lanes dots = {0}, sizes = {0};

    for (int e = 0; e < whole; e += LANES) {
        const lanes product = *(const lanes *)(q + e) * *(const lanes *)(k + e);

        dots += product;
        sizes += (lanes)((lane_bits)product & INT64_MAX); /* without their signs */
    }
    for (int c = 0; c < LANES; c++) {
        sum += dots[c];
        sum_of_sizes += sizes[c];
    }
    for (int e = whole; e < d; e++) {
        sum += q[e] * k[e];
        sum_of_sizes += fabs(q[e] * k[e]);
    }
    *dot = sum;
    *size = sum_of_sizes;
}

/* Makes top, which is not less than m, the number that the exponentials are taken relative to. */
static void rescale(struct ls_reference_row *row, double top, int d_v)
{
    const double weight = exp(row->m - top);

    row->m = top;
    row->l *= weight;
    row->bias *= weight;
    for (int e = 0; e < d_v; e++) {
        row->acc[e] *= weight;
        row->majorant[e] *= weight;
        row->biased[e] *= weight;
        row->spread[e] *= weight * weight;
    }
}

int64_t ls_reference_distance(const struct ls_reference_query *query, int64_t j)
{
    const int64_t most = query->scores->distances / 2;
    const int64_t from_query = j - ls_mask_place(query->mask, query->position);

    if (from_query < -most) return 0;
    return from_query > most ? 2 * most : most + from_query;
}

struct ls_reference_logit ls_reference_logit(const struct ls_reference_query *query,
                                             const double *k, int64_t j, int d)
{
    const struct ls_scores *scores = query->scores;
    const double cap = scores->soft_cap;
    struct ls_reference_logit logit = {.slope = 1};
    double dot;

    multiply(&dot, &logit.size, query->q, k, d);
    logit.size *= fabs((double)scores->scale);
    logit.value = scores->scale * dot;
    if (cap > 0) {
        const double part = logit.value / cap;

        logit.value = cap * tanh(part);
        logit.slope = 1 / square(cosh(part)); /* 1 - tanh^2, which would cancel */
        logit.bend = 2 * fabs(tanh(part)) * logit.size / cap;
    }
    if (scores->alibi) {
        const double distance = fabs((double)(ls_mask_place(query->mask, query->position) - j));

        logit.value -= scores->alibi[query->head] * distance;
        logit.bias = fabs(scores->alibi[query->head] * distance);
    }
    if (scores->distance_bias) {
        const double bias =
            scores
                ->distance_bias[query->head * scores->distances + ls_reference_distance(query, j)];

        logit.value += bias;
        logit.bias += fabs(bias);
    }
    if (scores->bias) {
        const double bias = ls_pair_biases(scores, query->batch, query->head, query->position)[j];

        logit.value += bias;
        logit.bias += fabs(bias);
    }
    return logit;
}

/* A key of this weight, exp(logit - m), whose value is multiplied by factor. */
LS_CLONED static void add_value(struct ls_reference_row *restrict row, const double *restrict v,
                                double weight, double bias, double factor, int d_v)
{
    row->l += weight;
    row->bias += weight * bias;
    if (factor == 0) return;
    for (int e = 0; e < d_v; e++) {
        const double term = weight * factor * v[e];

        row->acc[e] += term;
        row->majorant[e] += fabs(term);
        row->biased[e] += fabs(term) * bias;
        row->spread[e] += term * term;
        row->v_abs[e] += fabs(factor * v[e]);
    }
}

void ls_reference_drop(double *factor, const struct ls_reference_query *query, int64_t first, int n)
{
    const struct ls_scores *scores = query->scores;
    const int skipped = (int)(first % 4); /* dropout is asked for from a multiple of 4 on */
    bool kept[LS_REFERENCE_BLOCK + 4];

    if (scores->dropout > 0)
        ls_dropout_kept(kept, scores, query->batch, query->head, query->position, first - skipped,
                        skipped + n);
    for (int j = 0; j < n; j++)
        factor[j] = scores->dropout == 0 ? 1
                    : kept[skipped + j]  ? 1 / (1 - (double)scores->dropout)
                                         : 0;
}

/* Adds keys first to first + n - 1, at most LS_REFERENCE_BLOCK, all of them seen. */
static void add_block(struct ls_reference_row *row, const struct ls_reference_query *query,
                      const double *k, const double *v, int64_t first, int n, int d, int d_v)
{
    struct ls_reference_logit logit[LS_REFERENCE_BLOCK];
    double factor[LS_REFERENCE_BLOCK], top = row->m;

    ls_reference_drop(factor, query, first, n);
    for (int j = 0; j < n; j++) {
        logit[j] = ls_reference_logit(query, k + (int64_t)j * d, first + j, d);
        if (logit[j].value == -INFINITY) continue;
        top = larger(top, logit[j].value);
        row->kappa = larger(row->kappa, logit[j].size);
    }
    if (top == -INFINITY) return;
    rescale(row, top, d_v);
    for (int j = 0; j < n; j++)
        if (logit[j].value != -INFINITY)
            add_value(row, v + (int64_t)j * d_v, exp(logit[j].value - top), logit[j].bias,
                      factor[j], d_v);
}

/* Adds those of keys [first, first + n) that are seen. */
static void add_run(struct ls_reference_row *row, const struct ls_reference_query *query,
                    const double *k, const double *v, int64_t first, int64_t n,
                    struct ls_range seen, int d, int d_v)
{
    const struct ls_pair_bits *bits = &query->mask->bits;
    const int64_t begin = seen.from > first ? seen.from : first;
    const int64_t end = seen.to < first + n ? seen.to : first + n;

    for (int64_t j = begin, to; j < end; j = to) {
        const int64_t limit = end - j < LS_REFERENCE_BLOCK ? end : j + LS_REFERENCE_BLOCK;

        to = ls_pair_bits_next(bits, query->position, j, limit, false);
        if (to > j)
            add_block(row, query, k + (j - first) * d, v + (j - first) * d_v, j, (int)(to - j), d,
                      d_v);
        to = ls_pair_bits_next(bits, query->position, to, end, true);
    }
}

void ls_reference_row_init(struct ls_reference_row *row)
{
    memset(row, 0, sizeof *row);
    row->m = -INFINITY;
}

void ls_reference_row_add(struct ls_reference_row *row, const struct ls_reference_query *query,
                          const double *k, const double *v, int64_t first, int64_t n, int d,
                          int d_v)
{
    const int64_t i = query->position;
    const struct ls_bands near = ls_mask_bands(query->mask, i, i + 1);

    for (const struct ls_band *band = near.from; band < near.to; band++)
        add_run(row, query, k, v, first, n, ls_band_keys(band, i, i + 1), d, d_v);
}

void ls_reference_row_add_sink(struct ls_reference_row *row, const struct ls_reference_query *query,
                               int d_v)
{
    if (!query->scores->sinks || !ls_mask_has(query->mask, query->position)) return;
    const double sink = query->scores->sinks[query->head];

    if (sink == -INFINITY) return;
    rescale(row, larger(row->m, sink), d_v);
    add_value(row, NULL, exp(sink - row->m), fabs(sink), 0, d_v);
}

void ls_reference_row_merge(struct ls_reference_row *row, const struct ls_reference_row *other,
                            int d_v)
{
    if (other->m == -INFINITY) return;
    if (row->m == -INFINITY) {
        *row = *other;
        return;
    }
    const double top = larger(row->m, other->m), weight = exp(other->m - top);

    rescale(row, top, d_v);
    row->l += weight * other->l;
    row->bias += weight * other->bias;
    row->kappa = larger(row->kappa, other->kappa);
    for (int e = 0; e < d_v; e++) {
        row->acc[e] += weight * other->acc[e];
        row->majorant[e] += weight * other->majorant[e];
        row->biased[e] += weight * other->biased[e];
        row->spread[e] += weight * weight * other->spread[e];
        row->v_abs[e] += other->v_abs[e];
    }
}

void ls_reference_row_finish(double *o, double *lse, const struct ls_reference_row *row, int d_v)
{
    const bool empty = row->m == -INFINITY;

    for (int e = 0; e < d_v; e++) o[e] = empty ? 0 : row->acc[e] / row->l;
    *lse = empty ? -INFINITY : row->m + log(row->l);
}
