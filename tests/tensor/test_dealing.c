#include "tensor/dealing.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/random.h"

enum { LEAVES = 257 };

static int64_t load_of(const struct ls_dealing *dealing, const int64_t *work, int rank)
{
    int64_t load = 0;

    for (int64_t i = dealing->first[rank]; i < dealing->first[rank + 1]; i++)
        load += work[dealing->leaf[i]];
    return load;
}

/* A rank gets a leaf only while it has no more than any other. */
static void expect_even(const int64_t *work, int p, const char *what)
{
    struct ls_dealing *dealing;
    int64_t heaviest = 0, least = INT64_MAX, most = 0;

    cr_assert_eq(ls_dealing_create(&dealing, work, LEAVES, p), LS_OK);
    for (int64_t i = 0; i < LEAVES; i++) heaviest = work[i] > heaviest ? work[i] : heaviest;
    for (int r = 0; r < p; r++) {
        const int64_t load = load_of(dealing, work, r);

        least = load < least ? load : least;
        most = load > most ? load : most;
    }
    cr_expect_leq(most - least, heaviest, "%s p=%d: from %ld to %ld", what, p, (long)least,
                  (long)most);
    ls_dealing_destroy(dealing);
}

Test(dealing, ranks_differ_by_one_leaf_at_most)
{
    int64_t rising[LEAVES], random[LEAVES], one[LEAVES] = {[17] = 1000};

    for (int64_t i = 0; i < LEAVES; i++) {
        rising[i] = i + 1;
        random[i] = (int64_t)ls_random_below(7, 0, (uint64_t)i, 100);
    }
    for (int p = 1; p <= 16; p++) {
        expect_even(rising, p, "rising");
        expect_even(random, p, "random");
        expect_even(one, p, "one");
    }
}

Test(dealing, leaves_without_work_are_spread)
{
    const int64_t none[LEAVES] = {[3] = 5};
    struct ls_dealing *dealing;

    cr_assert_eq(ls_dealing_create(&dealing, none, LEAVES, 8), LS_OK);
    for (int r = 0; r < 8; r++) {
        const int64_t count = dealing->first[r + 1] - dealing->first[r];
        cr_expect(count == LEAVES / 8 || count == LEAVES / 8 + 1, "rank %d: %ld", r, (long)count);
    }
    ls_dealing_destroy(dealing);
}

Test(dealing, no_leaves)
{
    struct ls_dealing *dealing;

    cr_assert_eq(ls_dealing_create(&dealing, NULL, 0, 3), LS_OK);
    for (int r = 0; r <= 3; r++) cr_expect_eq(dealing->first[r], 0);
    ls_dealing_destroy(dealing);
    ls_dealing_destroy(NULL);
}
