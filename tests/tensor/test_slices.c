/* Slices that overlap are found, and those that do not are not, over all small cases. What a slice
 * means is held by test_mask_rule.c. */
#include <criterion/criterion.h>
#include <string.h>

#include "longspan/status.h"
#include "tensor/slices.h"

enum { SIDE = 3 };

/* The next slice within SIDE queries and keys; false behind the last. */
static bool next(struct ls_slice *s)
{
    int64_t *const digit[] = {&s->type, &s->k1, &s->k0, &s->q1, &s->q0};
    static const int64_t last[] = {LS_SLICE_BOTH, SIDE, SIDE, SIDE, SIDE};

    for (int i = 0; i < 5; i++) {
        if ((*digit[i])++ < last[i]) return true;
        *digit[i] = 0;
    }
    return false;
}

static bool is_rectangle(const struct ls_slice *s)
{
    return s->q0 <= s->q1 && s->k0 <= s->k1;
}

static bool share_a_pair(const struct ls_slice *a, const struct ls_slice *b)
{
    const struct ls_band left = ls_slice_band(a), right = ls_slice_band(b);

    for (int64_t i = 0; i < SIDE; i++)
        for (int64_t j = 0; j < SIDE; j++)
            if (ls_band_has(&left, i, j) && ls_band_has(&right, i, j)) return true;
    return false;
}

Test(slices, overlap_where_they_share_a_pair)
{
    struct ls_slice pair[2] = {{0}};

    do {
        if (!is_rectangle(&pair[0])) continue;
        do {
            if (!is_rectangle(&pair[1])) continue;
            cr_assert_eq(ls_slices_check(pair, 2, SIDE, SIDE) == LS_OK,
                         !share_a_pair(&pair[0], &pair[1]),
                         "[%d, %d) x [%d, %d) of type %d and [%d, %d) x [%d, %d) of type %d",
                         (int)pair[0].q0, (int)pair[0].q1, (int)pair[0].k0, (int)pair[0].k1,
                         (int)pair[0].type, (int)pair[1].q0, (int)pair[1].q1, (int)pair[1].k0,
                         (int)pair[1].k1, (int)pair[1].type);
        } while (next(&pair[1]));
    } while (next(&pair[0]));
}

static void check_refused(const struct ls_slice *slices, int64_t count, const char *why)
{
    cr_assert_eq(ls_slices_check(slices, count, 100, 50), LS_EVALUE, "%s", why);
    cr_assert(strstr(ls_message(), why), "'%s' instead of '%s'", ls_message(), why);
}

/* Between the two that overlap, in the order of their queries, is one that meets neither; they meet
 * below the diagonal of one alone. */
Test(slices, says_which_overlap_and_where)
{
    check_refused((const struct ls_slice[]){{90, 100, 0, 50, LS_SLICE_FULL},
                                            {0, 20, 20, 30, LS_SLICE_CAUSAL},
                                            {2, 40, 0, 20, LS_SLICE_FULL},
                                            {5, 20, 25, 29, LS_SLICE_FULL}},
                  4, "slices 1 and 3 overlap: query 15 and key 25");
}

Test(slices, refuses_what_is_no_rectangle)
{
    check_refused(&(const struct ls_slice){0, 10, 0, 10, 4}, 1, "slice 0 is of type 4");
    check_refused(&(const struct ls_slice){0, 10, 0, 10, -1}, 1, "slice 0 is of type -1");
    check_refused(&(const struct ls_slice){0, 101, 0, 10, 0}, 1, "queries 0 to 101");
    check_refused(&(const struct ls_slice){7, 6, 0, 10, 0}, 1, "queries 7 to 6");
    check_refused(&(const struct ls_slice){-1, 6, 0, 10, 0}, 1, "queries -1 to 6");
    check_refused(&(const struct ls_slice){0, 10, 0, 51, 0}, 1, "keys 0 to 51");
    check_refused(&(const struct ls_slice){0, 10, 11, 10, 0}, 1, "keys 11 to 10");
    check_refused(&(const struct ls_slice){0, 10, -2, 10, 0}, 1, "keys -2 to 10");
    check_refused(&(const struct ls_slice){0}, -1, "there are -1");
}
