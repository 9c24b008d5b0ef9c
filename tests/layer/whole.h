/* A whole layer: its shape and options, and the numbers that it is given, which are drawn by their
 * place, so that every grid of ranks has the same layer. */
#ifndef TESTS_LAYER_WHOLE_H
#define TESTS_LAYER_WHOLE_H

#include <math.h>

#include "base/random.h"
#include "layer/parameters.h"
#include "tensors.h"

/* A layer, by a name. Whoever remembers one does so by its address. */
struct form {
    const char *name;
    struct ls_layer_shape shape;
    struct ls_layer_options options;
};

/* Tensors of a layer: parameters or their gradients, x or y, dy or dx. */
enum { PARAMETERS = LS_LAYER_PARAMETERS, X = PARAMETERS, DY, TENSORS, Y = X, DX = DY };

/* One array a tensor; NULL: the layer has none. */
struct numbers {
    double *of[TENSORS];
};

static inline bool has_tensor(const struct form *form, int which)
{
    return which >= PARAMETERS || ls_parameter_exists(which, &form->options);
}

/* Of what comes out. */
static inline const char *name_of(int which)
{
    if (which < PARAMETERS) return ls_parameter_gradient(which);
    return which == Y ? "y" : "dx";
}

/* Of the whole. */
static inline int64_t count_of(const struct form *form, int which)
{
    const struct ls_layer_shape *n = &form->shape;

    if (which >= PARAMETERS) return n->b * n->s * n->e;
    const struct ls_parameter_part part = ls_parameter_part(which, n, &form->options, 1, 0);
    return part.dim[0] * part.dim[1];
}

static inline double mean_of(int which)
{
    if (which == X) return 0.3;
    return which == LS_PARAMETER_NORM1 || which == LS_PARAMETER_NORM2;
}

static inline double deviation_of(const struct form *form, int which)
{
    if (which >= PARAMETERS) return 1;
    const struct ls_parameter_part part =
        ls_parameter_part(which, &form->shape, &form->options, 1, 0);
    return part.ndim == 1 ? 0.2 : 1 / sqrt((double)part.dim[1]);
}

/* Normal numbers, of a type of few digits already. */
static inline double *draw(const struct form *form, int which)
{
    const int64_t n = count_of(form, which);
    const double deviation = deviation_of(form, which);
    float *normal = malloc((size_t)n * sizeof *normal + 1);
    double *out = malloc((size_t)n * sizeof *out + 1), rounded;

    ls_random_normal(normal, 3, (uint32_t)which, 0, n);
    for (int64_t i = 0; i < n; i++) {
        ls_dtype_store(form->shape.type, &rounded, normal[i] * deviation + mean_of(which));
        out[i] = ls_dtype_load(form->shape.type, &rounded);
    }
    free(normal);
    return out;
}

static inline void free_numbers(struct numbers *n)
{
    for (int i = 0; i < TENSORS; i++) free(n->of[i]);
}

/* Weights, x and dy; until those of another layer are wanted. */
static inline const struct numbers *find_given(const struct form *form)
{
    static const struct form *drawn;
    static struct numbers given;

    if (drawn == form) return &given;
    free_numbers(&given);
    for (int i = 0; i < TENSORS; i++) given.of[i] = has_tensor(form, i) ? draw(form, i) : NULL;
    drawn = form;
    return &given;
}

#endif
