/* Places in a list of leaves that are seen, asked one by one. */
#include <criterion/criterion.h>

#include "../tensor/masks.h"
#include "cpu/attention/places.h"

enum { S = 2600, LEAVES = (S + LS_LEAF - 1) / LS_LEAF };

/* Some leaves of S keys, or all of them. */
static int64_t draw_list(struct ls_leaf *leaf, struct draws *draws)
{
    const int64_t share = draw_below(draws, 4);
    int64_t n = 0;

    for (int64_t number = 0; number < LEAVES; number++) {
        if (share > 0 && draw_below(draws, 4) < share) continue;
        leaf[n] = (struct ls_leaf){number, n * LS_LEAF};
        n++;
    }
    return n;
}

static void check_from(const struct ls_mask *mask, const struct ls_leaf *queries, int rows,
                       const struct ls_leaf_list *keys, int64_t place)
{
    const struct ls_range run = cpu_seen_places(mask, queries, rows, keys, place);
    int64_t next = place;

    for (; next < keys->count; next++)
        if (ls_mask_meets(mask, queries->number * LS_LEAF, rows, keys->leaf[next].number * LS_LEAF,
                          LS_LEAF))
            break;
    cr_assert_eq(run.from, next, "place %ld: %ld, not %ld", (long)place, (long)run.from,
                 (long)next);
    cr_assert(run.to > run.from || next == keys->count);
    for (; next < run.to; next++)
        cr_assert(ls_mask_meets(mask, queries->number * LS_LEAF, rows,
                                keys->leaf[next].number * LS_LEAF, LS_LEAF));
}

Test(places, runs_have_what_is_seen_and_nothing_else)
{
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct draws draws = {seed, 1000};
        struct ls_band room[MOST_BANDS];
        struct ls_leaf leaf[LEAVES];
        const int64_t s_q = 1 + draw_below(&draws, 900);
        const struct ls_mask mask = draw_bands(room, s_q, S, seed);
        const struct ls_leaf_list keys = {leaf, draw_list(leaf, &draws)};

        for (int64_t number = 0; number * LS_LEAF < s_q; number++)
            for (int64_t place = 0; place <= keys.count; place++) {
                const struct ls_leaf queries = {number, 0};
                const int64_t left = s_q - number * LS_LEAF;

                check_from(&mask, &queries, left < LS_LEAF ? (int)left : LS_LEAF, &keys, place);
            }
    }
}
