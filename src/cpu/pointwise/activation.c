#include <assert.h>

#include "base/cpu.h"
#include "cpu/device.h"
#include "cpu/float_mode.h"
#include "cpu/gelu.h"
#include "cpu/pointwise/blocks.h"
#include "cpu/pointwise/pointwise.h"
#include "cpu/pointwise/slopes.h"

/* ---- forward: y [n] of z, and of the values where there are gates; y may be z */

LS_CLONED static void gelu_tanh_forward(float *y, const float *z, const float *values, int n)
{
    (void)values;
#pragma omp simd
    for (int i = 0; i < n; i++) y[i] = cpu_gelu_tanh(z[i]);
}

LS_CLONED static void gelu_erf_forward(float *y, const float *z, const float *values, int n)
{
    (void)values;
#pragma omp simd
    for (int i = 0; i < n; i++) y[i] = gelu_erf(z[i]);
}

LS_CLONED static void relu_forward(float *y, const float *z, const float *values, int n)
{
    (void)values;
#pragma omp simd
    for (int i = 0; i < n; i++) y[i] = f32_of_bits(choose_bits(z[i] <= 0, 0, bits_of_f32(z[i])));
}

LS_CLONED static void swiglu_forward(float *y, const float *z, const float *values, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++) y[i] = z[i] * logistic(z[i]).value * values[i];
}

/* ---- backward: dz [n] of dy and z, which it may be; of gates, dvalues as well */

struct backward_rows {
    float *dz, *dvalues;
    const float *dy, *z, *values;
};

LS_CLONED static void gelu_tanh_backward(const struct backward_rows *given, int n)
{
    const struct backward_rows r = *given;

#pragma omp simd
    for (int i = 0; i < n; i++) r.dz[i] = r.dy[i] * gelu_tanh_slope(r.z[i]);
}

LS_CLONED static void gelu_erf_backward(const struct backward_rows *given, int n)
{
    const struct backward_rows r = *given;

#pragma omp simd
    for (int i = 0; i < n; i++) r.dz[i] = r.dy[i] * gelu_erf_slope(r.z[i]);
}

LS_CLONED static void relu_backward(const struct backward_rows *given, int n)
{
    const struct backward_rows r = *given;

#pragma omp simd
    for (int i = 0; i < n; i++)
        r.dz[i] = f32_of_bits(choose_bits(r.z[i] <= 0, 0, bits_of_f32(r.dy[i])));
}

/* silu'(z) = s + z s (1 - s) */
LS_CLONED static void swiglu_backward(const struct backward_rows *given, int n)
{
    const struct backward_rows r = *given;

#pragma omp simd
    for (int i = 0; i < n; i++) {
        const float z = r.z[i], dy = r.dy[i], value = r.values[i];
        const struct logistic s = logistic(z);

        r.dz[i] = dy * value * (s.value + clamp(z) * s.slope);
        r.dvalues[i] = dy * (z * s.value);
    }
}

/* ---- both of all tensors */

static const struct {
    void (*forward)(float *y, const float *z, const float *values, int n);
    void (*backward)(const struct backward_rows *rows, int n);
} activations[] = {
    [LS_ACTIVATION_GELU_TANH] = {gelu_tanh_forward, gelu_tanh_backward},
    [LS_ACTIVATION_GELU_ERF] = {gelu_erf_forward, gelu_erf_backward},
    [LS_ACTIVATION_RELU] = {relu_forward, relu_backward},
    [LS_ACTIVATION_SWIGLU] = {swiglu_forward, swiglu_backward},
};

/* Of y; rows of gates and values have no row of y's length. */
static struct blocks blocks_for(const struct ls_tensor *y, const struct ls_tensor *z,
                                const struct ls_tensor *dz, ls_activation kind)
{
    const struct ls_tensor *const all[] = {y, z, dz};

    if (kind == LS_ACTIVATION_SWIGLU) return blocks_of_rows(y->dim[0], y->dim[1], y->dim[2]);
    return blocks_of(all, 3);
}

static void forward_block(struct ls_tensor *y, const struct ls_tensor *z, ls_activation kind,
                          const struct block *b)
{
    float z_room[BLOCK], values_room[BLOCK], y_room[BLOCK];
    const bool gated = kind == LS_ACTIVATION_SWIGLU;
    const float *const values = gated ? read_block(values_room, z, b, y->dim[2]) : NULL;
    float *const out = out_block(y_room, y, b, 0);

    activations[kind].forward(out, read_block(z_room, z, b, 0), values, b->n);
    write_block(y, b, 0, out);
}

void cpu_activation_forward(void *self, struct ls_tensor *y, const struct ls_tensor *z,
                            ls_activation kind)
{
    const int threads = ((const struct cpu *)self)->threads;
    const struct blocks blocks = blocks_for(y, z, y, kind);

    assert(z->type == y->type && (y->type == LS_F32 || y->type == LS_BF16));
#pragma omp parallel num_threads(threads)
    {
        const fenv_t callers = cpu_float_mode_enter();

#pragma omp for
        for (int64_t i = 0; i < blocks.count; i++) {
            const struct block block = block_at(&blocks, i);

            forward_block(y, z, kind, &block);
        }
        fesetenv(&callers);
    }
}

static void backward_block(struct ls_tensor *dz, const struct ls_tensor *dy,
                           const struct ls_tensor *z, ls_activation kind, const struct block *b)
{
    float dy_room[BLOCK], z_room[BLOCK], values_room[BLOCK], dz_room[BLOCK], dvalues_room[BLOCK];
    const bool gated = kind == LS_ACTIVATION_SWIGLU;
    const int64_t f = dy->dim[2];
    const struct backward_rows rows = {
        .dz = out_block(dz_room, dz, b, 0),
        .dvalues = gated ? out_block(dvalues_room, dz, b, f) : NULL,
        .dy = read_block(dy_room, dy, b, 0),
        .z = read_block(z_room, z, b, 0),
        .values = gated ? read_block(values_room, z, b, f) : NULL,
    };

    activations[kind].backward(&rows, b->n);
    write_block(dz, b, 0, rows.dz);
    if (gated) write_block(dz, b, f, rows.dvalues);
}

void cpu_activation_backward(void *self, struct ls_tensor *dz, const struct ls_tensor *dy,
                             const struct ls_tensor *z, ls_activation kind)
{
    const int threads = ((const struct cpu *)self)->threads;
    const struct blocks blocks = blocks_for(dy, z, dz, kind);

    assert(z->type == dy->type && z->type == dz->type && (z->type == LS_F32 || z->type == LS_BF16));
#pragma omp parallel num_threads(threads)
    {
        const fenv_t callers = cpu_float_mode_enter();

#pragma omp for
        for (int64_t i = 0; i < blocks.count; i++) {
            const struct block block = block_at(&blocks, i);

            backward_block(dz, dy, z, kind, &block);
        }
        fesetenv(&callers);
    }
}
