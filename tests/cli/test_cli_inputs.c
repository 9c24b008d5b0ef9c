#include <criterion/criterion.h>

#include "cli/inputs.h"

Test(cli_inputs, an_order_is_guessed_only_where_the_other_is_impossible)
{
    static const struct {
        int64_t q[4], k[4];
        const char *order; /* NULL: the user has to say */
    } cases[] = {
        {{1, 4096, 8, 64}, {1, 4096, 8, 64}, "bshd"},
        {{1, 8, 4096, 64}, {1, 8, 4096, 64}, "bhsd"},
        {{2, 4096, 8, 64}, {2, 4096, 2, 64}, "bshd"},
        {{2, 8, 4096, 64}, {2, 2, 4096, 64}, "bhsd"},
        {{1, 600, 4, 32}, {1, 500, 4, 32}, "bshd"},   /* 600 heads are no multiple of 500 */
        {{1, 1, 32, 128}, {1, 4096, 8, 128}, "bshd"}, /* one query */
        {{1, 32, 1, 128}, {1, 8, 4096, 128}, "bhsd"},
        {{1, 1, 1, 64}, {1, 1, 1, 64}, "bshd"}, /* the same either way */
        {{1, 8, 8, 16}, {1, 8, 8, 16}, NULL},
        {{1, 16, 8, 16}, {1, 16, 8, 16}, NULL},
        {{1, 128, 12, 64}, {1, 128, 12, 64}, NULL},
        {{1, 300, 300, 64}, {1, 300, 300, 64}, NULL}, /* neither is likely */
        {{1, 12, 5, 64}, {1, 5, 12, 64}, NULL},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ls_order order;
        const bool sure = cli_order_guess(&order, cases[i].q, cases[i].k);

        cr_expect_eq(sure, cases[i].order != NULL, "case %zu", i);
        if (sure && cases[i].order)
            cr_expect_str_eq(ls_order_name(order), cases[i].order, "case %zu", i);
    }
}

Test(cli_inputs, random_takes_six_sizes_and_a_seed)
{
    struct cli_input_options o = {.random = {.given = false}};
    const struct cli_random *r = &o.random;

    cr_expect_not(cli_inputs_given(&o));
    cr_assert_eq(cli_random_set(&o.random, "1,8,2,100,200,64"), LS_OK);
    cr_expect(cli_inputs_given(&o));
    cr_expect_eq(r->shape.s_k, 200);
    cr_expect(r->shape.d == 64 && r->shape.d_v == 64);
    cr_expect_eq(r->seed, 0, "no seed is seed 0");
    cr_assert_eq(cli_random_set(&o.random, "1,8,2,100,200,64,7"), LS_OK);
    cr_expect_eq(r->seed, 7);
    cr_assert_eq(cli_random_set(&o.random, "1,8,2,100,200,64"), LS_OK);
    cr_expect_eq(r->seed, 0, "an earlier seed is forgotten");
    cr_expect_eq(cli_random_set(&o.random, "1,8,2,100,200"), LS_EVALUE);
}

Test(cli_inputs, random_may_say_how_wide_values_are)
{
    static const char *const bad[] = {"1/2,8,2,100,200,64", "1,8,2,100,200,64/", "1,8,2,100,200/64",
                                      "1,8,2,100,200,64/48/32", "1,8,2,100,200,64,7/48"};
    struct cli_random r;

    cr_assert_eq(cli_random_set(&r, "1,8,2,100,200,64/48"), LS_OK);
    cr_expect(r.shape.d == 64 && r.shape.d_v == 48 && r.seed == 0);
    cr_assert_eq(cli_random_set(&r, "1,8,2,100,200,192/128,9"), LS_OK);
    cr_expect(r.shape.d == 192 && r.shape.d_v == 128 && r.seed == 9);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(cli_random_set(&r, bad[i]), LS_EVALUE, "%s", bad[i]);
}
