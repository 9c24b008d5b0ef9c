/* Strict mode of a layer: at one number of tensor-parallel ranks, outputs and gradients have the
 * bits that a single context-parallel rank finds, however the sequence is cut. Every group of
 * tensor-parallel ranks also computes the whole sequence alone, and compares its rows. */
#include "../mpi/harness.h"
#include "base/random.h"
#include "layer/parameters.h"
#include "layer/plan.h"
#include "tensor/dtype.h"

MPI_SUITE(layer_strict)

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

enum { PARAMETERS = LS_LAYER_PARAMETERS, X = 100, DY = 101, SHARE = 1000 };

/* A layer on some ranks, and what it gave. */
struct job {
    struct ls_layer_shape shape;
    struct ls_layer_options options;
    struct ls_device *device;
    struct ls_layer_plan *plan;
    struct ls_layer_state *state;
    struct ls_tensor weight[PARAMETERS], gradient[PARAMETERS], x, dy, y, dx;
    struct ls_layer_parameters weights, gradients;
};

/* ---- what it is given */

static size_t bytes_of(const struct ls_tensor *t)
{
    size_t bytes = (size_t)ls_dtype_size(t->type);

    for (int i = 0; i < t->ndim; i++) bytes *= (size_t)t->dim[i];
    return bytes;
}

/* Normal numbers [first, first + n) of a stream. */
static void draw(char *to, ls_dtype type, uint32_t stream, int64_t first, int64_t n)
{
    const double factor = stream == X || stream == DY ? 1 : 0.25;
    float number[32];

    for (int64_t i = 0; i < n; i++) {
        if (i % COUNT(number) == 0)
            ls_random_normal(number, 5, stream, (uint64_t)(first + i), COUNT(number));
        ls_dtype_store(type, to + i * ls_dtype_size(type),
                       (double)number[i % COUNT(number)] * factor);
    }
}

static struct ls_tensor tensor(const struct job *j, ls_dtype type, int ndim, const int64_t *dim)
{
    struct ls_tensor t = ls_tensor_view(NULL, type, ndim, dim);

    MPI_CHECK_OK(ls_device_alloc(&t.data, j->device, LS_TAG_PARAMETER, bytes_of(&t)));
    return t;
}

/* Numbers of a parameter of which ranks have shares are each rank's own. Gradients have something
 * already. */
static void open_parameters(struct job *j)
{
    const int t = j->plan->grid.t, own = j->plan->grid.tensor;

    for (int i = 0; i < PARAMETERS; i++) {
        const struct ls_parameter_part part = ls_parameter_part(i, &j->shape, &j->options, t, own);
        int64_t dim[2];
        const int ndim = ls_parameter_share(dim, &part);
        const int64_t n = dim[0] * dim[1];
        const bool shared = n < part.dim[0] * part.dim[1];
        const uint32_t stream = (uint32_t)i + (shared ? SHARE * (uint32_t)(1 + own) : 0);

        if (!ls_parameter_exists(i, &j->options)) continue;
        j->weight[i] = tensor(j, j->shape.type, ndim, dim);
        j->gradient[i] = tensor(j, LS_F32, ndim, dim);
        draw(j->weight[i].data, j->shape.type, stream, 0, n);
        draw(j->gradient[i].data, LS_F32, stream + PARAMETERS, 0, n);
        *ls_parameter_in(&j->weights, i) = &j->weight[i];
        *ls_parameter_in(&j->gradients, i) = &j->gradient[i];
    }
}

static char *row_at(const struct ls_tensor *t, int64_t batch, int64_t row)
{
    return (char *)t->data + (batch * t->stride[0] + row * t->stride[1]) * ls_dtype_size(t->type);
}

static void open_rows(struct job *j)
{
    const int64_t e = j->shape.e, rows = ls_layer_rows(j->plan), dim[] = {j->shape.b, rows, e};
    struct ls_tensor *const list[] = {&j->x, &j->dy, &j->y, &j->dx};

    for (int i = 0; i < COUNT(list); i++) *list[i] = tensor(j, j->shape.type, 3, dim);
    for (int64_t i = 0; i < j->shape.b * rows; i++) {
        const int64_t position = ls_layer_position(j->plan, i % rows);
        const int64_t at = (i / rows * j->shape.s + position) * e;

        draw(row_at(&j->x, i / rows, i % rows), j->shape.type, X, at, e);
        draw(row_at(&j->dy, i / rows, i % rows), j->shape.type, DY, at, e);
    }
}

static void close_job(struct job *j)
{
    struct ls_tensor *const list[] = {&j->x, &j->dy, &j->y, &j->dx};

    for (int i = 0; i < COUNT(list); i++) ls_device_free(j->device, list[i]->data);
    for (int i = 0; i < PARAMETERS; i++) {
        ls_device_free(j->device, j->weight[i].data);
        ls_device_free(j->device, j->gradient[i].data);
    }
    ls_layer_state_destroy(j->state);
    ls_layer_plan_destroy(j->plan);
    ls_device_close(j->device);
}

/* Collective. Whether the method can do it at all. */
static bool run_job(struct job *out, struct ls_comm *comm, const struct ls_layer_shape *shape,
                    const struct ls_layer_options *options, int threads)
{
    struct job *j = out;

    *j = (struct job){.shape = *shape, .options = *options};
    MPI_CHECK_OK(ls_device_open(&j->device, "cpu", 0, threads));
    j->options.device = j->device;
    const ls_status status = ls_layer_plan_create(&j->plan, comm, shape, &j->options);
    MPI_CHECK(status == LS_OK || status == LS_EFIT, "%s", ls_message());
    if (status == LS_EFIT) {
        ls_device_close(j->device);
        return false;
    }
    MPI_CHECK_OK(ls_layer_state_create(&j->state, j->plan, NULL));
    open_parameters(j);
    open_rows(j);
    MPI_CHECK_OK(ls_layer_forward(&j->y, j->plan, j->state, &j->weights, &j->x, 7));
    MPI_CHECK_OK(ls_layer_backward(&j->dx, &j->gradients, j->plan, j->state, &j->weights, &j->dy));
    return true;
}

/* ---- the verdict */

/* `whole` has all rows, in order. */
static bool same_rows(const struct job *j, const struct ls_tensor *rows,
                      const struct ls_tensor *whole)
{
    const size_t bytes = (size_t)(j->shape.e * ls_dtype_size(rows->type));
    const int64_t n = ls_layer_rows(j->plan);
    bool same = true;

    for (int64_t i = 0; i < j->shape.b * n; i++)
        same = same && memcmp(row_at(rows, i / n, i % n),
                              row_at(whole, i / n, ls_layer_position(j->plan, i % n)), bytes) == 0;
    return same;
}

static void compare(const struct job *j, const struct job *whole, const char *text)
{
    MPI_CHECK(same_rows(j, &j->y, &whole->y), "%s: y", text);
    MPI_CHECK(same_rows(j, &j->dx, &whole->dx), "%s: dx", text);
    for (int i = 0; i < PARAMETERS; i++) {
        const struct ls_tensor *a = &j->gradient[i], *b = &whole->gradient[i];

        MPI_CHECK(!a->data || memcmp(a->data, b->data, bytes_of(a)) == 0, "%s: %s", text,
                  ls_parameter_gradient(i));
    }
}

/* ---- cases */

/* Several leaves a rank and fewer than ranks, lengths that nothing divides, a last leaf of one row;
 * each method of attention that merges results, and those that bring all keys. */
static const struct ls_layer_shape shapes[] = {
    {.b = 2, .s = 1041, .e = 20, .h = 4, .h_kv = 2, .d = 6, .f = 26, .type = LS_F32},
    {.b = 1, .s = 1290, .e = 40, .h = 6, .h_kv = 2, .d = 8, .f = 36, .type = LS_BF16},
    {.b = 3, .s = 513, .e = 9, .h = 2, .h_kv = 2, .d = 8, .f = 70, .type = LS_F32},
    {.b = 1, .s = 100, .e = 33, .h = 2, .h_kv = 2, .d = 16, .f = 6, .type = LS_BF16},
};

static const struct ls_layer_options kinds[] = {
    {.size = sizeof(struct ls_layer_options), .causal = true, .dropout = 0.2F},
    {.size = sizeof(struct ls_layer_options),
     .norm = LS_NORM_RMS,
     .activation = LS_ACTIVATION_SWIGLU,
     .no_bias = true,
     .rope_theta = 1e4F},
    {.size = sizeof(struct ls_layer_options), .post_norm = true, .causal = true},
};

static const char *const methods[] = {"ring", "allreduce", "ulysses", "allgather", NULL};
static const char *const pieces[] = {NULL, "core,norm", "full", "mlp,qkv,dropout"};

static const ls_layout_kind layouts[] = {LS_LAYOUT_CONTIGUOUS, LS_LAYOUT_ZIGZAG, LS_LAYOUT_STRIPED};

/* Of all methods and layouts those whose turn it is; one, where the sequence is not cut. */
static void check_grid(const struct job *whole, int t, bool sp, int turn)
{
    const int step = size > t ? COUNT(shapes) : COUNT(methods) * COUNT(layouts);

    for (int i = turn; i < COUNT(methods) * COUNT(layouts); i += step) {
        struct ls_layer_options o = whole->options;
        struct job j;
        char text[120];

        o.cp = size / t;
        o.sp = sp;
        o.layout = layouts[i % COUNT(layouts)];
        o.method = methods[i / COUNT(layouts)];
        o.recompute = pieces[i % COUNT(pieces)];
        snprintf(text, sizeof text, "s %ld, t %d c %d sp %d, %s %s %s", (long)whole->shape.s, t,
                 o.cp, sp, ls_layout_name(o.layout), o.method ? o.method : "auto",
                 o.recompute ? o.recompute : "");
        if (!run_job(&j, world, &whole->shape, &o, 1 + (i + rank) % 2)) continue;
        compare(&j, whole, text);
        close_job(&j);
    }
}

/* All groups of t ranks find the same. */
static void check_shape(int which, int t)
{
    const struct ls_layer_shape *shape = &shapes[which];
    struct ls_layer_options o = kinds[which % COUNT(kinds)];
    struct ls_comm *group;
    struct job whole;
    int ranks[2];

    for (int i = 0; i < t; i++) ranks[i] = rank / t * t + i;
    MPI_CHECK_OK(ls_comm_split(&group, world, ranks, t));
    o.strict = true;
    o.tp = t;
    MPI_CHECK(run_job(&whole, group, shape, &o, 2), "one rank fits");
    for (int sp = 0; sp < t; sp++) check_grid(&whole, t, sp, which);
    close_job(&whole);
    ls_comm_destroy(group);
}

MPI_TEST(layer_strict, any_cut_of_the_sequence_has_the_bits_of_none)
{
    for (int t = 1; t <= 2 && size % t == 0; t++)
        for (int i = 0; i < COUNT(shapes); i++) check_shape(i, t);
}

/* ---- what sums of weights take */

/* Of one linear alone, on all ranks. */
struct linear {
    struct ls_device *device;
    struct ls_linear_kernel *kernel;
    struct ls_traffic traffic;
    struct ls_weight_sums sums;
    struct ls_leaf leaf[64];
    struct ls_tensor gradient, dy, x;
};

static void open_linear(struct linear *l, const struct ls_layout *layout, int64_t out, int64_t in,
                        bool strict)
{
    const int64_t rows = ls_layout_part_rows(layout, rank);
    const int64_t dims[][2] = {{out, in}, {rows, out}, {rows, in}};
    const struct ls_linear_shape shape = {LS_F32, rows, in, out, true, 1, layout->s};
    const struct ls_transport transport = ls_transport_of(world, &l->traffic);
    struct ls_weight_shape sums = {
        .layout = layout, .b = 1, .most_weights = out * in, .most_columns = in, .strict = strict};
    struct ls_tensor *const list[] = {&l->gradient, &l->dy, &l->x};

    MPI_CHECK_OK(ls_device_open(&l->device, "cpu", 0, 1));
    MPI_CHECK_OK(ls_linear_kernel_create(&l->kernel, l->device, &shape));
    sums.leaves = (struct ls_leaf_list){l->leaf, ls_layout_part_leaves(layout, rank)};
    for (int64_t i = 0; i < sums.leaves.count; i++)
        l->leaf[i] = (struct ls_leaf){ls_layout_part_leaf(layout, rank, i), i * LS_LEAF};
    MPI_CHECK_OK(ls_weight_sums_init(&l->sums, &transport, l->device, &sums));
    for (int i = 0; i < COUNT(list); i++) {
        const struct job job = {.device = l->device};

        *list[i] = tensor(&job, LS_F32, 2, dims[i]);
        memset(list[i]->data, 0, bytes_of(list[i]));
    }
}

static void close_linear(struct linear *l)
{
    ls_device_free(l->device, l->gradient.data);
    ls_device_free(l->device, l->dy.data);
    ls_device_free(l->device, l->x.data);
    ls_weight_sums_fini(&l->sums);
    ls_linear_kernel_destroy(l->device, l->kernel);
    ls_device_close(l->device);
}

static void check_linear(const struct ls_layout *layout, int64_t out, int64_t in, bool strict)
{
    const int64_t share = (out + size - 1) / size * in * (int64_t)sizeof(float);
    struct linear l = {.device = NULL};
    char text[120];

    snprintf(text, sizeof text, "%s, s %ld, %ld x %ld, strict %d", ls_layout_name(layout->kind),
             (long)layout->s, (long)out, (long)in, strict);
    open_linear(&l, layout, out, in, strict);
    const int64_t slots = (l.sums.most + 1) * size * in;
    const int64_t floats = size == 1 ? 0 : slots > out * in ? slots : out * in;
    const size_t taken = ls_ledger_live(ls_device_ledger(l.device), LS_TAG_GRADIENT);

    MPI_CHECK(taken <= (size_t)floats * sizeof(float), "%s: %zu bytes", text, taken);
    MPI_CHECK(strict || l.sums.most == (size > 1), "%s: %ld sums", text, (long)l.sums.most);
    MPI_CHECK_OK(ls_weight_sums_add(&l.sums, l.kernel, &l.gradient, &l.dy, &l.x));
    MPI_CHECK(l.traffic.bytes_sent == (size - 1) * (l.sums.most + 1) * share, "%s: %ld sent", text,
              (long)l.traffic.bytes_sent);
    close_linear(&l);
}

/* Memory of the largest gradient, or of one row for each slot; and bytes as weights.h has them. */
MPI_TEST(layer_strict, sums_of_weights_take_and_send_what_is_said)
{
    for (int i = 0; i < 2 * COUNT(layouts); i++)
        for (int64_t s = 200; s < 10000; s *= 6) {
            const struct ls_layout layout = {.kind = layouts[i / 2], .s = s, .p = size};

            for (int64_t out = 7; out < 300; out *= 5) check_linear(&layout, out, 300 / out, i % 2);
        }
}
