/* Exact sums: whatever the order, the threads and what cancels. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/exact_sum.h"
#include "base/random.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

static double sum_of(const double *x, int n)
{
    int64_t limb[LS_EXACT_LIMBS] = {0};

    for (int i = 0; i < n; i++) ls_exact_add(limb, x[i]);
    return ls_exact_value(limb);
}

Test(exact_sum, of_one_is_that_one)
{
    static const double numbers[] = {
        0,       1,        -1,        0x1p-149,  -0x1p-149,
        0x1p127, -0x1p127, 0x1.8p-33, 0x1p-160,  0x1.fffffffffffffp+100,
        0x1p-32, 0x1p-64,  3.25,      0x1p158,   -0x1.fffffep127,
        0x1p31,  0x1p32,   0x1p-107,  1.0 / 3.0, -0x1.23456789abcdep-50};

    for (int i = 0; i < LENGTH(numbers); i++)
        cr_expect_eq(sum_of(&numbers[i], 1), numbers[i], "%a became %a", numbers[i],
                     sum_of(&numbers[i], 1));
}

Test(exact_sum, what_cancels_leaves_the_rest)
{
    cr_expect_eq(sum_of((const double[]){0x1p127, 1, -0x1p127}, 3), 1);
    cr_expect_eq(sum_of((const double[]){0x1p127, -0x1p-149, -0x1p127}, 3), -0x1p-149);
    cr_expect_eq(sum_of((const double[]){-0x1p100, 0x1p-100, 0x1p100, -0x1p-100}, 4), 0);
    cr_expect_eq(sum_of((const double[]){1, 0x1p-60, -0x1p-59}, 3), 1);
    cr_expect_eq(sum_of((const double[]){-1, -0x1p-60, 1}, 3), -0x1p-60);
}

Test(exact_sum, what_is_no_number_is_not_lost)
{
    cr_expect(isnan(sum_of((const double[]){1, NAN, 2}, 3)));
    cr_expect(isnan(sum_of((const double[]){INFINITY, -INFINITY}, 2)));
    cr_expect(isnan(sum_of((const double[]){0x1p160, -0x1p160}, 2)));
}

enum { NUMBERS = 20000, THREADS = 4 };

/* Of any size that f32 has. */
static void draw(double x[NUMBERS])
{
    static float normal[NUMBERS];

    ls_random_normal(normal, 3, 0, 0, NUMBERS);
    for (int i = 0; i < NUMBERS; i++) x[i] = (double)ldexpf(normal[i], i * 7919 % 240 - 120);
}

/* Parts that are carried and added limb by limb, as ranks do. */
static double sum_by_ranks(const double x[NUMBERS], int ranks)
{
    int64_t all[LS_EXACT_LIMBS] = {0}, limb[LS_EXACT_LIMBS];

    for (int r = 0; r < ranks; r++) {
        memset(limb, 0, sizeof limb);
        for (int i = r; i < NUMBERS; i += ranks) ls_exact_add(limb, x[i]);
        ls_exact_carry(limb);
        for (int i = 0; i < LS_EXACT_LIMBS; i++) all[i] += limb[i];
    }
    return ls_exact_value(all);
}

Test(exact_sum, is_the_same_in_any_order)
{
    static double x[NUMBERS], backwards[NUMBERS];
    int64_t shared[LS_EXACT_LIMBS] = {0};
    long double straight = 0;

    draw(x);
    for (int i = 0; i < NUMBERS; i++) {
        backwards[NUMBERS - 1 - i] = x[i];
        straight += (long double)x[i];
    }
    const double sum = sum_of(x, NUMBERS);

    cr_expect_float_eq(sum / (double)straight, 1, 1e-12);
    cr_expect_eq(sum_of(backwards, NUMBERS), sum);
    for (int ranks = 1; ranks <= 9; ranks++) cr_expect_eq(sum_by_ranks(x, ranks), sum);
#pragma omp parallel for num_threads(THREADS)
    for (int i = 0; i < NUMBERS; i++) ls_exact_add(shared, x[i]);
    cr_expect_eq(ls_exact_value(shared), sum);
}
