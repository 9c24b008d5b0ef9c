/* Linear layers and their gradients against double: types, shapes, rows that lie apart, bias, GELU;
 * and what their kernels take. */
#include <fenv.h>
#include <time.h>

#include "linear_harness.h"

static const ls_dtype types[] = {LS_F32, LS_BF16};

/* out against its exact value: each element within its rounding and that of f32 sums, whose terms
 * have the magnitudes that `size` adds up, and the whole within what rounding alone does. */
static void expect_exact(const struct matrix *out, const double *exact, const double *size,
                         const char *what)
{
    const ls_dtype type = out->t.type;
    const int64_t n = out->t.dim[0] * out->t.dim[1];
    double *found = matrix_widen(out), error = 0, rounding = 0, norm = 0;

    for (int64_t i = 0; i < n; i++) {
        const double e = fabs(found[i] - exact[i]);
        const double limit =
            ls_dtype_unit(type) * fabs(exact[i]) + 8 * 0x1p-24 * size[i] + ls_dtype_smallest(type);
        double rounded = 0;

        cr_assert(e <= limit,
                  "%s %s of %ld x %ld, %s: element %ld is %.9g, not %.9g (magnitudes %g)",
                  variant->name, what, (long)out->t.dim[0], (long)out->t.dim[1],
                  ls_dtype_name(type), (long)i, found[i], exact[i], size[i]);
        ls_dtype_store(type, &rounded, exact[i]);
        const double r = ls_dtype_load(type, &rounded) - exact[i];
        error += e * e;
        rounding += r * r;
        norm += exact[i] * exact[i];
    }
    const double limit = type == LS_F32 ? 8e-7 : 1.02 * sqrt(rounding / norm) + 2e-5;
    cr_expect_leq(sqrt(error / norm), limit, "%s %s of %ld x %ld, %s", variant->name, what,
                  (long)out->t.dim[0], (long)out->t.dim[1], ls_dtype_name(type));
    expect_marks_around(out, what);
    free(found);
}

/* Results of a layer in double, and with the magnitudes of all its operands. */
struct truth {
    double *x, *w, *bias, *dy, *out;
};

static struct truth truth_open(const struct layer *l, bool magnitudes)
{
    const struct ls_linear_shape *s = &l->shape;
    const int64_t most = s->in > s->out ? s->in : s->out;
    const int64_t rows = s->rows > most ? s->rows : most;
    struct truth t = {matrix_widen(&l->x), matrix_widen(&l->w), matrix_widen(&l->bias),
                      matrix_widen(&l->dy), malloc((size_t)(rows * most) * sizeof(double))};

    if (!magnitudes) return t;
    for (int64_t i = 0; i < s->rows * s->in; i++) t.x[i] = fabs(t.x[i]);
    for (int64_t i = 0; i < s->out * s->in; i++) t.w[i] = fabs(t.w[i]);
    for (int64_t i = 0; i < s->out; i++) t.bias[i] = fabs(t.bias[i]);
    for (int64_t i = 0; i < s->rows * s->out; i++) t.dy[i] = fabs(t.dy[i]);
    return t;
}

static void truth_close(struct truth *t)
{
    double *all[] = {t->x, t->w, t->bias, t->dy, t->out};

    for (int i = 0; i < LENGTH(all); i++) free(all[i]);
}

static void expect_layer_exact(struct layer *l, struct ls_device *device,
                               struct ls_linear_kernel *kernel, bool bias)
{
    const struct ls_linear_shape *s = &l->shape;
    const struct ls_reference_linear shape = {s->rows, s->in, s->out};
    struct truth exact = truth_open(l, false), size = truth_open(l, true);
    struct ls_leaf leaf[MOST_LEAVES];

    run_forward(l, device, kernel, (struct forward){.bias = bias});
    ls_reference_linear(exact.out, &shape, exact.x, exact.w, bias ? exact.bias : NULL);
    ls_reference_linear(size.out, &shape, size.x, size.w, bias ? size.bias : NULL);
    expect_exact(&l->y, exact.out, size.out, bias ? "y" : "y without bias");
    run_dx(l, device, kernel);
    ls_reference_linear_dx(exact.out, &shape, exact.dy, exact.w);
    ls_reference_linear_dx(size.out, &shape, size.dy, size.w);
    expect_exact(&l->dx, exact.out, size.out, "dx");
    run_dw(l, device, kernel, all_leaves(leaf, s), false);
    ls_reference_linear_dw(exact.out, &shape, exact.dy, exact.x);
    ls_reference_linear_dw(size.out, &shape, size.dy, size.x);
    expect_exact(&l->dw, exact.out, size.out, "dw");
    truth_close(&size);
    truth_close(&exact);
}

/* Of one sequence, and of several that end within a leaf. */
static void shapes_are_exact(void)
{
    static const struct {
        int64_t b, s, in, out;
    } cases[] = {{1, 1, 1, 1},      {1, 3, 5, 77},    {1, 257, 77, 5},  {1, 257, 1, 33},
                 {3, 1, 768, 31},   {1, 1, 31, 1100}, {1, 257, 768, 5}, {1, 130, 1100, 40},
                 {1, 65, 40, 1100}, {2, 32, 64, 96},  {3, 300, 33, 65}, {1, 3, 2100, 6},
                 {1, 40, 530, 300}};

    for (int i = 0; i < LENGTH(cases) * LENGTH(types); i++) {
        const int c = i / LENGTH(types);
        struct layer l = {.shape = {.type = types[i % LENGTH(types)],
                                    .rows = cases[c].b * cases[c].s,
                                    .in = cases[c].in,
                                    .out = cases[c].out,
                                    .backward = true,
                                    .b = cases[c].b,
                                    .s = cases[c].s}};
        struct ls_device *device = open_device(1 + c % 3);
        struct ls_linear_kernel *kernel = open_kernel(device, &l.shape);

        layer_open(&l, c % 4 * 3);
        expect_layer_exact(&l, device, kernel, c % 2 == 0);
        layer_close(&l);
        ls_linear_kernel_destroy(device, kernel);
    }
}

/* y and dx of bf16 operands, not rounded: as exact as sums in f32. */
static void results_may_stay_in_f32(void)
{
    struct layer l = {.shape = {LS_BF16, 70, 1100, 45, true, 1, 70}};
    struct ls_device *device = open_device(2);
    struct ls_linear_kernel *kernel = open_kernel(device, &l.shape);

    layer_open(&l, 0);
    free(l.y.memory);
    free(l.dx.memory);
    l.y = matrix_open(LS_F32, 70, 45, 3, MARK);
    l.dx = matrix_open(LS_F32, 70, 1100, 3, MARK);
    expect_layer_exact(&l, device, kernel, true);
    layer_close(&l);
    ls_linear_kernel_destroy(device, kernel);
}

/* Sums that lie in the middle between two numbers of bf16. */
static void ties_go_to_even(void)
{
    static const struct {
        double first, result;
    } cases[] = {{1, 1}, {1 + 0x1p-7, 1 + 0x1p-6}, {-1, -1 + 0x1p-8}, {0x1p8, 0x1p8}};
    struct layer l = {.shape = {.type = LS_BF16, .rows = 1, .in = 2, .out = LENGTH(cases)}};
    struct ls_device *device = open_device(1);
    struct ls_linear_kernel *kernel = open_kernel(device, &l.shape);
    const double one[] = {1, 1};

    layer_open(&l, 0);
    ls_dtype_convert(row_of(&l.x, 0), LS_BF16, one, LS_F64, 2);
    for (int i = 0; i < LENGTH(cases); i++) {
        const double w[] = {cases[i].first, 0x1p-8};

        ls_dtype_convert(row_of(&l.w, i), LS_BF16, w, LS_F64, 2);
    }
    run_forward(&l, device, kernel, (struct forward){0});
    double *y = matrix_widen(&l.y);
    for (int i = 0; i < LENGTH(cases); i++)
        cr_expect_eq(y[i], cases[i].result, "%s: %g + 2^-8 became %g", variant->name,
                     cases[i].first, y[i]);
    free(y);
    layer_close(&l);
    ls_linear_kernel_destroy(device, kernel);
}

/* ---- GELU */

static double exact_gelu(double z)
{
    return z / (1 + exp(-2 * sqrt(2 / acos(-1.0)) * (z + 0.044715 * z * z * z)));
}

/* z is what the layer gives without GELU, and y is its GELU, whether z is wanted or not. */
static void expect_gelu(struct layer *l, struct ls_device *device, struct ls_linear_kernel *kernel)
{
    struct layer plain = *l, fused = *l;

    plain.y = matrix_open(l->shape.type, l->shape.rows, l->shape.out, 5, MARK);
    fused.y = matrix_open(l->shape.type, l->shape.rows, l->shape.out, 1, MARK);
    run_forward(&plain, device, kernel, (struct forward){.bias = true});
    run_forward(l, device, kernel, (struct forward){.bias = true, .gelu = true, .z = true});
    run_forward(&fused, device, kernel, (struct forward){.bias = true, .gelu = true});
    expect_same_rows(&l->z, &plain.y, "z");
    expect_same_rows(&l->y, &fused.y, "y without z");
    expect_marks_around(&l->z, "z");

    double *z = matrix_widen(&l->z), *exact = matrix_widen(&l->z);
    for (int64_t i = 0; i < l->shape.rows * l->shape.out; i++) exact[i] = exact_gelu(z[i]);
    for (int64_t i = 0; i < l->shape.rows * l->shape.out; i++) z[i] = fabs(z[i]) / 4;
    expect_exact(&l->y, exact, z, "gelu");
    free(exact);
    free(z);
    free(plain.y.memory);
    free(fused.y.memory);
}

/* A layer of weights 1 on the diagonal hands its input through: GELU of z as stored has the same
 * bits wherever and behind whatever it is computed. */
static void expect_gelu_of_stored(const struct layer *l, struct ls_device *device)
{
    const int64_t n = l->shape.out;
    struct layer same = {.shape = l->shape};
    struct matrix y;

    same.shape.in = n;
    layer_open(&same, 0);
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < n; c++)
            ls_dtype_store(l->shape.type,
                           row_of(&same.w, r) + c * (int64_t)ls_dtype_size(l->shape.type),
                           r == c ? 1 : 0);
    for (int64_t r = 0; r < l->shape.rows; r++)
        memcpy(row_of(&same.x, r), row_of(&l->z, r), row_bytes(&l->z));
    y = same.y;

    struct ls_linear_kernel *kernel = open_kernel(device, &same.shape);
    run_forward(&same, device, kernel, (struct forward){.gelu = true});
    expect_same_rows(&l->y, &y, "gelu of z that was stored");
    ls_linear_kernel_destroy(device, kernel);
    layer_close(&same);
}

static void gelu_is_that_of_z_as_stored(void)
{
    for (int i = 0; i < 2 * LENGTH(types); i++) {
        struct layer l = {
            .shape = {.type = types[i % 2], .rows = 70, .in = i < 2 ? 33 : 3, .out = 101}};
        struct ls_device *device = open_device(2);
        struct ls_linear_kernel *kernel = open_kernel(device, &l.shape);

        layer_open(&l, 27 * (i % 2)); /* rows of bf16 on whole lines, and not */
        expect_gelu(&l, device, kernel);
        expect_gelu_of_stored(&l, device);
        layer_close(&l);
        ls_linear_kernel_destroy(device, kernel);
    }
}

/* One row and one column whose product is z. */
static double gelu_of(ls_dtype type, double z)
{
    struct layer l = {.shape = {.type = type, .rows = 1, .in = 1, .out = 1}};
    struct ls_device *device = open_device(1);
    struct ls_linear_kernel *kernel = open_kernel(device, &l.shape);

    layer_open(&l, 0);
    ls_dtype_store(type, l.x.t.data, z);
    ls_dtype_store(type, l.w.t.data, 1);
    run_forward(&l, device, kernel, (struct forward){.gelu = true});
    const double y = ls_dtype_load(type, l.y.t.data);
    layer_close(&l);
    ls_linear_kernel_destroy(device, kernel);
    return y;
}

static void gelu_of_large_numbers(void)
{
    for (int i = 0; i < LENGTH(types); i++) {
        const ls_dtype type = types[i];

        cr_expect_eq(gelu_of(type, 0), 0);
        cr_expect_eq(gelu_of(type, 10), 10);
        cr_expect_eq(gelu_of(type, 0x1p100), 0x1p100);
        cr_expect_eq(gelu_of(type, INFINITY), INFINITY);
        cr_expect(isnan(gelu_of(type, NAN)));
        cr_expect_leq(fabs(gelu_of(type, -11)), 1e-36);
        cr_expect_leq(fabs(gelu_of(type, -0x1p60)), 0x1p-60);
    }
}

/* ---- what is around a call */

static void float_mode_of_the_caller_changes_nothing(void)
{
    for (int i = 0; i < LENGTH(types); i++) {
        struct layer l = {.shape = {types[i], 40, 200, 70, true, 1, 40}}, up = {.shape = l.shape};
        struct ls_device *device = open_device(1);
        struct ls_linear_kernel *kernel = open_kernel(device, &l.shape);
        struct layer *both[] = {&l, &up};
        struct ls_leaf leaf[MOST_LEAVES];

        for (int j = 0; j < 2; j++) {
            layer_open(both[j], 0);
            fesetround(j == 0 ? FE_TONEAREST : FE_UPWARD);
            run_forward(both[j], device, kernel, (struct forward){.bias = true, .gelu = true});
            run_dx(both[j], device, kernel);
            run_dw(both[j], device, kernel, all_leaves(leaf, &l.shape), false);
            cr_expect_eq(fegetround(), j == 0 ? FE_TONEAREST : FE_UPWARD);
        }
        fesetround(FE_TONEAREST);
        expect_same_rows(&l.y, &up.y, "y of a caller that rounds up");
        expect_same_rows(&l.dx, &up.dx, "dx of a caller that rounds up");
        expect_same_rows(&l.dw, &up.dw, "dw of a caller that rounds up");
        layer_close(&l);
        layer_close(&up);
        ls_linear_kernel_destroy(device, kernel);
    }
}

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void beat(void *context)
{
    ++*(int64_t *)context;
}

static void run_operation(struct layer *l, struct ls_device *device,
                          struct ls_linear_kernel *kernel, int operation)
{
    struct ls_leaf leaf[MOST_LEAVES];

    if (operation == 0) run_forward(l, device, kernel, (struct forward){.bias = true});
    if (operation == 1) run_dx(l, device, kernel);
    if (operation == 2) run_dw(l, device, kernel, all_leaves(leaf, &l->shape), false);
}

/* Not a measurement: the promise is half a millisecond. A machine that is busy with others has more
 * attempts. */
static void messages_move_and_tiles_are_counted(void)
{
    enum { ATTEMPTS = 20 };
    struct layer l = {.shape = {LS_F32, 700, 1500, 700, true, 1, 700}};
    struct ls_device *device = open_device(1);
    struct ls_linear_kernel *kernel = open_kernel(device, &l.shape);

    layer_open(&l, 0);
    for (int operation = 0; operation < 3; operation++) {
        int64_t beats = 0;
        double seconds = 1;

        for (int i = 0; i < ATTEMPTS && (double)beats < seconds / 2e-3; i++) {
            beats = 0;
            device->queue.progress = (struct ls_progress){beat, &beats};
            linear_work = (struct ls_work){0};
            const double since = cpu_seconds();
            run_operation(&l, device, kernel, operation);
            seconds = cpu_seconds() - since;
        }
        cr_expect_geq((double)beats, seconds / 2e-3, "operation %d: %ld beats in %g s", operation,
                      (long)beats, seconds);
        cr_expect_gt(linear_work.tiles, 0);
        cr_expect_gt(linear_work.profile.seconds[LS_EVENT_TILE], 0);
    }
    layer_close(&l);
    ls_linear_kernel_destroy(device, kernel);
}

static void bytes_are_those_of_the_ledger(void)
{
    static const struct ls_linear_shape shapes[] = {
        {.type = LS_BF16, .rows = 1, .in = 1, .out = 1},
        {.type = LS_BF16, .rows = 300, .in = 1100, .out = 77},
        {.type = LS_F32, .rows = 64, .in = 768, .out = 2304, .backward = true, .b = 1, .s = 64},
        {.type = LS_BF16, .rows = 900, .in = 50, .out = 1500, .backward = true, .b = 3, .s = 3000},
    };

    for (int i = 0; i < 3 * LENGTH(shapes); i++) {
        const struct ls_linear_shape *shape = &shapes[i % LENGTH(shapes)];
        struct ls_device *device = open_device(1 + i / LENGTH(shapes) * 2);
        struct ls_ledger *ledger = ls_device_ledger(device);

        need_family(device->ops->linear, "linear layers");
        const size_t before = ls_ledger_live(ledger, LS_TAG_WORKSPACE);
        const size_t all = ls_ledger_live_total(ledger);
        struct ls_linear_kernel *kernel = open_kernel(device, shape);

        cr_expect_eq(ls_ledger_live(ledger, LS_TAG_WORKSPACE) - before,
                     ls_linear_kernel_bytes(device, shape), "shape %d", i);
        cr_expect_eq(ls_ledger_live_total(ledger) - all, ls_linear_kernel_bytes(device, shape));
        cr_expect_str_not_empty(ls_linear_kernel_name(device, shape->type));
        ls_linear_kernel_destroy(device, kernel);
        cr_expect_eq(ls_ledger_live_total(ledger), all);
    }
}

static void other_types_are_refused(void)
{
    struct ls_device *device = open_device(1);
    struct ls_linear_kernel *kernel = NULL;

    need_family(device->ops->linear, "linear layers");
    cr_expect_eq(ls_linear_kernel_create(
                     &kernel, device,
                     &(struct ls_linear_shape){.type = LS_F16, .rows = 1, .in = 1, .out = 1}),
                 LS_ETYPE);
    cr_expect(strstr(ls_message(), "f16"), "%s", ls_message());
    cr_expect_null(kernel);
    ls_linear_kernel_destroy(device, kernel);
}

TEST_EACH_VARIANT(linear, shapes_are_exact)
TEST_EACH_VARIANT(linear, results_may_stay_in_f32)
TEST_EACH_VARIANT(linear, ties_go_to_even)
TEST_EACH_VARIANT(linear, gelu_is_that_of_z_as_stored)
TEST_EACH_VARIANT(linear, gelu_of_large_numbers)
TEST_EACH_VARIANT(linear, float_mode_of_the_caller_changes_nothing)
TEST_EACH_VARIANT(linear, bytes_are_those_of_the_ledger)
TEST_EACH_DEVICE(linear, messages_move_and_tiles_are_counted)
TEST_EACH_DEVICE(linear, other_types_are_refused)
