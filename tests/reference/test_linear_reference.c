/* The linear layer's gradients, in double, against differences of its forward. */
#include <criterion/criterion.h>
#include <math.h>

#include "reference/linear.h"

enum { ROWS = 5, IN = 4, OUT = 3 };

static const struct ls_reference_linear shape = {ROWS, IN, OUT};

static double x[ROWS * IN], w[OUT * IN], bias[OUT], dy[ROWS * OUT];

static double draw(int i)
{
    return sin(12.9898 * i + 1.0);
}

static void setup(void)
{
    for (int i = 0; i < ROWS * IN; i++) x[i] = draw(i);
    for (int i = 0; i < OUT * IN; i++) w[i] = draw(100 + i);
    for (int i = 0; i < OUT; i++) bias[i] = draw(200 + i);
    for (int i = 0; i < ROWS * OUT; i++) dy[i] = draw(300 + i);
}

/* sum dy y^2 / 2, whose gradient in y is dy y */
static double loss(void)
{
    double y[ROWS * OUT], sum = 0;

    ls_reference_linear(y, &shape, x, w, bias);
    for (int i = 0; i < ROWS * OUT; i++) sum += dy[i] * y[i] * y[i] / 2;
    return sum;
}

static void expect_slopes(double *values, const double *gradient, int n, const char *what)
{
    const double step = 1e-5;

    for (int i = 0; i < n; i++) {
        const double kept = values[i];

        values[i] = kept + step;
        const double above = loss();
        values[i] = kept - step;
        const double below = loss();
        values[i] = kept;
        cr_expect_float_eq(gradient[i], (above - below) / (2 * step), 1e-8, "%s [%d]", what, i);
    }
}

Test(linear_reference, gradients_are_slopes, .init = setup)
{
    double y[ROWS * OUT], g[ROWS * OUT], dx[ROWS * IN], dw[OUT * IN], dbias[OUT];

    ls_reference_linear(y, &shape, x, w, bias);
    for (int i = 0; i < ROWS * OUT; i++) g[i] = dy[i] * y[i];
    ls_reference_linear_dx(dx, &shape, g, w);
    ls_reference_linear_dw(dw, &shape, g, x);
    ls_reference_linear_dbias(dbias, &shape, g);
    expect_slopes(x, dx, ROWS * IN, "dx");
    expect_slopes(w, dw, OUT * IN, "dw");
    expect_slopes(bias, dbias, OUT, "dbias");
}

/* One number written down by hand, which slopes of a wrong forward would not show. */
Test(linear_reference, a_row_is_its_products)
{
    const struct ls_reference_linear one = {1, 2, 2};
    const double in[] = {2, 3}, weights[] = {5, 7, 11, 13}, added[] = {100, 1000};
    double out[2];

    ls_reference_linear(out, &one, in, weights, added);
    cr_expect_eq(out[0], 131);
    cr_expect_eq(out[1], 1061);
    ls_reference_linear(out, &one, in, weights, NULL);
    cr_expect_eq(out[0], 31);
}
