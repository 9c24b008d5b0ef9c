/* delta, sums of partial gradients, and the order in which they are added. */
#include <fenv.h>

#include "cpu/gradient/sum_forest.h"
#include "gradient_harness.h"

static struct ls_queue *queue_of(int threads)
{
    return &cpu_device(threads)->queue;
}

Test(gradient_sums, delta)
{
    enum { B = 2, S = 5, H = 3, D = 40 };
    struct ls_tensor t[3],
        dlse = ls_tensor_view(room(B * H * S * 4), LS_F32, 3, (const int64_t[]){B, H, S});
    float delta[B * H * S];

    for (int type = LS_F32; type <= LS_F16; type++) {
        for (int i = 0; i < 3; i++) {
            t[i] = tensor_over(NULL, (ls_dtype)type, B, S, H, D, i == 1);
            t[i].data = room(tensor_bytes(&t[i]));
            fill_normal(&t[i], (uint32_t)i, i == 2 ? 1e-3F : 1);
        }
        fill_normal(&dlse, 9, 1);
        for (int with = 0; with < 4; with++) {
            ls_delta(queue_of(1 + with), delta, &t[0], &t[1], with & 1 ? &t[2] : NULL,
                     with & 2 ? &dlse : NULL);
            for (int i = 0; i < B * H * S; i++) {
                const int64_t b = i / (H * S), h = i / S % H, s = i % S;
                double exact = with & 2 ? -(double)((float *)dlse.data)[i] : 0;

                for (int64_t e = 0; e < D; e++)
                    exact +=
                        load_at(&t[0], b, s, h, e) *
                        (load_at(&t[1], b, s, h, e) + (with & 1 ? load_at(&t[2], b, s, h, e) : 0));
                cr_expect_float_eq(delta[i], exact, 1e-6 * (1 + fabs(exact)), "%d %d %d", type,
                                   with, i);
            }
        }
        for (int i = 0; i < 3; i++) free(t[i].data);
    }
    free(dlse.data);
}

Test(gradient_sums, add)
{
    enum { N = 9001 };
    static float into[N + 1], from[N];

    for (int i = 0; i < N; i++) {
        into[i] = (float)i;
        from[i] = 0.5F;
    }
    ls_add(queue_of(3), into, from, N);
    for (int i = 0; i < N; i++) cr_assert_eq(into[i], (float)i + 0.5F);
    cr_expect_eq(into[N], 0);
}

/* Numbers for which each order of adding gives another sum. */
static float summand(int64_t head, int64_t row, int64_t e)
{
    float x;

    ls_random_normal(&x, 3, 0, (uint64_t)((head * 100 + row) * 300 + e), 1);
    return ldexpf(x, (int)(head * 7 % 13));
}

/* Of one term each, or of two; those of the second are the numbers of heads far behind. */
static float tree_sum(int64_t first, int64_t count, int64_t row, int64_t e, int terms)
{
    int64_t half = 1;

    if (count == 1)
        return summand(first, row, e) + (terms == 2 ? summand(first + 50, row, e) : 0.0F);
    while (2 * half < count) half *= 2;
    return tree_sum(first, half, row, e, terms) +
           tree_sum(first + half, count - half, row, e, terms);
}

Test(gradient_sums, heads_of_a_group_are_added_by_the_tree)
{
    enum { B = 2, HEADS = 2, S = 3, D = 5 };

    for (int64_t group = 1; group <= 9; group++) {
        const int64_t n = B * HEADS * group * S * D;
        float *a = room((size_t)n * sizeof *a), *b = room((size_t)n * sizeof *b);
        struct ls_tensor out =
            tensor_over(room(B * S * HEADS * D * 4), LS_F32, B, S, HEADS, D, group % 2);

        for (int64_t i = 0; i < n; i++) {
            a[i] = summand(i / (S * D), i / D % S, i % D);
            b[i] = summand(i / (S * D) + 50, i / D % S, i % D);
        }
        for (int terms = 1; terms <= 2; terms++) {
            ls_round_sums(queue_of(2), &out, a, terms == 2 ? b : NULL, group);
            for (int64_t pair = 0; pair < B * HEADS; pair++)
                for (int64_t i = 0; i < S * D; i++)
                    cr_assert_eq((float)load_at(&out, pair / HEADS, i / D, pair % HEADS, i % D),
                                 tree_sum(pair * group, group, i / D, i % D, terms));
        }
        free(out.data);
        free(b);
        free(a);
    }
}

Test(gradient_sums, zeroes_are_positive)
{
    float sums[2] = {-0.0F, -0.0F}, got = 1;
    struct ls_tensor out = tensor_over(&got, LS_F32, 1, 1, 1, 1, false);

    for (int group = 1; group <= 2; group++) {
        got = 1;
        ls_round_sums(queue_of(1), &out, sums, NULL, group);
        cr_expect_eq(signbit(got), 0);
        cr_expect_eq(got, 0);
        got = 1;
        ls_round_sums(queue_of(1), &out, sums, sums, group);
        cr_expect_eq(signbit(got), 0);
        cr_expect_eq(got, 0);
    }
}

Test(gradient_sums, callers_rounding_does_not_matter)
{
    float one = 1, little = 0x1p-30F, pair[] = {1, 0x1p-30F}, got[3] = {1};
    const struct ls_tensor unit = tensor_over(&one, LS_F32, 1, 1, 1, 1, false);
    const struct ls_tensor rest = tensor_over(&little, LS_F32, 1, 1, 1, 1, false);
    struct ls_tensor out = tensor_over(&got[2], LS_F32, 1, 1, 1, 1, false);

    fesetround(FE_UPWARD);
    ls_add(queue_of(1), &got[0], &little, 1);
    ls_delta(queue_of(1), &got[1], &unit, &unit, &rest, NULL);
    ls_round_sums(queue_of(1), &out, pair, NULL, 2);
    cr_expect_eq(fegetround(), FE_UPWARD);
    fesetround(FE_TONEAREST);
    for (int i = 0; i < LENGTH(got); i++) cr_expect_eq(got[i], 1, "%d: %a", i, (double)got[i]);
}

enum { PLACES = 37 };

/* The sum of places [first, first + 2^height) that are present; *any: whether one is. */
static float node_sum(bool *any, const bool *present, int64_t first, int height)
{
    bool left_any, right_any;

    if (height == 0) {
        *any = first < PLACES && present[first];
        return *any ? summand(first, 0, 0) : 0;
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
    sum_path_take(&path, 0, 1, (struct sums){&x, 1});
}

/* Wherever places are left out and from whichever side they come, sums are those of the tree over
 * places, and no more of them wait than was foretold. */
Test(gradient_sums, forest_is_the_tree_over_places)
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
            take(&forest, place, summand(place, 0, 0), false);
            take(&ended, place, summand(place, 0, 0), place == last);
            cr_assert_leq(forest.top, sum_forest_depth(place + 1), "seed %d", (int)seed);
        }
        for (int64_t place = PLACES - 1; place >= 0; place--) {
            if (!present[place]) continue;
            take(&mirrored, ~place, summand(place, 0, 0), false);
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
Test(gradient_sums, a_path_goes_on_into_the_next_forest)
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
    sum_path_take(&path, 2, 2, (struct sums){x + 2 * D, D});
    for (int row = 0; row < FEWER; row++)
        for (int e = 0; e < LESS; e++)
            cr_expect_eq(outer[row * LESS + e], row < 2 ? 0.5F : 0.5F + (float)(2 * (row * D + e)));
}

/* Sums may be written where they go only if nothing is added to them and they fit there. */
Test(gradient_sums, room_on_a_path)
{
    enum { ROWS = 5, D = 4 };
    float at[ROWS * D] = {0}, elsewhere[ROWS * D] = {0};
    const struct sums spare = {elsewhere, D}, wider = {elsewhere, D + 1};
    struct sum_path path = sum_path_to(at, ROWS, D);
    const struct sums room = sum_path_room(&path, 2, 3, spare);

    cr_assert_eq(room.at, at + 2 * D);
    cr_assert_eq(room.stride, D);
    room.at[0] = 1;
    sum_path_take(&path, 2, 3, room);
    cr_expect_eq(at[2 * D], 1);
    cr_expect_eq(sum_path_room(&path, 2, 4, spare).at, elsewhere);
    cr_expect_eq(sum_path_room(&path, 2, 3, wider).at, elsewhere);
    path.waiting[path.count++] = path.total;
    cr_expect_eq(sum_path_room(&path, 2, 3, spare).at, elsewhere);
}

/* Terms of rows that see nothing are 0 though exp(sink - lse) is NaN or infinite. */
Test(gradient_sums, sinks)
{
    enum { B = 2, H = 3, S = 700, LEAVES = 2 };
    static const int64_t first[] = {256, 0}, rows[] = {256, 256};
    static const float sinks[H] = {0.5F, -INFINITY, 2};
    static float lse[B * H * S], delta[B * H * S];
    double got[H * LEAVES];

    for (int i = 0; i < B * H * S; i++) {
        lse[i] = i % 7 == 0 ? -INFINITY : (float)(i % 5) / 2;
        delta[i] = (float)(i % 11) - 5;
    }
    for (int threads = 1; threads <= 3; threads++) {
        ls_sink_sums(queue_of(threads), got, sinks,
                     &(struct ls_sink_rows){lse, delta, B, H, S, first, rows, LEAVES});
        for (int i = 0; i < H * LEAVES; i++) {
            const int64_t head = i / LEAVES, leaf = i % LEAVES;
            double exact = 0;

            for (int64_t b = 0; b < B; b++)
                for (int64_t r = first[leaf]; r < first[leaf] + rows[leaf]; r++) {
                    const int64_t at = (b * H + head) * S + r;

                    if (lse[at] != -INFINITY)
                        exact -= exp((double)sinks[head] - (double)lse[at]) * (double)delta[at];
                }
            cr_expect_eq(got[i], exact, "head %ld, leaf %ld: %g", (long)head, (long)leaf, got[i]);
        }
    }
}
