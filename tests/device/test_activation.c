/* Activations and their gradients are those of the oracle, wherever rows lie, and an element's bits
 * depend on the element alone. */
#include <fenv.h>
#include <math.h>

#include "device/pointwise.h"
#include "reference/activation.h"
#include "sheet.h"

#define U 0x1p-24

static const char *const names[] = {"gelu tanh", "gelu erf", "relu", "swiglu"};

struct problem {
    ls_activation kind;
    struct sheet z, dy, y, dz;
};

/* With a gap of 3 dz has none: some in one piece, some not. */
static struct problem problem_create(ls_activation kind, ls_dtype type, int64_t b, int64_t s,
                                     int64_t f, int64_t gap)
{
    const int64_t e = kind == LS_ACTIVATION_SWIGLU ? 2 * f : f;
    struct problem p = {kind, sheet_create(type, b, s, e, gap), sheet_create(type, b, s, f, gap),
                        sheet_create(type, b, s, f, gap),
                        sheet_create(type, b, s, e, gap == 3 ? 0 : gap)};

    need_family(open_device(1)->ops->pointwise, "pointwise operations");
    sheet_fill(&p.z, 1, 2.5F, 0);
    sheet_fill(&p.dy, 2, 1, 0);
    return p;
}

static void problem_destroy(struct problem *p)
{
    free(p->z.memory);
    free(p->dy.memory);
    free(p->y.memory);
    free(p->dz.memory);
}

static void run(struct problem *p, int threads)
{
    struct mirror m = {.device = open_device(threads)};
    struct ls_queue *const queue = &m.device->queue;
    struct ls_tensor y, dz, z, dy;

    sheet_result(&y, &m, &p->y);
    sheet_result(&dz, &m, &p->dz);
    mirror_input(&z, &m, &p->z.t);
    mirror_input(&dy, &m, &p->dy.t);
    ls_activation_forward(queue, &y, &z, p->kind);
    ls_activation_backward(queue, &dz, &dy, &z, p->kind);
    cr_assert_eq(ls_queue_finish(NULL, queue), LS_OK, "%s", ls_message());
    mirror_read_back(&m);
    ls_device_close(m.device);
}

/* What an activation is made of: z s(x), whose slope is s + z s'. s = 1 / (1 + e^-x), or for erf
 * the integral with x = -z^2/2 on the side where it is small. */
struct parts {
    double x, s, bent; /* bent: z s' */
};

static struct parts parts_of(ls_activation kind, double z)
{
    double x = z, dx = 1;

    if (kind == LS_ACTIVATION_RELU) return (struct parts){0, z > 0, 0};
    if (kind == LS_ACTIVATION_GELU_ERF)
        return (struct parts){copysign(z * z / 2, z), erfc(-z * M_SQRT1_2) / 2,
                              z * exp(-z * z / 2) / sqrt(2 * M_PI)};
    if (kind == LS_ACTIVATION_GELU_TANH) {
        x = 2 * sqrt(2 / M_PI) * (z + 0.044715 * z * z * z);
        dx = 2 * sqrt(2 / M_PI) * (1 + 3 * 0.044715 * z * z);
    }
    return (struct parts){x, 1 / (1 + exp(-x)), z * dx / (2 + exp(-x) + exp(x))};
}

/* An exponential errs by a rounding of its exponent, and by some more. */
static double roundings(struct parts p, double z)
{
    return (8 + 4 * (z < 0 ? -p.x : 0)) * U;
}

static void expect_near(const struct problem *p, const char *what, double z, double value,
                        double exact, double bound)
{
    bound += (p->z.t.type == LS_BF16 ? 0x1p-8 : U) * fabs(exact) + 0x1p-125 * (1 + fabs(z * z * z));
    cr_assert(fabs(value - exact) <= bound,
              "%s %s %s: %s of %.9g is %.9g for %.9g, error / bound %.3g", variant->name,
              ls_dtype_name(p->z.t.type), names[p->kind], what, z, value, exact,
              fabs(value - exact) / bound);
}

static void check_row(const struct problem *p, int64_t i, int64_t j)
{
    const int64_t e = p->z.t.dim[2], f = p->y.t.dim[2];
    double *const z = malloc((size_t)e * sizeof *z), *const dz = malloc((size_t)e * sizeof *dz);
    double *const dy = malloc((size_t)f * sizeof *dy), *const y = malloc((size_t)f * sizeof *y);

    for (int64_t k = 0; k < e; k++) z[k] = sheet_load(&p->z, i, j, k);
    for (int64_t k = 0; k < f; k++) dy[k] = sheet_load(&p->dy, i, j, k);
    ls_reference_activation_forward(y, p->kind, z, f);
    ls_reference_activation_backward(dz, p->kind, dy, z, f);
    for (int64_t k = 0; k < f; k++) {
        const struct parts parts = parts_of(p->kind, z[k]);
        const double u = roundings(parts, z[k]), other = e > f ? fabs(z[f + k]) : 1;

        expect_near(p, "y", z[k], sheet_load(&p->y, i, j, k), y[k], u * fabs(y[k]));
        expect_near(p, "dz", z[k], sheet_load(&p->dz, i, j, k), dz[k],
                    u * fabs(dy[k]) * (parts.s + fabs(parts.bent)) * other);
        if (e > f)
            expect_near(p, "dvalues", z[k], sheet_load(&p->dz, i, j, f + k), dz[f + k],
                        u * fabs(dz[f + k]));
    }
    free(z);
    free(dz);
    free(dy);
    free(y);
}

static void are_those_of_the_oracle(void)
{
    static const int64_t lengths[] = {1, 3, 57}, widths[] = {1, 5, 77, 768, 1100};

    for (int i = 0; i < LENGTH(lengths) * LENGTH(widths); i++)
        for (int kind = 0; kind < 8; kind++) {
            struct problem p =
                problem_create((ls_activation)(kind / 2), kind % 2 ? LS_BF16 : LS_F32, i % 2 + 1,
                               lengths[i / LENGTH(widths)], widths[i % LENGTH(widths)],
                               (const int64_t[]){0, 3, 4}[i % 3]);

            run(&p, i % 5 + 1);
            for (int64_t row = 0; row < p.y.t.dim[0] * p.y.t.dim[1]; row++)
                check_row(&p, row / p.y.t.dim[1], row % p.y.t.dim[1]);
            sheet_expect_untouched_around(&p.y, "y");
            sheet_expect_untouched_around(&p.dz, "dz");
            problem_destroy(&p);
        }
}

/* From one end of what matters to the other, closely; tails are small, but not 0. */
static void are_right_everywhere(void)
{
    enum { N = 60000 };

    for (int kind = 0; kind < 3; kind++) {
        struct problem p = problem_create((ls_activation)kind, LS_F32, 1, 1, N, 0);

        for (int k = 0; k < N; k++) {
            sheet_store(&p.z, 0, 0, k, (k - N / 2) * 5e-4);
            sheet_store(&p.dy, 0, 0, k, 1);
        }
        run(&p, 1);
        check_row(&p, 0, 0);
        problem_destroy(&p);
    }
}

/* Far from 0 all but ReLU are z or 0, and their slopes 1 or 0; no power leaves f32. */
static void have_their_limits(void)
{
    static const double far[] = {-1e30, -1e5, 1e5, 1e30};
    enum { N = LENGTH(far) };

    for (int kind = 0; kind < 8; kind++) {
        struct problem p =
            problem_create((ls_activation)(kind / 2), kind % 2 ? LS_BF16 : LS_F32, 1, 1, N, 0);

        for (int k = 0; k < N; k++) {
            sheet_store(&p.z, 0, 0, k, far[k]);
            if (p.kind == LS_ACTIVATION_SWIGLU) sheet_store(&p.z, 0, 0, N + k, 1);
            sheet_store(&p.dy, 0, 0, k, 1);
        }
        run(&p, 1);
        for (int k = 0; k < N; k++) {
            const double z = sheet_load(&p.z, 0, 0, k);

            cr_expect_float_eq(sheet_load(&p.y, 0, 0, k), z > 0 ? z : 0, 1e-7, "%s of %g is %g",
                               names[p.kind], z, sheet_load(&p.y, 0, 0, k));
            cr_expect_eq(sheet_load(&p.dz, 0, 0, k), z > 0, "slope of %s at %g", names[p.kind], z);
        }
        problem_destroy(&p);
    }
}

static void have_the_nan_of_their_element_only(void)
{
    for (int kind = 0; kind < 8; kind++) {
        struct problem p =
            problem_create((ls_activation)(kind / 2), kind % 2 ? LS_BF16 : LS_F32, 1, 3, 40, 0);

        sheet_store(&p.z, 0, 1, 17, NAN);
        run(&p, 1);
        for (int k = 0; k < 120; k++) {
            const bool is_it = k == 57;

            cr_expect_eq(isnan(sheet_load(&p.y, 0, k / 40, k % 40)), is_it, "%s y %d",
                         names[p.kind], k);
            cr_expect(p.kind == LS_ACTIVATION_RELU ||
                          isnan(sheet_load(&p.dz, 0, k / 40, k % 40)) == is_it,
                      "%s dz %d", names[p.kind], k);
        }
        problem_destroy(&p);
    }
}

/* As one piece and in rows apart, in place, by any number of threads, in any rounding. */
static void do_not_depend_on_place_and_threads(void)
{
    for (int kind = 0; kind < 8; kind++) {
        const ls_activation act = (ls_activation)(kind / 2);
        const ls_dtype type = kind % 2 ? LS_BF16 : LS_F32;
        struct problem p = problem_create(act, type, 2, 67, 123, 0);

        run(&p, 1);
        for (int threads = 1; threads <= 5; threads++) {
            struct problem other = problem_create(act, type, 2, 67, 123, threads % 3);

            fesetround(threads % 2 ? FE_TONEAREST : FE_UPWARD);
            run(&other, threads);
            fesetround(FE_TONEAREST);
            sheet_expect_equal(&p.y, &other.y, names[act]);
            sheet_expect_equal(&p.dz, &other.dz, names[act]);
            problem_destroy(&other);
        }
        problem_destroy(&p);
    }
}

static void may_be_in_place(void)
{
    for (int kind = 0; kind < 8; kind++) {
        struct problem p =
            problem_create((ls_activation)(kind / 2), kind % 2 ? LS_BF16 : LS_F32, 1, 5, 700, 3);
        const bool gated = p.kind == LS_ACTIVATION_SWIGLU;
        struct mirror m = {.device = open_device(2)};
        struct sheet y = sheet_create(p.z.t.type, 1, 5, p.z.t.dim[2], 3);
        struct sheet back = sheet_create(p.z.t.type, 1, 5, p.z.t.dim[2], 3);
        struct ls_tensor z, dz, dy;

        run(&p, 1);
        memcpy(y.memory, p.z.memory, y.bytes);
        memcpy(back.memory, p.z.memory, back.bytes);
        sheet_result(&z, &m, &y);
        sheet_result(&dz, &m, &back);
        mirror_input(&dy, &m, &p.dy.t);
        if (!gated) ls_activation_forward(&m.device->queue, &z, &z, p.kind);
        ls_activation_backward(&m.device->queue, &dz, &dy, &dz, p.kind);
        cr_assert_eq(ls_queue_finish(NULL, &m.device->queue), LS_OK);
        mirror_read_back(&m);
        if (!gated) sheet_expect_equal(&p.y, &y, names[p.kind]);
        sheet_expect_equal(&p.dz, &back, names[p.kind]);
        free(y.memory);
        free(back.memory);
        problem_destroy(&p);
    }
}

TEST_EACH_VARIANT(activation, are_those_of_the_oracle)
TEST_EACH_VARIANT(activation, are_right_everywhere)
TEST_EACH_VARIANT(activation, have_their_limits)
TEST_EACH_VARIANT(activation, have_the_nan_of_their_element_only)
TEST_EACH_VARIANT(activation, do_not_depend_on_place_and_threads)
TEST_EACH_DEVICE(activation, may_be_in_place)
