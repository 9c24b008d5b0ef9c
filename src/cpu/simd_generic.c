/* Plain C: the instruction set that every machine has, and the easiest to read. */
#include <math.h>
#include <string.h>

#include "cpu/simd.h"
#include "cpu/tanh.h"

static float exp2_polynomial(float x, const float *coefficient, int degree)
{
    if (x < EXP2_LOWEST) return 0.0f;
    if (!(x <= 0.0f)) return NAN; /* scores never exceed their maximum */

    const float whole = floorf(x), fraction = x - whole;
    float value = coefficient[degree];
    for (int i = degree - 1; i >= 0; i--) value = value * fraction + coefficient[i];

    const uint32_t bits = (uint32_t)((int32_t)whole + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return value * power;
}

static float row_maximum(const float *s, const struct ls_leaf_keys *seen)
{
    float top = -INFINITY;

    for (int j = 0; j < LS_LEAF; j++)
        if (ls_leaf_keys_have(seen, j) && s[j] > top) top = s[j];
    return top;
}

static void softmax_row(float *p, float *m, float *l, const float *s,
                        const struct ls_leaf_keys *seen, float scale)
{
    static const float coefficient[] = EXP2_DEGREE_5;
    const float top = row_maximum(s, seen), highest = scale * top;
    const float origin = top == -INFINITY ? 0.0f : highest;
    double sum = 0; /* in f32 a sum in order would lose the far keys of a long row */

    for (int j = 0; j < LS_LEAF; j++) {
        /* equal factors give equal products: the difference is never above zero */
        p[j] = ls_leaf_keys_have(seen, j) ? exp2_polynomial(scale * s[j] - origin, coefficient, 5)
                                          : 0.0f;
        sum += p[j];
    }
    *m = isnan(sum) ? NAN : top == -INFINITY ? top : highest; /* NaN does not count for top */
    *l = (float)sum;
}

static void softmax_f32(const struct softmax_rows *a)
{
    for (int r = 0; r < a->rows; r++)
        softmax_row((float *)a->p + r * a->p_stride, a->m + r, a->l + r, a->s + r * a->s_stride,
                    keys_of_row(a, r), a->scale);
}

static void merge_row(float *into, const float *from, float keep, float add, int d)
{
    for (int j = 0; j < d; j++) into[j] = keep * into[j] + add * from[j];
}

static void merge(struct ls_row_states into, struct ls_row_states from, int rows, int d)
{
    static const float coefficient[] = EXP2_DEGREE_6;

    for (int r = 0; r < rows; r++, into.acc += d, from.acc += d) {
        if (from.m[r] == -INFINITY) continue;
        if (into.m[r] == -INFINITY) {
            into.m[r] = from.m[r];
            into.l[r] = from.l[r];
            memcpy(into.acc, from.acc, (size_t)d * sizeof *into.acc);
            continue;
        }
        const float top = fmaxf(into.m[r], from.m[r]);
        const float keep = exp2_polynomial(into.m[r] - top, coefficient, 6);
        const float add = exp2_polynomial(from.m[r] - top, coefficient, 6);
        merge_row(into.acc, from.acc, keep, add, d);
        into.l[r] = keep * into.l[r] + add * from.l[r];
        into.m[r] = top;
    }
}

static void scale(float *x, float factor, int n)
{
    for (int i = 0; i < n; i++) x[i] *= factor;
}

static void logits(float *s, const struct logit_row *row)
{
    for (int j = 0; j < LS_LEAF; j++) {
        float x = row->scale * s[j] + row->shift;

        if (row->soft_cap != 0) x = row->soft_cap * hyperbolic_tangent(x / row->soft_cap).value;
        if (row->slope != 0) x -= row->slope * fabsf(row->place - (float)j);
        s[j] = x;
    }
}

const struct simd cpu_simd_generic = {softmax_f32, NULL, merge, scale, logits};
