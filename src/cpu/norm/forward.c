#include <assert.h>
#include <math.h>

#include "base/cpu.h"
#include "cpu/device.h"
#include "cpu/elements.h"
#include "cpu/float_mode.h"
#include "cpu/norm/norm.h"

struct statistics {
    float mean, rstd; /* mean 0 for RMSNorm */
};

static ALWAYS_INLINE double sum_of_row(const void *row, ls_dtype type, int64_t e)
{
    const int64_t whole = e - e % PAIR;
    struct pair sum = load_pair(row, type, whole, (int)(e - whole), 0);

    for (int64_t i = 0; i < whole; i += PAIR) {
        const struct pair x = load_pair(row, type, i, PAIR, 0);

        for (int half = 0; half < 2; half++) sum.x[half] += x.x[half];
    }
    return sum_of_pair(sum);
}

/* Of x - origin. */
struct moments {
    double mean, square;
};

/* Lanes behind the row add nothing. */
static ALWAYS_INLINE void add_moments(struct pair *sum, struct pair *squares, const void *row,
                                      ls_dtype type, int64_t i, int n, float origin)
{
    struct pair x = load_pair(row, type, i, n, origin);

    for (int half = 0; half < 2; half++) {
        x.x[half] -= origin;
        sum->x[half] += x.x[half];
        squares->x[half] += x.x[half] * x.x[half];
    }
}

static ALWAYS_INLINE struct moments moments_of(const void *row, ls_dtype type, int64_t e,
                                               float origin)
{
    const int64_t whole = e - e % PAIR;
    struct pair sum = {{{0}}}, squares = {{{0}}};

    for (int64_t i = 0; i < whole; i += PAIR)
        add_moments(&sum, &squares, row, type, i, PAIR, origin);
    if (whole < e) add_moments(&sum, &squares, row, type, whole, (int)(e - whole), origin);
    return (struct moments){sum_of_pair(sum) / (double)e, sum_of_pair(squares) / (double)e};
}

/* The second look at the row, from near its mean, finds what rounding took from the first. */
static ALWAYS_INLINE struct statistics statistics_of(const void *row, ls_dtype type, int64_t e,
                                                     float epsilon, bool centred)
{
    const float near = centred ? (float)(sum_of_row(row, type, e) / (double)e) : 0;
    const struct moments m = moments_of(row, type, e, near);
    const double rest = centred ? m.mean : 0, variance = m.square - rest * rest;

    return (struct statistics){
        .mean = (float)((double)near + rest),
        .rstd = (float)(1 / sqrt(variance + (double)epsilon)),
    };
}

static ALWAYS_INLINE void scale_pair(void *y, const void *x, ls_dtype type, int64_t i, int n,
                                     struct statistics s, const void *gamma, const void *beta)
{
    const struct pair scale = load_pair(gamma, type, i, n, 0);
    struct pair out = load_pair(x, type, i, n, 0);

    for (int half = 0; half < 2; half++)
        out.x[half] = (out.x[half] - s.mean) * s.rstd * scale.x[half];
    if (beta) {
        const struct pair shift = load_pair(beta, type, i, n, 0);

        for (int half = 0; half < 2; half++) out.x[half] += shift.x[half];
    }
    store_pair(y, type, i, n, out);
}

static ALWAYS_INLINE void scale_row(void *y, const void *x, ls_dtype type, int64_t e,
                                    struct statistics s, const void *gamma, const void *beta)
{
    const int64_t whole = e - e % PAIR;

    for (int64_t i = 0; i < whole; i += PAIR) scale_pair(y, x, type, i, PAIR, s, gamma, beta);
    if (whole < e) scale_pair(y, x, type, whole, (int)(e - whole), s, gamma, beta);
}

static ALWAYS_INLINE struct statistics norm_row(void *y, const void *x, ls_dtype type, int64_t e,
                                                const struct ls_norm_forward *call)
{
    const struct statistics s = statistics_of(x, type, e, call->epsilon, call->mean != NULL);

    scale_row(y, x, type, e, s, call->gamma, call->beta);
    return s;
}

LS_CLONED static struct statistics norm_f32(void *y, const void *x, int64_t e,
                                            const struct ls_norm_forward *call)
{
    return norm_row(y, x, LS_F32, e, call);
}

LS_CLONED static struct statistics norm_bf16(void *y, const void *x, int64_t e,
                                             const struct ls_norm_forward *call)
{
    return norm_row(y, x, LS_BF16, e, call);
}

static void forward(void *self, const struct ls_norm_forward *call)
{
    const struct ls_tensor *x = call->x;
    const int64_t s = x->dim[1], e = x->dim[2];
    const int threads = ((const struct cpu *)self)->threads;

    assert(x->ndim == 3 && (x->type == LS_F32 || x->type == LS_BF16) && call->y->type == x->type);
#pragma omp parallel num_threads(threads)
    {
        const fenv_t callers = cpu_float_mode_enter();

#pragma omp for
        for (int64_t i = 0; i < x->dim[0] * s; i++) {
            void *const y = row_of(call->y, i / s, i % s);
            const void *const row = row_of(x, i / s, i % s);
            const struct statistics found =
                (x->type == LS_F32 ? norm_f32 : norm_bf16)(y, row, e, call);

            if (call->mean) call->mean[i] = found.mean;
            call->rstd[i] = found.rstd;
        }
        fesetenv(&callers);
    }
}

const struct ls_norm_ops cpu_norm_ops = {
    .forward = forward,
    .backward_bytes = cpu_norm_backward_bytes,
    .backward = cpu_norm_backward,
};
