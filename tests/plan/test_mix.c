/* A mix is the cheapest there is: held against a table of every number of bytes. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "base/random.h"
#include "plan/mix.h"

#define MOST_MANY 60
#define MOST_BYTES (60 * 40)
#define NEVER (INT64_MAX / 4)

static int64_t drawn(uint64_t *state, int64_t below)
{
    return (int64_t)ls_random_below((*state)++, 1, 0, (uint64_t)below);
}

/* least [bytes]: the least cost of `many` that take exactly so much. */
static void fill_table(int64_t *least, const struct ls_mix_problem *problem)
{
    int64_t *next = malloc((MOST_BYTES + 1) * sizeof *next);

    for (int i = 0; i <= MOST_BYTES; i++) least[i] = i == 0 ? 0 : NEVER;
    for (int64_t j = 0; j < problem->many; j++) {
        for (int i = 0; i <= MOST_BYTES; i++) next[i] = NEVER;
        for (int k = 0; k < problem->n; k++)
            for (int64_t i = problem->option[k].bytes; i <= MOST_BYTES; i++) {
                const int64_t cost = least[i - problem->option[k].bytes] + problem->option[k].cost;

                if (cost < next[i]) next[i] = cost;
            }
        for (int i = 0; i <= MOST_BYTES; i++) least[i] = next[i];
    }
    free(next);
}

static void expect_best(const struct ls_mix_problem *problem, const int64_t *least, int seed)
{
    struct ls_mix mix = {.cost = -1};
    int64_t cost = NEVER, bytes = 0, many = 0, sum = 0, sum_cost = 0;
    bool found;

    for (int64_t i = 0; i <= problem->budget && i <= MOST_BYTES; i++)
        if (least[i] < cost) {
            cost = least[i];
            bytes = i;
        }
    cr_assert_eq(ls_mix_find(&mix, &found, problem, INT64_MAX), LS_OK);
    cr_expect_eq(found, cost < NEVER, "seed %d", seed);
    cr_expect_eq(found, isfinite(ls_mix_bound(problem)), "seed %d", seed);
    if (!found) {
        cr_expect_eq(mix.cost, -1, "nothing is written");
        return;
    }
    cr_expect_eq(mix.cost, cost, "seed %d, budget %d: cost %d, not %d", seed, (int)problem->budget,
                 (int)mix.cost, (int)cost);
    cr_expect_eq(mix.bytes, bytes, "seed %d, budget %d: %d bytes, not %d", seed,
                 (int)problem->budget, (int)mix.bytes, (int)bytes);
    cr_expect_leq(ls_mix_bound(problem), (double)cost * (1 + 1e-12) + 1e-6);
    for (int i = 0; i < problem->n; i++) {
        many += mix.count[i];
        sum += mix.count[i] * problem->option[i].bytes;
        sum_cost += mix.count[i] * problem->option[i].cost;
    }
    cr_expect(many == problem->many && sum == mix.bytes && sum_cost == mix.cost, "seed %d", seed);
    cr_assert_eq(ls_mix_find(&mix, &found, problem, cost), LS_OK);
    cr_expect(found, "as much is at most as much");
    if (cost == 0) return;
    cr_assert_eq(ls_mix_find(&mix, &found, problem, cost - 1), LS_OK);
    cr_expect_not(found, "nothing costs less");
}

/* Costs as they come, near a line, so that much is nearly as good, or on one. */
static void draw(struct ls_mix_problem *problem, uint64_t seed)
{
    uint64_t state = seed << 20;
    const int64_t noise[] = {1000, 30, 1}, spread = noise[drawn(&state, 3)];

    problem->many = 1 + drawn(&state, MOST_MANY);
    problem->n = 1 + (int)drawn(&state, 10);
    for (int i = 0; i < problem->n; i++) {
        problem->option[i].bytes = drawn(&state, 40);
        problem->option[i].cost = 20 * (40 - problem->option[i].bytes) + drawn(&state, spread);
    }
}

Test(mix, is_the_best_of_all)
{
    static struct ls_mix_problem problem;
    static int64_t least[MOST_BYTES + 1];

    for (uint64_t seed = 1; seed <= 60; seed++) {
        draw(&problem, seed);
        fill_table(least, &problem);
        for (int i = 0; i <= 12; i++) {
            problem.budget = problem.many * 40 * i / 12;
            expect_best(&problem, least, (int)seed);
        }
    }
}

/* Sums that no number can hold are more than any budget. */
Test(mix, sums_stop_at_the_largest_number)
{
    static struct ls_mix_problem problem = {
        .option = {{INT64_MAX, 0}, {INT64_MAX / 2, 1}, {3, INT64_MAX / 2}},
        .n = 3,
        .many = 4,
        .budget = INT64_MAX - 1};
    struct ls_mix mix;
    bool found;

    cr_assert_eq(ls_mix_find(&mix, &found, &problem, INT64_MAX), LS_OK);
    cr_assert(found);
    cr_expect_eq(mix.count[0], 0);
    cr_expect_leq(mix.bytes, problem.budget);
}
