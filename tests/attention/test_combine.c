/* Partial results of several ranks, scaled to their common maximum, added and finished, are the
 * result over all keys. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "attention/combine.h"
#include "base/random.h"

#define P 3
#define ROWS 5 /* of every head */

static const struct ls_attention_shape shape = {.b = 2, .h = 3, .d = 7, .type = LS_F32};
static const struct ls_row_range part = {.first = 1, .count = 3, .of = ROWS};

#define HEADS ((int)(shape.b * shape.h))
#define D ((int)shape.d)

/* What each rank found, and the maximum over ranks. */
struct found {
    struct ls_row_states states[P];
    float *top;
};

static float *room(int64_t n)
{
    return calloc((size_t)n, sizeof(float));
}

static void find_top(struct found *found)
{
    for (int i = 0; i < HEADS * ROWS; i++) {
        found->top[i] = -INFINITY;
        for (int r = 0; r < P; r++) {
            const float m = found->states[r].m[i];
            if (isnan(m) || m > found->top[i]) found->top[i] = m;
        }
    }
}

/* Random sums, maxima far apart: up to 2^40 between ranks. */
static struct found find(void)
{
    const int n = HEADS * ROWS;
    struct found found = {.top = room(n)};

    for (int r = 0; r < P; r++) {
        struct ls_row_states *s = &found.states[r];

        *s = (struct ls_row_states){.m = room(n), .l = room(n), .acc = room(n * D)};
        ls_random_normal(s->acc, 1, (uint32_t)r, 0, n * D);
        ls_random_normal(s->m, 2, (uint32_t)r, 0, n);
        for (int i = 0; i < n; i++) s->l[i] = 1.0f + (float)(i % 4);
        for (int i = 0; i < n; i++) s->m[i] *= 20.0f;
    }
    find_top(&found);
    return found;
}

static void lose(struct found *found)
{
    for (int r = 0; r < P; r++) {
        free(found->states[r].m);
        free(found->states[r].l);
        free(found->states[r].acc);
    }
    free(found->top);
}

struct result {
    struct ls_tensor o, lse; /* rows of part, one row further on in their tensors */
};

static struct result combine(const struct found *found)
{
    const int64_t rows = part.count + 1, n = ls_sum_count(&shape, part.count);
    const int64_t o_dim[] = {shape.b, rows, shape.h, D}, lse_dim[] = {shape.b, shape.h, rows};
    struct result result = {
        .o = ls_tensor_view(room(rows * HEADS * D), LS_F32, 4, o_dim),
        .lse = ls_tensor_view(room(rows * HEADS), LS_F32, 3, lse_dim),
    };
    float *sums = room(P * n);

    for (int r = 0; r < P; r++)
        ls_sums_scale(sums + r * n, &found->states[r], found->top, &shape, part);
    const struct ls_sum_results out = {
        .o = &result.o, .lse = &result.lse, .scores = &(struct ls_scores){.scale = 1}};
    ls_sums_finish(&out, 1, sums, P, found->top, &shape, part);
    free(sums);
    return result;
}

static void forget(struct result *result)
{
    free(result->o.data);
    free(result->lse.data);
}

static float o_at(const struct result *result, int head, int row, int e)
{
    const int64_t at = head / shape.h * result->o.stride[0] + (row + 1) * result->o.stride[1] +
                       head % shape.h * result->o.stride[2] + e;

    return ((float *)result->o.data)[at];
}

static float lse_at(const struct result *result, int head, int row)
{
    return ((float *)result->lse.data)[head * (part.count + 1) + row + 1];
}

/* The sum over ranks of 2^m x, in double precision; x: l, or an element of acc. */
static double exact(const struct found *found, int i, int e)
{
    double sum = 0;

    for (int r = 0; r < P; r++) {
        const struct ls_row_states *s = &found->states[r];
        if (s->m[i] == -INFINITY) continue;
        sum += exp2((double)s->m[i]) * (double)(e < 0 ? s->l[i] : s->acc[i * D + e]);
    }
    return sum;
}

static void check(const struct found *found, const char *name)
{
    struct result result = combine(found);

    for (int head = 0; head < HEADS; head++) {
        for (int row = 0; row < part.count; row++) {
            const int i = head * ROWS + (int)part.first + row;
            const double l = exact(found, i, -1);

            cr_expect_float_eq(lse_at(&result, head, row), log(l), 1e-5 * fmax(1, fabs(log(l))),
                               "%s: head %d row %d: lse %g, exact %g", name, head, row,
                               (double)lse_at(&result, head, row), log(l));
            for (int e = 0; e < D; e++)
                cr_expect_float_eq(o_at(&result, head, row, e), exact(found, i, e) / l, 2e-6,
                                   "%s: head %d row %d element %d", name, head, row, e);
        }
    }
    for (int e = 0; e < D; e++)
        cr_expect_eq(o_at(&result, 0, -1, e), 0, "%s: wrote before its rows", name);
    forget(&result);
}

/* Empty, with what an empty state must not be asked for. */
static void empty(struct ls_row_states *s, int i)
{
    s->m[i] = -INFINITY;
    s->l[i] = NAN;
    for (int e = 0; e < D; e++) s->acc[i * D + e] = NAN;
}

Test(combine, sums_are_those_over_all_keys)
{
    struct found found = find();

    check(&found, "all ranks see keys");
    for (int i = 0; i < HEADS * ROWS; i++) empty(&found.states[i % P], i);
    find_top(&found);
    check(&found, "one rank sees none");
    for (int i = 0; i < HEADS * ROWS; i++) empty(&found.states[(i + 1) % P], i);
    find_top(&found);
    check(&found, "two ranks see none");
    lose(&found);
}

Test(combine, a_row_that_nobody_saw_a_key_of_is_empty)
{
    struct found found = find();

    for (int i = 0; i < HEADS * ROWS; i++)
        for (int r = 0; r < P; r++) empty(&found.states[r], i);
    find_top(&found);
    struct result result = combine(&found);
    for (int head = 0; head < HEADS; head++) {
        for (int row = 0; row < part.count; row++) {
            cr_expect_eq(lse_at(&result, head, row), -INFINITY);
            for (int e = 0; e < D; e++) cr_expect_eq(o_at(&result, head, row, e), 0);
        }
    }
    forget(&result);
    lose(&found);
}

/* Whether the reduction of the maxima kept it or lost it. */
Test(combine, a_nan_of_one_rank_is_everybodys)
{
    static const float tops[] = {NAN, 3, -INFINITY, INFINITY};

    for (int t = 0; t < 4; t++) {
        struct found found = find();

        for (int i = 0; i < HEADS * ROWS; i++) {
            if (tops[t] == -INFINITY)
                for (int r = 0; r < P; r++) empty(&found.states[r], i);
            found.states[1].m[i] = found.states[1].l[i] = NAN;
            for (int e = 0; e < D; e++) found.states[1].acc[i * D + e] = NAN;
            found.top[i] = tops[t];
        }
        struct result result = combine(&found);
        for (int head = 0; head < HEADS; head++) {
            for (int row = 0; row < part.count; row++) {
                cr_expect(isnan(lse_at(&result, head, row)), "top %g: lse", (double)tops[t]);
                cr_expect(isnan(o_at(&result, head, row, D - 1)), "top %g: o", (double)tops[t]);
            }
        }
        forget(&result);
        lose(&found);
    }
}
