/* The linears of a layer in double precision, with what tensor-parallel ranks round. Weights are
 * [out, in], other tensors have `rows` rows. */
#ifndef LS_REFERENCE_LAYER_LINEAR_H
#define LS_REFERENCE_LAYER_LINEAR_H

#include "longspan/layer.h"

struct ls_reference_ranks {
    ls_dtype type; /* what is stored is rounded to; LS_F64: not at all */
    int64_t rows, count;
};

/* What a column-parallel linear gives: of each column which rank has it, and the row of the weights
 * that it comes of. */
struct ls_reference_columns {
    int64_t count;
    int *owner;
    int64_t *row;
};

/* Of q, k and v, which are made of the shape's h_kv key/value heads: `kv` of them, some of the same
 * weights if these are more. Heads are dealt to ranks by runs; and so are the MLP's f columns, and
 * again f of gated ones. Whether there was memory; destroy accepts what is left, and zeros. */
bool ls_reference_columns_of_heads(struct ls_reference_columns *out,
                                   const struct ls_layer_shape *shape, int64_t kv, int64_t ranks);
bool ls_reference_columns_of_mlp(struct ls_reference_columns *out, int64_t f, bool gated,
                                 int64_t ranks);
void ls_reference_columns_destroy(struct ls_reference_columns *columns);

/* y = x w^T + bias, which may be NULL. */
void ls_reference_column_parallel(double *y, const struct ls_reference_ranks *ranks,
                                  const double *x, const double *w, const double *bias, int64_t in,
                                  const struct ls_reference_columns *columns);

/* The same where columns of x are dealt to ranks by runs, and each rounds its part. */
void ls_reference_row_parallel(double *y, const struct ls_reference_ranks *ranks, const double *x,
                               const double *w, const double *bias, int64_t in, int64_t out);

/* dw += dy^T x; dbias, if not NULL, += sum of dy. columns NULL: of a row-parallel linear. */
void ls_reference_weight_gradient(double *dw, double *dbias, const struct ls_reference_ranks *ranks,
                                  const double *dy, const double *x, int64_t in, int64_t out,
                                  const struct ls_reference_columns *columns);

/* dx [in] = dy w, of a row-parallel linear. */
void ls_reference_row_parallel_dx(double *dx, const struct ls_reference_ranks *ranks,
                                  const double *dy, const double *w, int64_t in, int64_t out);

/* A column-parallel linear, and the gradient of what it gave. */
struct ls_reference_branch {
    const double *dy, *w;
    const struct ls_reference_columns *columns;
};

/* dx [in] of what one or two of them were given; row [2 in] is scratch. Each rank rounds what it
 * has of each, and the sum of these. */
void ls_reference_column_parallel_dx(double *dx, const struct ls_reference_ranks *ranks,
                                     const struct ls_reference_branch *branch, int count,
                                     int64_t in, double *row);

/* Rounds values [n]. */
void ls_reference_store(const struct ls_reference_ranks *ranks, double *values, int64_t n);

#endif
