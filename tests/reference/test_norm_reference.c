/* The oracle's norms do what their name says, and their gradients are those of differences. */
#include "reference/norm.h"

#include <criterion/criterion.h>
#include <math.h>

enum { E = 7 };

static const double epsilon = 1e-3, step = 1e-5;

static double number(int i, int stream)
{
    return sin(1.3 * i + 2.1 * stream) + 0.2 * stream;
}

struct operands {
    double x[E], dy[E], gamma[E], beta[E];
};

static struct operands make(void)
{
    struct operands o;

    for (int i = 0; i < E; i++) {
        o.x[i] = 2 * number(i, 1) + 0.7;
        o.dy[i] = number(i, 2);
        o.gamma[i] = number(i, 3);
        o.beta[i] = number(i, 4);
    }
    return o;
}

static struct ls_reference_norm norm_of(const struct operands *o, bool rms)
{
    return (struct ls_reference_norm){
        .e = E, .epsilon = epsilon, .rms = rms, .gamma = o->gamma, .beta = rms ? NULL : o->beta};
}

/* sum dy y */
static double loss(const struct operands *o, bool rms)
{
    const struct ls_reference_norm norm = norm_of(o, rms);
    double y[E], sum = 0;

    ls_reference_norm_forward(y, &norm, o->x);
    for (int i = 0; i < E; i++) sum += o->dy[i] * y[i];
    return sum;
}

static double difference(struct operands *o, double *at, bool rms)
{
    const double was = *at;

    *at = was + step;
    const double above = loss(o, rms);
    *at = was - step;
    const double below = loss(o, rms);
    *at = was;
    return (above - below) / (2 * step);
}

Test(norm_reference, gradients_are_those_of_differences)
{
    for (int rms = 0; rms <= 1; rms++) {
        struct operands o = make();
        const struct ls_reference_norm norm = norm_of(&o, rms);
        double dx[E], dgamma[E] = {0}, dbeta[E] = {0};

        ls_reference_norm_backward(dx, dgamma, rms ? NULL : dbeta, &norm, o.dy, o.x);
        for (int i = 0; i < E; i++) {
            cr_expect_float_eq(dx[i], difference(&o, &o.x[i], rms), 1e-8, "rms %d dx %d", rms, i);
            cr_expect_float_eq(dgamma[i], difference(&o, &o.gamma[i], rms), 1e-8, "dgamma %d", i);
            cr_expect_float_eq(dbeta[i], rms ? 0 : difference(&o, &o.beta[i], rms), 1e-8,
                               "dbeta %d", i);
        }
    }
}

/* Mean 0 and deviation 1, but for epsilon; the mean of squares 1. */
Test(norm_reference, results_are_of_size_one)
{
    for (int rms = 0; rms <= 1; rms++) {
        struct operands o = make();
        double y[E], sum = 0, squares = 0, spread = 0;

        for (int i = 0; i < E; i++) {
            o.gamma[i] = 1;
            o.beta[i] = 0;
        }
        const struct ls_reference_norm norm = norm_of(&o, rms);
        const struct ls_reference_statistics s = ls_reference_norm_statistics(&norm, o.x);
        ls_reference_norm_forward(y, &norm, o.x);
        for (int i = 0; i < E; i++) {
            sum += y[i];
            squares += y[i] * y[i] / E;
            spread += (o.x[i] - s.mean) * (o.x[i] - s.mean) / E;
        }
        cr_expect(rms || fabs(sum) < 1e-14);
        cr_expect_float_eq(squares, spread / (spread + epsilon), 1e-14);
    }
}
