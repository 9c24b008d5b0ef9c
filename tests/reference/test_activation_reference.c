/* The oracle's activations have the values that are known of them, and slopes that are those of
 * differences; its rotations are rotations, by angles that depend on distance alone. */
#include <criterion/criterion.h>
#include <math.h>

#include "reference/activation.h"
#include "reference/rotary.h"

enum { F = 6 };

static const double gates[F] = {-3.1, -0.7, -0.05, 0.3, 1.1, 4}, step = 1e-6;

/* At 1: that of the tanh form, the normal integral, 1 / (1 + 1/e). */
Test(activation_reference, values_are_known)
{
    static const struct {
        ls_activation kind;
        double z, y;
    } cases[] = {
        {LS_ACTIVATION_GELU_TANH, 1, 0.8411919906082768},
        {LS_ACTIVATION_GELU_ERF, 1, 0.8413447460685429},
        {LS_ACTIVATION_RELU, -2, 0},
        {LS_ACTIVATION_RELU, 2.5, 2.5},
    };
    double y;

    for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
        ls_reference_activation_forward(&y, cases[i].kind, &cases[i].z, 1);
        cr_expect_float_eq(y, cases[i].y, 1e-15, "case %d", i);
    }
    ls_reference_activation_forward(&y, LS_ACTIVATION_SWIGLU, (const double[]){1, 3}, 1);
    cr_expect_float_eq(y, 3 * 0.7310585786300049, 1e-15);
}

static double loss(ls_activation kind, const double *dy, const double *z)
{
    double y[F], sum = 0;

    ls_reference_activation_forward(y, kind, z, F);
    for (int i = 0; i < F; i++) sum += dy[i] * y[i];
    return sum;
}

Test(activation_reference, slopes_are_those_of_differences)
{
    for (ls_activation kind = LS_ACTIVATION_GELU_TANH; kind <= LS_ACTIVATION_SWIGLU; kind++) {
        const int n = kind == LS_ACTIVATION_SWIGLU ? 2 * F : F;
        double z[2 * F], dy[F], dz[2 * F];

        for (int i = 0; i < F; i++) {
            z[i] = gates[i];
            z[F + i] = 0.4 * i - 0.9;
            dy[i] = cos(i);
        }
        ls_reference_activation_backward(dz, kind, dy, z, F);
        for (int i = 0; i < n; i++) {
            const double was = z[i];

            z[i] = was + step;
            const double above = loss(kind, dy, z);
            z[i] = was - step;
            const double below = loss(kind, dy, z);
            z[i] = was;
            cr_expect_float_eq(dz[i], (above - below) / (2 * step), 1e-8, "kind %d, %d", (int)kind,
                               i);
        }
    }
}

static double product(const double *a, const double *b)
{
    double sum = 0;

    for (int i = 0; i < F; i++) sum += a[i] * b[i];
    return sum;
}

/* What attention sees of two heads turned at their places is their distance. */
Test(activation_reference, rotations_leave_products_at_equal_distances)
{
    double frequency[F / 2];
    const struct ls_rotary rotary = {F, frequency};
    double first = 0;

    ls_rotary_frequencies(frequency, 10000, F);
    cr_expect_eq(frequency[0], 1);
    cr_expect_float_eq(frequency[1], pow(10000, -2.0 / F), 1e-16);
    for (int64_t at = 0; at < 2000000; at += 999999) {
        double a[F], b[F];

        for (int i = 0; i < F; i++) {
            a[i] = gates[i];
            b[i] = cos(i);
        }
        ls_reference_rotate(a, &rotary, at, false);
        ls_reference_rotate(b, &rotary, at + 17, false);
        if (at == 0) first = product(a, b);
        cr_expect_float_eq(product(a, b), first, 1e-9, "at %ld", (long)at);
        ls_reference_rotate(a, &rotary, at, true);
        for (int i = 0; i < F; i++) cr_expect_float_eq(a[i], gates[i], 1e-14);
    }
    cr_expect_gt(
        fabs(first - product(gates, (const double[]){1, cos(1), cos(2), cos(3), cos(4), cos(5)})),
        0.1);
}
