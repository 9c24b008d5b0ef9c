/* A whole layer, its input, and what is right, in double precision. */
#ifndef TESTS_LAYER_WHOLE_H
#define TESTS_LAYER_WHOLE_H

#include <math.h>

#include "base/random.h"
#include "reference/layer.h"
#include "tensor/dtype.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

enum {
    NORM1,
    NORM1_BIAS,
    QKV,
    QKV_BIAS,
    OUT,
    OUT_BIAS,
    NORM2,
    NORM2_BIAS,
    UP,
    UP_BIAS,
    DOWN,
    DOWN_BIAS,
    PARAMETERS,
    Y = PARAMETERS,
    DX,
    TENSORS
};

static const char *const names[TENSORS] = {
    "norm1",      "norm1_bias", "qkv",     "qkv_bias", "out",       "out_bias", "norm2",
    "norm2_bias", "up",         "up_bias", "down",     "down_bias", "y",        "dx"};

/* ---- the whole layer */

/* One layer, its input, and what is right: of truth and of the twin that rounds. */
struct whole {
    struct ls_layer_shape shape;
    struct ls_layer_options options;
    double *weight[PARAMETERS], *x, *dy;
    struct answer {
        double *y, *dx, *gradient[PARAMETERS];
    } truth, twin; /* twin: of twin_of tensor-parallel ranks; 0: not yet */
    int twin_of;
    double alone; /* error of one rank, squared; 0: not yet */
};

static inline bool is_there(const struct ls_layer_options *o, int which)
{
    if (which == NORM1_BIAS || which == NORM2_BIAS) return o->norm == LS_NORM_LAYER;
    return !o->no_bias ||
           (which != QKV_BIAS && which != OUT_BIAS && which != UP_BIAS && which != DOWN_BIAS);
}

/* Rows and columns of a parameter of the whole, or of one of t ranks. */
struct extent {
    int64_t rows, columns;
};

static inline struct extent extent_of(const struct ls_layer_shape *n,
                                      const struct ls_layer_options *o, int which, int t)
{
    const int64_t qkv = (n->h + 2 * n->h_kv) * n->d / t;
    const int64_t up = (o->activation == LS_ACTIVATION_SWIGLU ? 2 : 1) * n->f / t;
    const struct extent extents[PARAMETERS] = {
        [NORM1] = {1, n->e},   [NORM1_BIAS] = {1, n->e},        [QKV] = {qkv, n->e},
        [QKV_BIAS] = {1, qkv}, [OUT] = {n->e, n->h * n->d / t}, [OUT_BIAS] = {1, n->e},
        [NORM2] = {1, n->e},   [NORM2_BIAS] = {1, n->e},        [UP] = {up, n->e},
        [UP_BIAS] = {1, up},   [DOWN] = {n->e, n->f / t},       [DOWN_BIAS] = {1, n->e}};

    return extents[which];
}

static inline int64_t count_of(const struct whole *w, int which, int t)
{
    const struct extent x = extent_of(&w->shape, &w->options, which, t);

    return x.rows * x.columns;
}

/* Normal numbers, of a type of few digits already. */
static inline double *draw(int64_t n, ls_dtype type, uint32_t stream, double factor, double addend)
{
    float *numbers = malloc((size_t)n * sizeof *numbers + 1);
    double *out = malloc((size_t)n * sizeof *out + 1), rounded;

    ls_random_normal(numbers, 3, stream, 0, n);
    for (int64_t i = 0; i < n; i++) {
        ls_dtype_store(type, &rounded, numbers[i] * factor + addend);
        out[i] = ls_dtype_load(type, &rounded);
    }
    free(numbers);
    return out;
}

static inline struct ls_reference_parameters parameters_of(double *const list[PARAMETERS])
{
    return (struct ls_reference_parameters){
        list[NORM1], list[NORM1_BIAS], list[QKV], list[QKV_BIAS], list[OUT],  list[OUT_BIAS],
        list[NORM2], list[NORM2_BIAS], list[UP],  list[UP_BIAS],  list[DOWN], list[DOWN_BIAS]};
}

/* Collective: the first rank finds it for all. type f64: the truth; else what t tensor-parallel
 * ranks round. */
static inline void solve(struct answer *out, const struct whole *w, ls_dtype type, int t)
{
    const int64_t n = w->shape.b * w->shape.s * w->shape.e;
    struct ls_reference_layer layer = {w->shape, w->options, type, 11};
    const struct ls_reference_parameters weights = parameters_of(w->weight);
    struct ls_reference_layer_state *state = NULL;
    ls_status status = LS_OK;

    layer.options.tp = t;
    out->y = calloc((size_t)n, sizeof *out->y);
    out->dx = calloc((size_t)n, sizeof *out->dx);
    for (int i = 0; i < PARAMETERS; i++)
        out->gradient[i] =
            is_there(&w->options, i) ? calloc((size_t)count_of(w, i, 1), sizeof(double)) : NULL;
    const struct ls_reference_parameters gradients = parameters_of(out->gradient);
    if (rank == 0) status = ls_reference_layer_forward(out->y, &state, &layer, &weights, w->x);
    if (rank == 0 && status == LS_OK)
        status = ls_reference_layer_backward(out->dx, &gradients, state, &weights, w->dy);
    ls_reference_layer_state_destroy(state);
    MPI_CHECK_OK(status);
    MPI_Bcast(out->y, (int)n, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    MPI_Bcast(out->dx, (int)n, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    for (int i = 0; i < PARAMETERS; i++)
        if (out->gradient[i])
            MPI_Bcast(out->gradient[i], (int)count_of(w, i, 1), MPI_DOUBLE, 0, MPI_COMM_WORLD);
}

static inline void create_whole(struct whole *w, const struct ls_layer_shape *shape,
                                const struct ls_layer_options *options)
{
    const int64_t n = shape->b * shape->s * shape->e;

    *w = (struct whole){.shape = *shape, .options = *options};
    for (int i = 0; i < PARAMETERS; i++) {
        const struct extent x = extent_of(shape, options, i, 1);
        const bool norm = i == NORM1 || i == NORM2;

        if (is_there(options, i))
            w->weight[i] = draw(x.rows * x.columns, shape->type, (uint32_t)i,
                                x.rows > 1 ? 1 / sqrt((double)x.columns) : 0.2, norm);
    }
    w->x = draw(n, shape->type, 20, 1, 0.3);
    w->dy = draw(n, shape->type, 21, 1, 0);
    solve(&w->truth, w, LS_F64, 1);
}

static inline void destroy_answer(struct answer *a)
{
    for (int i = 0; i < PARAMETERS; i++) free(a->gradient[i]);
    free(a->y);
    free(a->dx);
}

static inline void destroy_whole(struct whole *w)
{
    for (int i = 0; i < PARAMETERS; i++) free(w->weight[i]);
    free(w->x);
    free(w->dy);
    destroy_answer(&w->truth);
    destroy_answer(&w->twin);
}

#endif
