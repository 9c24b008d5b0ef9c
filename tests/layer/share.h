/* One rank's side of a layer: a plan, a state and this rank's share of all tensors, on any device.
 * Numbers are drawn by their place in the whole, so that every grid of ranks has the same layer. */
#ifndef TESTS_LAYER_SHARE_H
#define TESTS_LAYER_SHARE_H

#include "../mpi/harness.h"

#include <math.h>

#include "base/random.h"
#include "layer/parameters.h"
#include "layer/plan.h"
#include "tensor/dtype.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

enum { PARAMETERS = LS_LAYER_PARAMETERS, X = PARAMETERS, DY }; /* what is drawn */

struct side {
    struct ls_layer_shape shape;
    struct ls_layer_options options;
    struct ls_device *device;
    struct ls_layer_plan *plan;
    struct ls_layer_state *state;
    struct ls_tensor weight[PARAMETERS], gradient[PARAMETERS], x, dy, y, dx;
    struct ls_layer_parameters weights, gradients;
};

/* ---- the whole */

static inline int64_t count_of(const struct ls_layer_shape *n, const struct ls_layer_options *o,
                               int which)
{
    const struct ls_parameter_part part = ls_parameter_part(which, n, o, 1, 0);

    return part.dim[0] * part.dim[1];
}

static inline double mean_of(int which)
{
    if (which == X) return 0.3;
    return which == LS_PARAMETER_NORM1 || which == LS_PARAMETER_NORM2;
}

/* Normal numbers, of a type of few digits already; index: in the whole. */
static inline double drawn(const struct ls_layer_shape *n, const struct ls_layer_options *o,
                           int which, int64_t index)
{
    const struct ls_parameter_part part = ls_parameter_part(which < X ? which : 0, n, o, 1, 0);
    const double of_parameter = part.ndim == 1 ? 0.2 : 1 / sqrt((double)part.dim[1]);
    const double factor = which < X ? of_parameter : 1;
    float number;
    double rounded;

    ls_random_normal(&number, 3, (uint32_t)which, (uint64_t)index, 1);
    ls_dtype_store(n->type, &rounded, number * factor + mean_of(which));
    return ls_dtype_load(n->type, &rounded);
}

/* ---- a rank's share: where its number i is in the whole */

static inline int64_t whole_index(const struct ls_layer_shape *n, const struct ls_layer_options *o,
                                  int which, int tensor, int64_t i)
{
    const struct ls_parameter_part part = ls_parameter_part(which, n, o, o->tp, tensor);
    const int64_t column = part.columns.first + i % part.columns.count;
    int64_t row = i / part.columns.count;
    int run = 0;

    while (row >= part.rows[run].count) row -= part.rows[run++].count;
    return (part.rows[run].first + row) * part.dim[1] + column;
}

/* Of x and y. */
static inline int64_t whole_row_index(const struct side *s, int64_t i)
{
    const int64_t rows = ls_layer_rows(s->plan), e = s->shape.e;

    return (i / e / rows * s->shape.s + ls_layer_position(s->plan, i / e % rows)) * e + i % e;
}

/* ---- tensors, wherever the device has them */

static inline int64_t numbers_of(const struct ls_tensor *t)
{
    int64_t n = t->ndim > 0;

    for (int i = 0; i < t->ndim; i++) n *= t->dim[i];
    return n;
}

static inline size_t bytes_of(const struct ls_tensor *t)
{
    return (size_t)numbers_of(t) * (size_t)ls_dtype_size(t->type);
}

static inline struct ls_tensor create_tensor(const struct side *s, ls_dtype type, int ndim,
                                             const int64_t *dim)
{
    struct ls_tensor t = ls_tensor_view(NULL, type, ndim, dim);

    MPI_CHECK_OK(ls_device_alloc(&t.data, s->device, LS_TAG_PARAMETER, bytes_of(&t)));
    return t;
}

/* The caller frees it. */
static inline char *host_copy(const struct side *s, const struct ls_tensor *t)
{
    char *host = malloc(bytes_of(t) + 1);

    ls_device_read(s->device, host, t->data, bytes_of(t));
    return host;
}

static inline void fill_parameter(const struct side *s, int which)
{
    const struct ls_tensor *w = &s->weight[which], *g = &s->gradient[which];
    char *host = malloc(bytes_of(g) + 1);

    for (int64_t i = 0; i < numbers_of(w); i++)
        ls_dtype_store(w->type, host + i * ls_dtype_size(w->type),
                       drawn(&s->shape, &s->options, which,
                             whole_index(&s->shape, &s->options, which, s->plan->grid.tensor, i)));
    ls_device_write(s->device, w->data, host, bytes_of(w));
    for (int64_t i = 0; i < numbers_of(g); i++) ((float *)host)[i] = 1; /* to which is added */
    ls_device_write(s->device, g->data, host, bytes_of(g));
    free(host);
}

static inline void fill_rows(const struct side *s, const struct ls_tensor *t, int which)
{
    char *host = malloc(bytes_of(t) + 1);

    for (int64_t i = 0; i < numbers_of(t); i++)
        ls_dtype_store(t->type, host + i * ls_dtype_size(t->type),
                       drawn(&s->shape, &s->options, which, whole_row_index(s, i)));
    ls_device_write(s->device, t->data, host, bytes_of(t));
    free(host);
}

static inline void open_parameter(struct side *s, int which)
{
    const struct ls_parameter_part part =
        ls_parameter_part(which, &s->shape, &s->options, s->options.tp, s->plan->grid.tensor);
    int64_t dim[2];
    const int ndim = ls_parameter_share(dim, &part);

    s->weight[which] = create_tensor(s, s->shape.type, ndim, dim);
    s->gradient[which] = create_tensor(s, LS_F32, ndim, dim);
    fill_parameter(s, which);
    *ls_parameter_in(&s->weights, which) = &s->weight[which];
    *ls_parameter_in(&s->gradients, which) = &s->gradient[which];
}

static inline void open_tensors(struct side *s)
{
    const int64_t rows[] = {s->shape.b, ls_layer_rows(s->plan), s->shape.e};
    struct ls_tensor *const list[] = {&s->x, &s->dy, &s->y, &s->dx};

    for (int i = 0; i < PARAMETERS; i++)
        if (ls_parameter_exists(i, &s->options)) open_parameter(s, i);
    for (int i = 0; i < COUNT(list); i++) *list[i] = create_tensor(s, s->shape.type, 3, rows);
    fill_rows(s, &s->x, X);
    fill_rows(s, &s->dy, DY);
}

/* Of all ranks, t of them tensor-parallel. Sequences have a leaf for each of the rest. */
static inline void open_side(struct side *s, struct ls_device *device,
                             const struct ls_layer_shape *shape,
                             const struct ls_layer_options *options, int t, bool sp)
{
    *s = (struct side){.shape = *shape, .options = *options, .device = device};
    s->options.tp = t;
    s->options.cp = size / t;
    s->options.sp = sp;
    s->options.device = device;
    MPI_CHECK_OK(ls_layer_plan_create(&s->plan, world, shape, &s->options));
    MPI_CHECK_OK(ls_layer_state_create(&s->state, s->plan, NULL));
    open_tensors(s);
}

static inline void run_side(struct side *s)
{
    MPI_CHECK_OK(ls_layer_forward(&s->y, s->plan, s->state, &s->weights, &s->x, 11));
    MPI_CHECK_OK(ls_layer_backward(&s->dx, &s->gradients, s->plan, s->state, &s->weights, &s->dy));
}

static inline void close_side(struct side *s)
{
    struct ls_tensor *const list[] = {&s->x, &s->dy, &s->y, &s->dx};

    for (int i = 0; i < PARAMETERS; i++) {
        ls_device_free(s->device, s->weight[i].data);
        ls_device_free(s->device, s->gradient[i].data);
    }
    for (int i = 0; i < COUNT(list); i++) ls_device_free(s->device, list[i]->data);
    ls_layer_state_destroy(s->state);
    ls_layer_plan_destroy(s->plan);
}

/* ---- two sides of one grid */

static inline bool has_same_numbers(const struct side *a, const struct ls_tensor *of_a,
                                    const struct side *b, const struct ls_tensor *of_b)
{
    char *one, *other;
    bool same;

    if (of_a->ndim == 0) return true;
    one = host_copy(a, of_a);
    other = host_copy(b, of_b);
    same = memcmp(one, other, bytes_of(of_a)) == 0;
    free(one);
    free(other);
    return same;
}

static inline bool has_same_results(const struct side *a, const struct side *b)
{
    bool same = has_same_numbers(a, &a->y, b, &b->y) && has_same_numbers(a, &a->dx, b, &b->dx);

    for (int i = 0; i < PARAMETERS; i++)
        same = same && has_same_numbers(a, &a->gradient[i], b, &b->gradient[i]);
    return same;
}

/* Whether all ranks can be such a grid for a layer. */
static inline bool is_grid(const struct ls_layer_shape *n, int t)
{
    return size % t == 0 && n->h % t == 0 && n->f % t == 0 &&
           (n->h_kv % t == 0 || t % n->h_kv == 0) && (size / t - 1) * LS_LEAF < n->s;
}

/* The most tensor-parallel ranks of such a grid; 0: there is none. */
static inline int most_tensor_ranks(const struct ls_layer_shape *n)
{
    int t = size;

    while (t > 0 && !is_grid(n, t)) t--;
    return t;
}

#endif
