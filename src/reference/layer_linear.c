#include "reference/layer_linear.h"

#include <stdlib.h>
#include <string.h>

#include "reference/layer_core.h"

static double rounded(const struct ls_reference_ranks *ranks, double value)
{
    return ls_reference_rounded(ranks->type, value);
}

void ls_reference_store(const struct ls_reference_ranks *ranks, double *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++) values[i] = rounded(ranks, values[i]);
}

/* ---- columns */

static bool create_columns(struct ls_reference_columns *out, int64_t count)
{
    *out = (struct ls_reference_columns){.count = count,
                                         .owner = calloc((size_t)count, sizeof *out->owner),
                                         .row = calloc((size_t)count, sizeof *out->row)};
    return out->owner && out->row;
}

bool ls_reference_columns_of_heads(struct ls_reference_columns *out, const struct ls_layer_shape *n,
                                   int64_t kv, int64_t ranks)
{
    const int64_t q = n->h * n->d, k = kv * n->d;

    if (!create_columns(out, q + 2 * k)) return false;
    for (int64_t i = 0; i < out->count; i++) {
        const int64_t at = i < q ? i : (i - q) % k, head = at / n->d / (kv / n->h_kv);
        const int64_t first = i < q + k ? q : q + n->h_kv * n->d;

        out->owner[i] = (int)(at / ((i < q ? q : k) / ranks));
        out->row[i] = i < q ? i : first + head * n->d + at % n->d;
    }
    return true;
}

bool ls_reference_columns_of_mlp(struct ls_reference_columns *out, int64_t f, bool gated,
                                 int64_t ranks)
{
    if (!create_columns(out, gated ? 2 * f : f)) return false;
    for (int64_t i = 0; i < out->count; i++) {
        out->owner[i] = (int)(i % f / (f / ranks));
        out->row[i] = i;
    }
    return true;
}

void ls_reference_columns_destroy(struct ls_reference_columns *columns)
{
    free(columns->owner);
    free(columns->row);
}

/* ---- forward */

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

void ls_reference_column_parallel(double *y, const struct ls_reference_ranks *ranks,
                                  const double *x, const double *w, const double *bias, int64_t in,
                                  const struct ls_reference_columns *columns)
{
    for (int64_t r = 0; r < ranks->rows; r++)
        for (int64_t j = 0; j < columns->count; j++) {
            const int64_t of = columns->row[j];

            y[r * columns->count + j] = dot(x + r * in, w + of * in, in) + (bias ? bias[of] : 0);
        }
    ls_reference_store(ranks, y, ranks->rows * columns->count);
}

void ls_reference_row_parallel(double *y, const struct ls_reference_ranks *ranks, const double *x,
                               const double *w, const double *bias, int64_t in, int64_t out)
{
    const int64_t run = in / ranks->count;

    for (int64_t r = 0; r < ranks->rows; r++)
        for (int64_t j = 0; j < out; j++) {
            double all = 0;

            for (int64_t k = 0; k < in; k += run)
                all += rounded(ranks, dot(x + r * in + k, w + j * in + k, run) +
                                          (bias && k == 0 ? bias[j] : 0));
            y[r * out + j] = all;
        }
    ls_reference_store(ranks, y, ranks->rows * out);
}

/* ---- backward */

void ls_reference_weight_gradient(double *dw, double *dbias, const struct ls_reference_ranks *ranks,
                                  const double *dy, const double *x, int64_t in, int64_t out,
                                  const struct ls_reference_columns *columns)
{
    for (int64_t r = 0; r < ranks->rows; r++)
        for (int64_t j = 0; j < out; j++) {
            const int64_t of = columns ? columns->row[j] : j;

            if (dbias) dbias[of] += dy[r * out + j];
            for (int64_t k = 0; k < in; k++) dw[of * in + k] += dy[r * out + j] * x[r * in + k];
        }
}

static void add_times(double *to, double factor, const double *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++) to[i] += factor * from[i];
}

void ls_reference_row_parallel_dx(double *dx, const struct ls_reference_ranks *ranks,
                                  const double *dy, const double *w, int64_t in, int64_t out)
{
    memset(dx, 0, (size_t)(ranks->rows * in) * sizeof *dx);
    for (int64_t r = 0; r < ranks->rows; r++)
        for (int64_t j = 0; j < out; j++) add_times(dx + r * in, dy[r * out + j], w + j * in, in);
    ls_reference_store(ranks, dx, ranks->rows * in);
}

/* sum [in] = row r of what a rank has of dy, times w. */
static void rank_dx(double *sum, const struct ls_reference_branch *b, int64_t r, int64_t in,
                    int rank)
{
    const struct ls_reference_columns *columns = b->columns;
    const double *dy = b->dy + r * columns->count;

    memset(sum, 0, (size_t)in * sizeof *sum);
    for (int64_t j = 0; j < columns->count; j++)
        if (columns->owner[j] == rank) add_times(sum, dy[j], b->w + columns->row[j] * in, in);
}

void ls_reference_column_parallel_dx(double *dx, const struct ls_reference_ranks *ranks,
                                     const struct ls_reference_branch *branch, int count,
                                     int64_t in, double *row)
{
    double *own = row, *of_one = row + in;

    memset(dx, 0, (size_t)(ranks->rows * in) * sizeof *dx);
    for (int64_t i = 0; i < ranks->rows * ranks->count; i++) {
        const int64_t r = i / ranks->count;

        memset(own, 0, (size_t)in * sizeof *own);
        for (const struct ls_reference_branch *b = branch; b < branch + count; b++) {
            rank_dx(of_one, b, r, in, (int)(i % ranks->count));
            ls_reference_store(ranks, of_one, in);
            add_times(own, 1, of_one, in);
        }
        ls_reference_store(ranks, own, in);
        add_times(dx + r * in, 1, own, in);
    }
    ls_reference_store(ranks, dx, ranks->rows * in);
}
