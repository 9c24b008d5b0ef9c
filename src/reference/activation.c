#include "reference/activation.h"

#include <math.h>

#define PI 3.14159265358979323846

struct point {
    double value, slope;
};

/* z s with s = (1 + tanh u) / 2 = 1 / (1 + e^-2u), in which nothing cancels far below 0. */
static struct point gelu_tanh(double z)
{
    const double u = sqrt(2 / PI) * (z + 0.044715 * z * z * z);
    const double du = sqrt(2 / PI) * (1 + 3 * 0.044715 * z * z);
    const double s = 1 / (1 + exp(-2 * u)), rest = 1 / (1 + exp(2 * u));

    return (struct point){z * s, s + z * s * rest * 2 * du};
}

static struct point gelu_erf(double z)
{
    const double integral = erfc(-z / sqrt(2)) / 2;

    return (struct point){z * integral, integral + z * exp(-z * z / 2) / sqrt(2 * PI)};
}

static struct point relu(double z)
{
    return (struct point){z > 0 ? z : 0, z > 0};
}

static struct point silu(double z)
{
    const double s = 1 / (1 + exp(-z)), rest = 1 / (1 + exp(z));

    return (struct point){z * s, s + z * s * rest};
}

static struct point at(ls_activation kind, double z)
{
    if (kind == LS_ACTIVATION_GELU_TANH) return gelu_tanh(z);
    if (kind == LS_ACTIVATION_GELU_ERF) return gelu_erf(z);
    return kind == LS_ACTIVATION_RELU ? relu(z) : silu(z);
}

void ls_reference_activation_forward(double *y, ls_activation kind, const double *z, int64_t f)
{
    for (int64_t i = 0; i < f; i++)
        y[i] = at(kind, z[i]).value * (kind == LS_ACTIVATION_SWIGLU ? z[f + i] : 1);
}

void ls_reference_activation_backward(double *dz, ls_activation kind, const double *dy,
                                      const double *z, int64_t f)
{
    for (int64_t i = 0; i < f; i++) {
        const struct point p = at(kind, z[i]);

        dz[i] = dy[i] * p.slope;
        if (kind != LS_ACTIVATION_SWIGLU) continue;
        dz[i] *= z[f + i];
        dz[f + i] = dy[i] * p.value;
    }
}
