/* The order in which partial gradients are added as they come. */
#include "../device/harness.h"
#include "cpu/gradient/sum_forest.h"

/* Numbers for which each order of adding gives another sum. */
static float summand(int64_t place)
{
    float x;

    ls_random_normal(&x, 3, 0, (uint64_t)place, 1);
    return ldexpf(x, (int)(place * 7 % 13));
}

enum { PLACES = 37 };

/* The sum of places [first, first + 2^height) that are present; *any: whether one is. */
static float node_sum(bool *any, const bool *present, int64_t first, int height)
{
    bool left_any, right_any;

    if (height == 0) {
        *any = first < PLACES && present[first];
        return *any ? summand(first) : 0;
    }
    const int64_t half = (int64_t)1 << (height - 1);
    const float left = node_sum(&left_any, present, first, height - 1);
    const float right = node_sum(&right_any, present, first + half, height - 1);

    *any = left_any || right_any;
    return !left_any ? right : !right_any ? left : left + right;
}

static void take(struct sum_forest *forest, int64_t place, float x, bool last)
{
    struct sum_path path = {0};

    sum_forest_lead(&path, forest, place, last);
    cpu_sum_path_take(&path, 0, 1, (struct sums){&x, 1});
}

/* Wherever places are left out and from whichever side they come, sums are those of the tree over
 * places, and no more of them wait than was foretold. */
Test(sum_forest, is_the_tree_over_places)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct sum_forest forest = {0}, mirrored = {0}, ended = {0};
        float node[SUM_DEPTH], mirror[SUM_DEPTH], end[SUM_DEPTH];
        bool present[PLACES] = {false}, any = false;
        int64_t last = -1;

        for (int i = 0; i < SUM_DEPTH; i++) {
            forest.node[i] = (struct sums){node + i, 1};
            mirrored.node[i] = (struct sums){mirror + i, 1};
            ended.node[i] = (struct sums){end + i, 1};
        }
        sum_forest_start(&forest, 1, 1);
        sum_forest_start(&mirrored, 1, 1);
        sum_forest_start(&ended, 1, 1);
        for (int64_t place = 0; place < PLACES; place++) {
            present[place] = ls_random_below(seed, 0, (uint64_t)place, 8) >= seed % 8;
            if (present[place]) last = place;
        }
        for (int64_t place = 0; place < PLACES; place++) {
            if (!present[place]) continue;
            take(&forest, place, summand(place), false);
            take(&ended, place, summand(place), place == last);
            cr_assert_leq(forest.top, sum_forest_depth(place + 1), "seed %d", (int)seed);
        }
        for (int64_t place = PLACES - 1; place >= 0; place--) {
            if (!present[place]) continue;
            take(&mirrored, ~place, summand(place), false);
            cr_assert_leq(mirrored.top, sum_forest_depth(PLACES), "seed %d", (int)seed);
        }
        const float exact = node_sum(&any, present, 0, 6);
        if (!any) continue;
        cr_expect_eq(*sum_forest_fold(&forest).at, exact, "seed %d", (int)seed);
        cr_expect_eq(*sum_forest_fold(&mirrored).at, exact, "seed %d", (int)seed);
        cr_expect(ended.top == 1 && end[0] == exact, "seed %d", (int)seed);
    }
}

/* From one forest a path goes on into another, whose rows are fewer and shorter. */
Test(sum_forest, a_path_goes_on_into_the_next_forest)
{
    enum { ROWS = 5, D = 7, FEWER = 3, LESS = 4 };
    float inner[ROWS * D], outer[FEWER * LESS], x[ROWS * D];
    struct sum_forest first = {.node = {{inner, D}}}, second = {.node = {{outer, LESS}}};
    struct sum_path path = {0};

    for (int i = 0; i < ROWS * D; i++) x[i] = inner[i] = (float)i;
    for (int i = 0; i < FEWER * LESS; i++) outer[i] = 0.5F;
    sum_forest_start(&first, ROWS, D);
    sum_forest_start(&second, FEWER, LESS);
    first.place[first.top++] = 0;
    sum_forest_lead(&path, &first, 1, true);
    second.place[second.top++] = 0;
    sum_forest_lead(&path, &second, 1, true);
    cpu_sum_path_take(&path, 2, 2, (struct sums){x + 2 * D, D});
    for (int row = 0; row < FEWER; row++)
        for (int e = 0; e < LESS; e++)
            cr_expect_eq(outer[row * LESS + e], row < 2 ? 0.5F : 0.5F + (float)(2 * (row * D + e)));
}

/* Sums may be written where they go only if nothing is added to them and they fit there. */
Test(sum_forest, room_on_a_path)
{
    enum { ROWS = 5, D = 4 };
    float at[ROWS * D] = {0}, elsewhere[ROWS * D] = {0};
    const struct sums spare = {elsewhere, D}, wider = {elsewhere, D + 1};
    struct sum_path path = sum_path_to(at, ROWS, D);
    const struct sums room = sum_path_room(&path, 2, 3, spare);

    cr_assert_eq(room.at, at + 2 * D);
    cr_assert_eq(room.stride, D);
    room.at[0] = 1;
    cpu_sum_path_take(&path, 2, 3, room);
    cr_expect_eq(at[2 * D], 1);
    cr_expect_eq(sum_path_room(&path, 2, 4, spare).at, elsewhere);
    cr_expect_eq(sum_path_room(&path, 2, 3, wider).at, elsewhere);
    path.waiting[path.count++] = path.total;
    cr_expect_eq(sum_path_room(&path, 2, 3, spare).at, elsewhere);
}
