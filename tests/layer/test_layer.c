/* A layer on any grid of ranks, with and without sequence parallelism, whatever is computed again,
 * against the same layer in double precision. */
#include "../mpi/harness.h"
#include "layer/plan.h"
#include "plan/layer_work.h"
#include "plan/pieces.h"
#include "reference/layer.h"
#include "tensor/dtype.h"

#include <math.h>

#include "base/random.h"

MPI_SUITE(layer)

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

static bool is_there(const struct ls_layer_options *o, int which)
{
    if (which == NORM1_BIAS || which == NORM2_BIAS) return o->norm == LS_NORM_LAYER;
    return !o->no_bias ||
           (which != QKV_BIAS && which != OUT_BIAS && which != UP_BIAS && which != DOWN_BIAS);
}

/* Rows and columns of a parameter of the whole, or of one of t ranks. */
struct extent {
    int64_t rows, columns;
};

static struct extent extent_of(const struct ls_layer_shape *n, const struct ls_layer_options *o,
                               int which, int t)
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

static int64_t count_of(const struct whole *w, int which, int t)
{
    const struct extent x = extent_of(&w->shape, &w->options, which, t);

    return x.rows * x.columns;
}

/* Normal numbers, of a type of few digits already. */
static double *draw(int64_t n, ls_dtype type, uint32_t stream, double factor, double addend)
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

static struct ls_reference_parameters parameters_of(double *const list[PARAMETERS])
{
    return (struct ls_reference_parameters){
        list[NORM1], list[NORM1_BIAS], list[QKV], list[QKV_BIAS], list[OUT],  list[OUT_BIAS],
        list[NORM2], list[NORM2_BIAS], list[UP],  list[UP_BIAS],  list[DOWN], list[DOWN_BIAS]};
}

/* Collective: the first rank finds it for all. type f64: the truth; else what t tensor-parallel
 * ranks round. */
static void solve(struct answer *out, const struct whole *w, ls_dtype type, int t)
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

static void create_whole(struct whole *w, const struct ls_layer_shape *shape,
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

static void destroy_answer(struct answer *a)
{
    for (int i = 0; i < PARAMETERS; i++) free(a->gradient[i]);
    free(a->y);
    free(a->dx);
}

static void destroy_whole(struct whole *w)
{
    for (int i = 0; i < PARAMETERS; i++) free(w->weight[i]);
    free(w->x);
    free(w->dy);
    destroy_answer(&w->truth);
    destroy_answer(&w->twin);
}

/* ---- a rank's share */

/* Where row and column of a rank's share of a parameter are in the whole. */
static int64_t whole_index(const struct whole *w, int which, int t, int tensor, int64_t row,
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

static struct ls_tensor tensor(const struct side *s, ls_dtype type, int ndim, const int64_t *dim)
{
    struct ls_tensor t = ls_tensor_view(NULL, type, ndim, dim);
    size_t bytes = (size_t)ls_dtype_size(type);

    for (int i = 0; i < ndim; i++) bytes *= (size_t)dim[i];
    MPI_CHECK_OK(ls_device_alloc(&t.data, s->device, LS_TAG_PARAMETER, bytes));
    memset(t.data, 0, bytes);
    return t;
}

static char *element(const struct ls_tensor *t, int64_t i)
{
    return (char *)t->data + i * ls_dtype_size(t->type);
}

/* Where element i of x or y on this rank is in the whole. */
static int64_t row_index(const struct whole *w, const struct ls_layer_plan *plan, int64_t i)
{
    const int64_t rows = ls_layer_rows(plan), e = w->shape.e;

    return (i / e / rows * w->shape.s + ls_layer_position(plan, i / e % rows)) * e + i % e;
}

static void link_parameters(struct ls_layer_parameters *out, struct ls_tensor list[PARAMETERS],
                            const struct ls_layer_options *o)
{
    struct ls_tensor **at[PARAMETERS] = {
        &out->norm1, &out->norm1_bias, &out->qkv, &out->qkv_bias, &out->out,  &out->out_bias,
        &out->norm2, &out->norm2_bias, &out->up,  &out->up_bias,  &out->down, &out->down_bias};

    for (int i = 0; i < PARAMETERS; i++) *at[i] = is_there(o, i) ? &list[i] : NULL;
}

static void open_parameters(struct side *s, const struct whole *w, int t, int tensor_rank)
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

static void open_side(struct side *s, struct ls_comm *comm, const struct whole *w,
                      const struct ls_layer_options *options)
{
    struct ls_layer_options o = *options;

    *s = (struct side){.device = NULL};
    MPI_CHECK_OK(ls_device_open(&s->device, "cpu", 0, 1 + rank % 2));
    s->before = ls_ledger_live_total(ls_device_ledger(s->device));
    o.device = s->device;
    MPI_CHECK_OK(ls_layer_plan_create(&s->plan, comm, &w->shape, &o));
    MPI_CHECK_OK(ls_layer_state_create(&s->state, s->plan));
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

static void run_side(struct side *s)
{
    MPI_CHECK_OK(ls_layer_forward(&s->y, s->plan, s->state, &s->weights, &s->x, 11));
    MPI_CHECK_OK(ls_layer_backward(&s->dx, &s->gradients, s->plan, s->state, &s->weights, &s->dy));
}

static void close_side(struct side *s)
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

static void add_square(struct squares *s, double got, double twin, double truth)
{
    s->error += (got - truth) * (got - truth);
    s->twin += (twin - truth) * (twin - truth);
    s->truth += truth * truth;
}

/* f32 needs none. */
static void find_twin(struct whole *w, int t)
{
    if (w->twin_of == t || (w->twin_of > 0 && w->shape.type == LS_F32)) return;
    destroy_answer(&w->twin);
    solve(&w->twin, w, w->shape.type, t);
    w->twin_of = t;
}

/* Of a rank's share of y and dx, and of the gradients. */
static void measure(struct squares out[TENSORS], const struct side *s, const struct whole *w, int t)
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
static double judge(const struct squares *s, const struct whole *w, const char *text, int tensor)
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
static double judge_tensors(const struct side *s, const struct whole *w, int t, const char *text)
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
static double judge_alone(const struct whole *w)
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
static void judge_side(const struct side *s, struct whole *w, int t, const char *text)
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

/* ---- tests */

static const struct ls_layer_shape shapes[] = {
    {.b = 2, .s = 520, .e = 24, .h = 4, .h_kv = 4, .d = 8, .f = 48, .type = LS_F32},
    {.b = 1, .s = 530, .e = 120, .h = 4, .h_kv = 4, .d = 24, .f = 160, .type = LS_BF16},
};

static const struct ls_layer_options kinds[] = {
    {.size = sizeof(struct ls_layer_options), .causal = true},
    {.size = sizeof(struct ls_layer_options),
     .norm = LS_NORM_RMS,
     .activation = LS_ACTIVATION_SWIGLU,
     .no_bias = true,
     .rope_theta = 1e4F,
     .causal = true},
    {.size = sizeof(struct ls_layer_options),
     .post_norm = true,
     .activation = LS_ACTIVATION_GELU_ERF,
     .dropout = 0.25F},
};

/* Every grid of all ranks. */
static void check_whole(struct whole *w, void (*check)(struct whole *, int t, bool sp))
{
    for (int t = 1; t <= size && t <= 4; t++)
        for (int sp = 0; sp < (t > 1 ? 2 : 1) && size % t == 0; sp++)
            if (w->shape.h % t == 0 && (size / t - 1) * LS_LEAF < w->shape.s) check(w, t, sp);
}

static void check_all(void (*check)(struct whole *, int t, bool sp))
{
    for (int i = 0; i < COUNT(shapes) * COUNT(kinds); i++) {
        struct whole w;

        create_whole(&w, &shapes[i % COUNT(shapes)], &kinds[i / COUNT(shapes)]);
        check_whole(&w, check);
        destroy_whole(&w);
    }
}

static void check_contract(struct whole *w, int t, bool sp)
{
    struct ls_layer_options o = w->options;
    struct side s;
    char text[80];

    o.tp = t;
    o.cp = size / t;
    o.sp = sp;
    snprintf(text, sizeof text, "%s%s, t %d c %d%s", ls_dtype_name(w->shape.type),
             o.post_norm ? " post-norm"
             : o.no_bias ? " llama"
                         : "",
             t, o.cp, sp ? " sp" : "");
    open_side(&s, world, w, &o);
    run_side(&s);
    judge_side(&s, w, t, text);
    close_side(&s);
}

MPI_TEST(layer, keeps_the_contract_on_any_grid)
{
    check_all(check_contract);
}

static bool same(const struct ls_tensor *a, const struct ls_tensor *b)
{
    size_t bytes = (size_t)ls_dtype_size(a->type);

    for (int i = 0; i < a->ndim; i++) bytes *= (size_t)a->dim[i];
    return a->ndim == 0 || memcmp(a->data, b->data, bytes) == 0;
}

static bool same_results(const struct side *a, const struct side *b)
{
    bool all = same(&a->y, &b->y) && same(&a->dx, &b->dx);

    for (int i = 0; i < PARAMETERS; i++) all = all && same(&a->gradient[i], &b->gradient[i]);
    return all;
}

/* Whatever is computed again, the bits are those of what is kept; and what is kept is what the
 * planner says, to the byte. */
static void check_pieces(struct whole *w, int t, bool sp)
{
    static const char *const sets[] = {
        "core", "norm", "activation", "mlp", "qkv", "dropout", "core,norm,mlp,qkv,dropout", "full"};
    struct ls_layer_options o = w->options;
    struct side plain;

    o.tp = t;
    o.cp = size / t;
    o.sp = sp;
    open_side(&plain, world, w, &o);
    run_side(&plain);
    for (int i = 0; i < COUNT(sets); i++) {
        struct side s;

        o.recompute = sets[i];
        open_side(&s, world, w, &o);
        run_side(&s);
        MPI_CHECK(same_results(&s, &plain), "t %d sp %d: %s", t, sp, sets[i]);
        close_side(&s);
    }
    close_side(&plain);
}

MPI_TEST(layer, has_the_same_bits_whatever_is_computed_again)
{
    check_all(check_pieces);
}

/* The last context has one row, of which one rank takes care outside. */
MPI_TEST(layer, a_rank_may_have_no_rows_outside)
{
    for (int t = 2; t <= 4 && size % t == 0; t *= 2) {
        struct ls_layer_shape shape = shapes[0];
        struct whole w;

        shape.s = (size / t - 1) * LS_LEAF + 1;
        create_whole(&w, &shape, &kinds[0]);
        check_contract(&w, t, true);
        check_pieces(&w, t, true);
        destroy_whole(&w);
    }
}

/* ---- memory */

static struct ls_model_shape model_of(const struct ls_layer_shape *n,
                                      const struct ls_layer_options *o)
{
    return (struct ls_model_shape){.h = n->e,
                                   .L = 1,
                                   .v = 1,
                                   .a = n->h,
                                   .a_kv = n->h_kv,
                                   .d = n->d,
                                   .f = n->f,
                                   .norm = o->norm,
                                   .activation = o->activation,
                                   .post_norm = o->post_norm};
}

static size_t live(const struct side *s, ls_tag tag)
{
    return ls_ledger_live(ls_device_ledger(s->device), tag);
}

static struct ls_model_run run_of(const struct ls_layer_shape *n, const struct ls_layer_options *o)
{
    return (struct ls_model_run){.type = n->type,
                                 .b = n->b,
                                 .s = n->s,
                                 .t = o->tp,
                                 .c = o->cp,
                                 .p = 1,
                                 .m = 1,
                                 .sp = o->sp,
                                 .causal = o->causal,
                                 .dropout = o->dropout > 0,
                                 .core = LS_CORE_FUSED};
}

/* Each further layer keeps what the planner says of this rank's rows, to the byte, and nothing
 * hides elsewhere; what is computed again has room once. */
static void check_kept(const struct ls_layer_shape *n, struct ls_layer_options o)
{
    const struct ls_model_shape model = model_of(n, &o);
    struct ls_model_run run = run_of(n, &o);
    struct ls_layer_state *state[4];
    struct side s = {.device = NULL};

    MPI_CHECK_OK(ls_pieces_parse(&run.pieces, o.recompute));
    MPI_CHECK_OK(ls_device_open(&s.device, "cpu", 0, 1));
    o.device = s.device;
    MPI_CHECK_OK(ls_layer_plan_create(&s.plan, world, n, &o));
    run.has_rows = true;
    run.rows = s.plan->rows;
    run.outer_rows = s.plan->outer_rows;
    const struct ls_kept_bytes planned = ls_layer_kept_bytes(&model, &run);
    const struct ls_ledger *ledger = ls_device_ledger(s.device);
    const size_t before = ls_ledger_live_total(ledger), kept = live(&s, LS_TAG_ACTIVATION);
    MPI_CHECK((int64_t)live(&s, LS_TAG_RECOMPUTE) == ls_layer_again_bytes(&model, &run),
              "t %d c %d sp %d %s: %zu bytes to compute again", o.tp, o.cp, o.sp, o.recompute,
              live(&s, LS_TAG_RECOMPUTE));
    for (size_t layers = 1; layers <= COUNT(state); layers++) {
        const size_t more = layers * (size_t)(planned.paper + planned.own);

        MPI_CHECK_OK(ls_layer_state_create(&state[layers - 1], s.plan));
        MPI_CHECK(live(&s, LS_TAG_ACTIVATION) - kept == more,
                  "t %d c %d sp %d %s: %zu layers keep %zu bytes, planned %zu", o.tp, o.cp, o.sp,
                  o.recompute, layers, live(&s, LS_TAG_ACTIVATION) - kept, more);
        MPI_CHECK(ls_ledger_live_total(ledger) - before == more, "of all tags");
    }
    double most = (double)(planned.paper + planned.own);
    run.has_rows = false;
    run.layout = ls_attention_plan_query_layout(s.plan->attention).kind;
    const struct ls_kept_bytes of_most = ls_layer_kept_bytes(&model, &run);
    MPI_CHECK_OK(ls_comm_reduce(&most, world, 1, LS_REDUCE_MAX));
    MPI_CHECK(most == (double)(of_most.paper + of_most.own), "of the rank that has most");
    for (int i = 0; i < COUNT(state); i++) ls_layer_state_destroy(state[i]);
    ls_layer_plan_destroy(s.plan);
    ls_device_close(s.device);
}

MPI_TEST(layer, keeps_what_is_planned_to_the_byte)
{
    static const char *const sets[] = {"none",          "selective", "core", "norm",
                                       "activation",    "mlp",       "qkv",  "dropout",
                                       "core,norm,mlp", "full"};

    for (int t = 1; t <= size && t <= 4; t++)
        for (int i = 0; i < COUNT(sets) * COUNT(kinds) * 2 && size % t == 0 && 4 % t == 0; i++) {
            struct ls_layer_shape n = shapes[i % 2];
            struct ls_layer_options o = kinds[i / 2 % COUNT(kinds)];

            o.tp = t;
            o.cp = size / t;
            o.sp = t > 1 && i % 2;
            o.recompute = sets[i / 2 / COUNT(kinds)];
            if ((o.cp - 1) * LS_LEAF < n.s) check_kept(&n, o);
        }
}

/* Bytes that all ranks send in a backward. */
static double backward_bytes(struct whole *w, const struct ls_layer_options *o)
{
    struct side s;

    open_side(&s, world, w, o);
    MPI_CHECK_OK(ls_layer_forward(&s.y, s.plan, s.state, &s.weights, &s.x, 11));
    double sent = -(double)s.plan->traffic.bytes_sent;
    MPI_CHECK_OK(ls_layer_backward(&s.dx, &s.gradients, s.plan, s.state, &s.weights, &s.dy));
    sent += (double)s.plan->traffic.bytes_sent;
    close_side(&s);
    MPI_CHECK_OK(ls_comm_reduce(&sent, world, 1, LS_REDUCE_SUM));
    return sent;
}

MPI_TEST(layer, bringing_back_exchanges_what_is_planned)
{
    static const char *const sets[] = {"norm,activation,core", "qkv", "qkv,mlp", "full"};
    const struct ls_layer_shape *n = &shapes[0];
    struct whole w;

    if (4 % size != 0) MPI_SKIP("4 heads");
    create_whole(&w, n, &kinds[0]);
    for (int i = 0; i < 2 * COUNT(sets); i++) {
        struct ls_layer_options o = kinds[0];

        o.tp = size;
        o.cp = 1;
        o.sp = i % 2;
        const double none = backward_bytes(&w, &o);
        o.recompute = sets[i / 2];
        const struct ls_model_shape model = model_of(n, &o);
        struct ls_model_run run = run_of(n, &o);
        MPI_CHECK_OK(ls_pieces_parse(&run.pieces, o.recompute));
        const double more = backward_bytes(&w, &o) - none;
        const double planned = size * ls_layer_again(&model, &run).exchanged;

        MPI_CHECK(more == planned, "t %d sp %d %s: %.0f bytes more, planned %.0f", o.tp, o.sp,
                  o.recompute, more, planned);
    }
    destroy_whole(&w);
}

/* ---- what is refused */

MPI_TEST(layer, what_does_not_fit_is_refused)
{
    static const struct {
        struct ls_layer_shape shape;
        struct ls_layer_options options;
        ls_status status;
        const char *says;
    } cases[] = {
        {{1, 256, 8, 3, 3, 4, 8, LS_F32}, {.tp = 2}, LS_ESHAPE, "3 heads cannot be shared"},
        {{1, 256, 8, 4, 2, 4, 8, LS_F32}, {.tp = 4}, LS_ESHAPE, "2 key/value heads cannot"},
        {{1, 256, 8, 4, 4, 4, 9, LS_F32}, {.tp = 2}, LS_ESHAPE, "9 columns of the MLP cannot"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F16}, {.tp = 1}, LS_ETYPE, "not f16"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F32}, {.dropout = 1}, LS_EVALUE, "dropout is 1"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F32}, {.recompute = "coer"}, LS_EVALUE, "(core?)"},
        {{1, 256, 8, 4, 4, 5, 8, LS_F32}, {.rope_theta = 1e4F}, LS_ESHAPE, "head dim is 5"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F32}, {.tp = 1, .cp = 7}, LS_EVALUE, "are not the"},
    };
    struct ls_device *device;

    MPI_CHECK_OK(ls_device_open(&device, "cpu", 0, 1));
    for (int i = 0; i < COUNT(cases); i++) {
        struct ls_layer_options o = cases[i].options;
        struct ls_layer_plan *plan;

        o.size = sizeof o;
        o.device = device;
        check_failure(ls_layer_plan_create(&plan, world, &cases[i].shape, &o), cases[i].status,
                      cases[i].says, cases[i].says);
    }
    ls_device_close(device);
}

MPI_TEST(layer, a_bad_tensor_on_one_rank_fails_on_all)
{
    struct ls_layer_options o = kinds[0];
    struct whole w;
    struct side s;

    o.tp = size <= 4 && 4 % size == 0 ? size : 1;
    o.cp = size / o.tp;
    if ((o.cp - 1) * LS_LEAF >= shapes[0].s) MPI_SKIP("more ranks than leaves");
    create_whole(&w, &shapes[0], &kinds[0]);
    open_side(&s, world, &w, &o);
    if (rank == size - 1) s.weights.qkv = NULL;
    check_failure(ls_layer_forward(&s.y, s.plan, s.state, &s.weights, &s.x, 1), LS_EVALUE,
                  "qkv is missing", "no weights");
    s.weights.qkv = &s.weight[QKV];
    if (rank == 0) s.x.dim[1]++;
    check_failure(ls_layer_forward(&s.y, s.plan, s.state, &s.weights, &s.x, 1), LS_ESHAPE,
                  "x: dimension 1", "rows");
    if (rank == 0) s.x.dim[1]--;
    run_side(&s);
    judge_side(&s, &w, o.tp, "after failures");
    close_side(&s);
    destroy_whole(&w);
}
