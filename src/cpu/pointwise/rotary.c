#include <assert.h>
#include <string.h>

#include "base/cpu.h"
#include "cpu/device.h"
#include "cpu/elements.h"
#include "cpu/float_mode.h"
#include "cpu/pointwise/held_rows.h"
#include "cpu/pointwise/pointwise.h"
#include "longspan/attention.h"

#define MOST_PAIRS (LS_MAX_HEAD_DIM / 2)

struct turn {
    float cosine[MOST_PAIRS], sine[MOST_PAIRS];
};

#define TO_INTEGER 0x1.8p52           /* added, it leaves a whole number in the last bits */
#define TURNS 0.159154943091895335769 /* 1 / (2 pi) */
#define QUARTER_TURN 1.57079632679489661923

static ALWAYS_INLINE double with_sign(double x, uint64_t sign)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof bits);
    bits ^= sign << 63;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The nearest multiple of a quarter turn is taken off; series of what is left, within pi/4, of
 * which the first terms left out are below 2e-10. The angle itself errs by 2^-53 of itself, twice.
 */
LS_CLONED static void turn_of(struct turn *out, double position, const double *frequency, int pairs,
                              uint64_t back)
{
#pragma omp simd
    for (int i = 0; i < pairs; i++) {
        const double quarters = 4 * TURNS * (position * frequency[i]);
        const double shifted = quarters + TO_INTEGER;
        const double x = (quarters - (shifted - TO_INTEGER)) * QUARTER_TURN, xx = x * x;
        const double s =
            x - x * xx *
                    (1 / 6.0 -
                     xx * (1 / 120.0 - xx * (1 / 5040.0 - xx * (1 / 362880.0 - xx / 39916800.0))));
        const double c =
            1 -
            xx * (0.5 - xx * (1 / 24.0 - xx * (1 / 720.0 - xx * (1 / 40320.0 - xx / 3628800.0))));
        uint64_t quarter;

        memcpy(&quarter, &shifted, sizeof quarter);
        const double odd = (double)(int)(quarter & 1);
        out->sine[i] = (float)with_sign(odd * c + (1 - odd) * s, (quarter >> 1 & 1) ^ back);
        out->cosine[i] = (float)with_sign(odd * s + (1 - odd) * c, (quarter >> 1 ^ quarter) & 1);
    }
}

/* ---- heads */

/* Two elements before either is written: out may be x. */
static ALWAYS_INLINE void turn_head(void *out, const void *x, ls_dtype type,
                                    const struct turn *turn, int pairs)
{
#pragma omp simd
    for (int i = 0; i < pairs; i++) {
        const float a = load_element(x, type, i), b = load_element(x, type, i + pairs);

        store_element(out, type, i, a * turn->cosine[i] - b * turn->sine[i]);
        store_element(out, type, i + pairs, b * turn->cosine[i] + a * turn->sine[i]);
    }
}

LS_CLONED static void turn_head_f32(void *out, const void *x, const struct turn *turn, int pairs)
{
    turn_head(out, x, LS_F32, turn, pairs);
}

LS_CLONED static void turn_head_bf16(void *out, const void *x, const struct turn *turn, int pairs)
{
    turn_head(out, x, LS_BF16, turn, pairs);
}

static void *head_of(const struct ls_tensor *t, int64_t batch, int64_t row, int64_t head)
{
    return (char *)row_of(t, batch, row) + head * t->stride[2] * (int64_t)ls_dtype_size(t->type);
}

static void turn_row(struct ls_tensor *out, const struct ls_tensor *x, const struct turn *turn,
                     int dims, int64_t row)
{
    const size_t size = (size_t)ls_dtype_size(x->type), turned = (size_t)dims * size;
    const size_t rest = (size_t)x->dim[3] * size - turned;

    for (int64_t batch = 0; batch < x->dim[0]; batch++)
        for (int64_t head = 0; head < x->dim[2]; head++) {
            char *const to = head_of(out, batch, row, head);
            const char *const from = head_of(x, batch, row, head);

            (x->type == LS_F32 ? turn_head_f32 : turn_head_bf16)(to, from, turn, dims / 2);
            if (to != from) memcpy(to + turned, from + turned, rest);
        }
}

void cpu_rotate(void *self, struct ls_tensor *out, const struct ls_tensor *x,
                const struct ls_rotary *rotary, const struct ls_row_runs *runs, bool back)
{
    const int threads = ((const struct cpu *)self)->threads, dims = (int)rotary->dims;
    const int64_t rows = held_rows(runs);

    assert(x->ndim == 4 && out->type == x->type && (x->type == LS_F32 || x->type == LS_BF16));
    assert(dims % 2 == 0 && dims <= x->dim[3] && dims <= LS_MAX_HEAD_DIM);
#pragma omp parallel num_threads(threads)
    {
        const fenv_t callers = cpu_float_mode_enter();
        struct held_cursor at = {0};

#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            const struct held_row held = held_row(&at, runs, i);
            struct turn turn;

            turn_of(&turn, (double)held.position, rotary->frequency, dims / 2, back);
            turn_row(out, x, &turn, dims, held.row);
        }
        fesetenv(&callers);
    }
}

const struct ls_pointwise_ops cpu_pointwise_ops = {
    .activation_forward = cpu_activation_forward,
    .activation_backward = cpu_activation_backward,
    .add = cpu_tensor_add,
    .dropout_mask = cpu_dropout_mask,
    .dropout = cpu_dropout,
    .rotate = cpu_rotate,
};
