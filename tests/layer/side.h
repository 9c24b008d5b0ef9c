/* A rank's share of a whole layer, its execution and the verdict; and the layers and grids that
 * tests go through. Included behind ../mpi/harness.h. */
#ifndef TESTS_LAYER_SIDE_H
#define TESTS_LAYER_SIDE_H

#include "layer/plan.h"
#include "whole.h"

/* ---- a rank's share */

/* Where row and column of a rank's share of a parameter are in the whole. */
static inline int64_t whole_index(const struct whole *w, int which, int t, int tensor, int64_t row,
                                  int64_t column)
{
    const struct ls_layer_shape *n = &w->shape;
    const struct extent all = extent_of(n, &w->options, which, 1);
    const bool vector = which == QKV_BIAS || which == UP_BIAS;
    const int64_t q = n->h * n->d, kv = n->h_kv * n->d;
    int64_t i = vector ? column : row, j = column;

    if (which == OUT) j += tensor * q / t;
    if (which == DOWN) j += tensor * n->f / t;
    if (which == QKV || which == QKV_BIAS) {
        if (i < q / t)
            i += tensor * q / t;
        else if (i < (q + kv) / t)
            i += q - q / t + tensor * kv / t;
        else
            i += q + kv - (q + kv) / t + tensor * kv / t;
    }
    if (which == UP || which == UP_BIAS)
        i += i < n->f / t ? tensor * n->f / t : n->f - n->f / t + tensor * n->f / t;
    return vector ? i : i * all.columns + j;
}

struct side {
    struct ls_device *device;
    struct ls_layer_plan *plan;
    struct ls_layer_state *state;
    struct ls_tensor weight[PARAMETERS], gradient[PARAMETERS], x, dy, y, dx;
    struct ls_layer_parameters weights, gradients;
    size_t before; /* live bytes */
};

static inline struct ls_tensor tensor(const struct side *s, ls_dtype type, int ndim,
                                      const int64_t *dim)
{
    struct ls_tensor t = ls_tensor_view(NULL, type, ndim, dim);
    size_t bytes = (size_t)ls_dtype_size(type);

    for (int i = 0; i < ndim; i++) bytes *= (size_t)dim[i];
    MPI_CHECK_OK(ls_device_alloc(&t.data, s->device, LS_TAG_PARAMETER, bytes));
    memset(t.data, 0, bytes);
    return t;
}

static inline char *element(const struct ls_tensor *t, int64_t i)
{
    return (char *)t->data + i * ls_dtype_size(t->type);
}

/* Where element i of x or y on this rank is in the whole. */
static inline int64_t row_index(const struct whole *w, const struct ls_layer_plan *plan, int64_t i)
{
    const int64_t rows = ls_layer_rows(plan), e = w->shape.e;

    return (i / e / rows * w->shape.s + ls_layer_position(plan, i / e % rows)) * e + i % e;
}

static inline void link_parameters(struct ls_layer_parameters *out,
                                   struct ls_tensor list[PARAMETERS],
                                   const struct ls_layer_options *o)
{
    struct ls_tensor **at[PARAMETERS] = {
        &out->norm1, &out->norm1_bias, &out->qkv, &out->qkv_bias, &out->out,  &out->out_bias,
        &out->norm2, &out->norm2_bias, &out->up,  &out->up_bias,  &out->down, &out->down_bias};

    for (int i = 0; i < PARAMETERS; i++) *at[i] = is_there(o, i) ? &list[i] : NULL;
}

static inline void open_parameters(struct side *s, const struct whole *w, int t, int tensor_rank)
{
    for (int i = 0; i < PARAMETERS; i++) {
        const struct extent x = extent_of(&w->shape, &w->options, i, t);
        const bool vector = x.rows == 1 && i != QKV && i != UP && i != OUT && i != DOWN;
        const int64_t dim[] = {vector ? x.columns : x.rows, x.columns};

        if (!is_there(&w->options, i)) continue;
        s->weight[i] = tensor(s, w->shape.type, vector ? 1 : 2, dim);
        s->gradient[i] = tensor(s, LS_F32, vector ? 1 : 2, dim);
        for (int64_t k = 0; k < x.rows * x.columns; k++)
            ls_dtype_store(
                w->shape.type, element(&s->weight[i], k),
                w->weight[i][whole_index(w, i, t, tensor_rank, k / x.columns, k % x.columns)]);
    }
    link_parameters(&s->weights, s->weight, &w->options);
    link_parameters(&s->gradients, s->gradient, &w->options);
}

static inline void open_side(struct side *s, struct ls_comm *comm, const struct whole *w,
                             const struct ls_layer_options *options)
{
    struct ls_layer_options o = *options;

    *s = (struct side){.device = NULL};
    MPI_CHECK_OK(ls_device_open(&s->device, "cpu", 0, 1 + rank % 2));
    s->before = ls_ledger_live_total(ls_device_ledger(s->device));
    o.device = s->device;
    MPI_CHECK_OK(ls_layer_plan_create(&s->plan, comm, &w->shape, &o));
    MPI_CHECK_OK(ls_layer_state_create(&s->state, s->plan, NULL));
    open_parameters(s, w, o.tp, s->plan->grid.tensor);
    const int64_t dim[] = {w->shape.b, ls_layer_rows(s->plan), w->shape.e};
    struct ls_tensor *const list[] = {&s->x, &s->dy, &s->y, &s->dx};
    for (int i = 0; i < 4; i++) *list[i] = tensor(s, w->shape.type, 3, dim);
    for (int64_t i = 0; i < dim[0] * dim[1] * dim[2]; i++) {
        const int64_t at = row_index(w, s->plan, i);

        ls_dtype_store(w->shape.type, element(&s->x, i), w->x[at]);
        ls_dtype_store(w->shape.type, element(&s->dy, i), w->dy[at]);
    }
}

static inline void run_side(struct side *s)
{
    MPI_CHECK_OK(ls_layer_forward(&s->y, s->plan, s->state, &s->weights, &s->x, 11));
    MPI_CHECK_OK(ls_layer_backward(&s->dx, &s->gradients, s->plan, s->state, &s->weights, &s->dy));
}

static inline void close_side(struct side *s)
{
    for (int i = 0; i < PARAMETERS; i++) {
        ls_device_free(s->device, s->weight[i].data);
        ls_device_free(s->device, s->gradient[i].data);
    }
    struct ls_tensor *const list[] = {&s->x, &s->dy, &s->y, &s->dx};
    for (int i = 0; i < 4; i++) ls_device_free(s->device, list[i]->data);
    ls_layer_state_destroy(s->state);
    ls_layer_plan_destroy(s->plan);
    MPI_CHECK(ls_ledger_live_total(ls_device_ledger(s->device)) == s->before, "all is freed");
    ls_device_close(s->device);
}

/* ---- the verdict */

/* Squares of a tensor's error, of the twin's and of the truth. */
struct squares {
    double error, twin, truth;
};

static inline void add_square(struct squares *s, double got, double twin, double truth)
{
    s->error += (got - truth) * (got - truth);
    s->twin += (twin - truth) * (twin - truth);
    s->truth += truth * truth;
}

/* f32 needs none. */
static inline void find_twin(struct whole *w, int t)
{
    if (w->twin_of == t || (w->twin_of > 0 && w->shape.type == LS_F32)) return;
    destroy_answer(&w->twin);
    solve(&w->twin, w, w->shape.type, t);
    w->twin_of = t;
}

/* Of a rank's share of y and dx, and of the gradients. */
static inline void measure(struct squares out[TENSORS], const struct side *s, const struct whole *w,
                           int t)
{
    const int64_t n = w->shape.b * ls_layer_rows(s->plan) * w->shape.e;

    memset(out, 0, TENSORS * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = row_index(w, s->plan, i);

        add_square(&out[Y], ls_dtype_load(w->shape.type, element(&s->y, i)), w->twin.y[at],
                   w->truth.y[at]);
        add_square(&out[DX], ls_dtype_load(w->shape.type, element(&s->dx, i)), w->twin.dx[at],
                   w->truth.dx[at]);
    }
    for (int i = 0; i < PARAMETERS; i++) {
        const struct extent x = extent_of(&w->shape, &w->options, i, t);

        for (int64_t k = 0; k < x.rows * x.columns && is_there(&w->options, i); k++) {
            const int64_t at =
                whole_index(w, i, t, s->plan->grid.tensor, k / x.columns, k % x.columns);

            add_square(&out[i], ((float *)s->gradient[i].data)[k], w->twin.gradient[i][at],
                       w->truth.gradient[i][at]);
        }
    }
}

/* Collective. */
static inline double judge(const struct squares *s, const struct whole *w, const char *text,
                           int tensor)
{
    double all[] = {s->error, s->twin, s->truth};

    MPI_CHECK_OK(ls_comm_reduce(all, world, 3, LS_REDUCE_SUM));
    const double error = sqrt(all[0] / all[2]), twin = sqrt(all[1] / all[2]);
    const double limit = w->shape.type == LS_F32 ? 2e-5 : fmin(1.2e-2, fmax(1e-6, 1.3 * twin));

    MPI_CHECK(error <= limit, "%s: %s: error %.3g, the twin's %.3g, limit %.3g", text,
              names[tensor], error, twin, limit);
    return error;
}

/* Collective. The squares of errors of all that backward gives, together: that of a vector of a few
 * numbers is half chance. */
static inline double judge_tensors(const struct side *s, const struct whole *w, int t,
                                   const char *text)
{
    struct squares found[TENSORS];
    double sum = 0;

    measure(found, s, w, t);
    for (int i = 0; i < TENSORS; i++) {
        if (i < PARAMETERS && !is_there(&w->options, i)) continue;
        const double error = judge(&found[i], w, text, i);

        if (i != Y) sum += error * error;
    }
    return sum;
}

/* Every rank computes the whole. */
static inline double judge_alone(const struct whole *w)
{
    struct ls_layer_options o = w->options;
    struct ls_comm *self;
    struct side s;

    o.tp = o.cp = 1;
    MPI_CHECK_OK(ls_comm_create_self(&self));
    open_side(&s, self, w, &o);
    run_side(&s);
    const double error = judge_tensors(&s, w, 1, "alone");
    close_side(&s);
    ls_comm_destroy(self);
    return error;
}

/* Nor does a grid err more than one rank does, by more than roundings of parts. */
static inline void judge_side(const struct side *s, struct whole *w, int t, const char *text)
{
    const double most = w->shape.type == LS_F32 ? 1.2 : 1.3;

    if (w->alone == 0) {
        find_twin(w, 1);
        w->alone = judge_alone(w);
    }
    find_twin(w, t);
    const double error = judge_tensors(s, w, t, text), ratio = sqrt(error / w->alone);
    MPI_CHECK(ratio <= most, "%s: errors are %.3g times those of one rank", text, ratio);
}

/* ---- the matrix */

static const struct ls_layer_shape shapes[] = {
    {.b = 2, .s = 520, .e = 24, .h = 4, .h_kv = 4, .d = 8, .f = 48, .type = LS_F32},
    {.b = 1, .s = 530, .e = 120, .h = 4, .h_kv = 4, .d = 24, .f = 160, .type = LS_BF16},
    {.b = 1, .s = 270, .e = 16, .h = 4, .h_kv = 2, .d = 8, .f = 32, .type = LS_F32},
};

static const struct ls_layer_options kinds[] = {
    {.size = sizeof(struct ls_layer_options), .causal = true},
    {.size = sizeof(struct ls_layer_options),
     .norm = LS_NORM_RMS,
     .activation = LS_ACTIVATION_SWIGLU,
     .no_bias = true,
     .rope_theta = 1e4F,
     .causal = true,
     .layout = LS_LAYOUT_ZIGZAG},
    {.size = sizeof(struct ls_layer_options),
     .post_norm = true,
     .activation = LS_ACTIVATION_GELU_ERF,
     .dropout = 0.25F,
     .layout = LS_LAYOUT_STRIPED},
    {.size = sizeof(struct ls_layer_options),
     .core = LS_CORE_MATERIALIZED,
     .causal = true,
     .dropout = 0.25F},
    {.size = sizeof(struct ls_layer_options),
     .core = LS_CORE_MATERIALIZED,
     .norm = LS_NORM_RMS,
     .no_bias = true,
     .post_norm = true,
     .rope_theta = 1e4F},
};

/* Every grid of all ranks. */
static inline void check_whole(struct whole *w, void (*check)(struct whole *, int t, bool sp))
{
    for (int t = 1; t <= size && t <= 4; t++)
        for (int sp = 0; sp < (t > 1 ? 2 : 1) && size % t == 0; sp++)
            if (w->shape.h_kv % t == 0 && (size / t - 1) * LS_LEAF < w->shape.s) check(w, t, sp);
}

static inline void check_all(void (*check)(struct whole *, int t, bool sp))
{
    for (int i = 0; i < COUNT(shapes) * COUNT(kinds); i++) {
        struct whole w;

        create_whole(&w, &shapes[i % COUNT(shapes)], &kinds[i / COUNT(shapes)]);
        check_whole(&w, check);
        destroy_whole(&w);
    }
}

/* The last context has one row, of which one rank takes care outside. */
static inline void check_ranks_without_rows(void (*check)(struct whole *, int t, bool sp))
{
    for (int t = 2; t <= 4 && size % t == 0; t *= 2) {
        struct ls_layer_shape shape = shapes[0];
        struct whole w;

        shape.s = (size / t - 1) * LS_LEAF + 1;
        create_whole(&w, &shape, &kinds[0]);
        check(&w, t, true);
        destroy_whole(&w);
    }
}

#endif
