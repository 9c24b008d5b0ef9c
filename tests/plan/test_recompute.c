/* The choice of pieces is exactly the cheapest that fits: held against all combinations. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "longspan/layout.h"
#include "model/presets.h"
#include "plan/model_size.h"
#include "plan/pieces.h"
#include "plan/recompute.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static const struct ls_rates rates = {200e12, 1.5e12, 0};

/* ---- all combinations */

struct best {
    int64_t picoseconds, bytes;
};

static int64_t picoseconds(const struct ls_recompute_set *set)
{
    return llround(set->seconds * 1e12);
}

/* One layer more of any set from `least` on; kept [copies'], again and cost of those before. */
static void try_all(struct best *best, const struct ls_recompute_problem *problem, int64_t budget,
                    int64_t layers, int least, int64_t kept, int64_t again, int64_t cost)
{
    if (layers == 0) {
        const int64_t bytes = problem->fixed + problem->copies * kept + again;

        if (bytes > budget || cost > best->picoseconds) return;
        if (cost < best->picoseconds || bytes < best->bytes) *best = (struct best){cost, bytes};
        return;
    }
    for (int i = least; i < problem->n; i++) {
        const struct ls_recompute_set *set = &problem->set[i];

        try_all(best, problem, budget, layers - 1, i, kept + set->kept,
                set->again > again ? set->again : again, cost + picoseconds(set));
    }
}

/* What is said of a choice is true of its sets. */
static void expect_consistent(const struct ls_recompute_choice *choice,
                              const struct ls_recompute_problem *problem)
{
    int64_t layers = 0, kept = 0, again = 0;
    double seconds = 0;

    for (int i = 0; i < problem->n; i++) {
        layers += choice->layers[i];
        kept += choice->layers[i] / problem->parts * problem->set[i].kept;
        seconds += (double)choice->layers[i] * problem->set[i].seconds;
        if (choice->layers[i] > 0 && problem->set[i].again > again) again = problem->set[i].again;
    }
    cr_expect_eq(layers, problem->layers * problem->parts);
    cr_expect_eq(choice->kept, problem->copies * kept);
    cr_expect_eq(choice->again, again);
    cr_expect_eq(choice->bytes, problem->fixed + choice->kept + again);
    cr_expect_float_eq(choice->seconds, seconds, 1e-12 * seconds);
}

static void expect_best(const struct ls_recompute_problem *problem, int64_t budget,
                        const char *what)
{
    struct best best = {INT64_MAX, INT64_MAX};
    struct ls_recompute_choice choice = {.bytes = -1};
    int64_t cost = 0;

    try_all(&best, problem, budget, problem->layers, 0, 0, 0, 0);
    const ls_status status = ls_recompute_choose(&choice, problem, budget);
    if (best.bytes == INT64_MAX) {
        cr_expect_eq(status, LS_EFIT, "%s", what);
        cr_expect_eq(choice.bytes, -1, "%s: nothing is written", what);
        return;
    }
    cr_assert_eq(status, LS_OK, "%s: %s", what, ls_message());
    expect_consistent(&choice, problem);
    for (int i = 0; i < problem->n; i++)
        cost += choice.layers[i] / problem->parts * picoseconds(&problem->set[i]);
    cr_expect_eq(cost, best.picoseconds, "%s, budget %lld: %lld ps, all combinations: %lld", what,
                 (long long)budget, (long long)cost, (long long)best.picoseconds);
    cr_expect_eq(choice.bytes, best.bytes, "%s, budget %lld: %lld bytes, all combinations: %lld",
                 what, (long long)budget, (long long)choice.bytes, (long long)best.bytes);
}

/* ---- sets drawn at random: costs as they come, or all the same a byte, so that many tie */

static int64_t drawn(uint64_t *state, int64_t below)
{
    return (int64_t)ls_random_below((*state)++, 0, 0, (uint64_t)below);
}

static void draw(struct ls_recompute_problem *problem, uint64_t seed)
{
    uint64_t state = seed << 20;
    const bool ties = drawn(&state, 2) == 0;

    *problem = (struct ls_recompute_problem){.layers = 1 + drawn(&state, 6),
                                             .copies = 1 + drawn(&state, 3),
                                             .parts = 1 + drawn(&state, 2),
                                             .fixed = drawn(&state, 1000),
                                             .n = 1 + (int)drawn(&state, 6)};
    for (int i = 0; i < problem->n; i++) {
        const int64_t kept = drawn(&state, 40), cost = ties ? 50 - kept : drawn(&state, 60);

        problem->set[i] = (struct ls_recompute_set){
            .kept = kept, .again = drawn(&state, 30), .seconds = (double)cost * 1e-12};
    }
}

Test(recompute, no_combination_is_better)
{
    static struct ls_recompute_problem problem;
    char what[32];

    for (uint64_t seed = 1; seed <= 300; seed++) {
        draw(&problem, seed);
        const int64_t least = ls_recompute_least(&problem);

        snprintf(what, sizeof what, "problem %d", (int)seed);
        for (int64_t more = -1; more < 40 * problem.layers * problem.copies; more += 7)
            expect_best(&problem, least + more, what);
        expect_best(&problem, INT64_MAX, what);
    }
}

/* ---- sets of models */

static struct ls_model_shape model_of(const char *name, int64_t layers)
{
    const struct ls_preset *preset;

    cr_assert_eq(ls_preset_find(&preset, name), LS_OK);
    struct ls_model_shape model = preset->model;
    if (layers > 0) model.L = layers;
    return model;
}

static struct ls_model_run run_of(int64_t t, int64_t p, int64_t m)
{
    return (struct ls_model_run){.type = LS_BF16,
                                 .b = 1,
                                 .s = 2048,
                                 .t = t,
                                 .c = 1,
                                 .p = p,
                                 .m = m,
                                 .sp = true,
                                 .dropout = true,
                                 .core = LS_CORE_FUSED};
}

Test(recompute, of_three_layers_no_combination_is_better)
{
    static struct ls_recompute_problem problem;
    static const char *const names[] = {"gpt-22b", "llama3-8b"};

    for (int i = 0; i < COUNT(names) * 2; i++) {
        const struct ls_model_shape model = model_of(names[i % 2], 3);
        struct ls_model_run run = run_of(2, 1, 1);

        run.core = i < 2 ? LS_CORE_FUSED : LS_CORE_MATERIALIZED;
        cr_assert_eq(ls_recompute_problem_init(&problem, &model, &run, &rates, false), LS_OK);
        const int64_t least = ls_recompute_least(&problem);
        struct ls_recompute_choice all;

        cr_assert_eq(ls_recompute_choose(&all, &problem, INT64_MAX), LS_OK);
        for (int k = 0; k <= 6; k++)
            expect_best(&problem, least + (all.bytes - least) / 6 * k, names[i % 2]);
    }
}

/* Sets that are no better than another in anything are not there; all others are. */
Test(recompute, a_problem_has_every_set_that_may_be_worth_it)
{
    static struct ls_recompute_problem problem;
    const struct ls_model_shape model = model_of("gpt-175b", 0);
    const struct ls_model_run run = run_of(8, 1, 1);

    cr_assert_eq(ls_recompute_problem_init(&problem, &model, &run, &rates, false), LS_OK);
    for (unsigned pieces = 0; pieces < LS_RECOMPUTE_SETS; pieces++) {
        const struct ls_recompute_set set = ls_recompute_set_of(&model, &run, pieces, &rates);
        bool as_good = false;

        for (int i = 0; i < problem.n; i++)
            if (problem.set[i].kept <= set.kept && problem.set[i].again <= set.again &&
                problem.set[i].seconds <= set.seconds)
                as_good = true;
        cr_expect(as_good, "%s", ls_pieces_name(pieces).s);
    }
    for (int i = 0; i < problem.n; i++)
        for (int j = 0; j < problem.n; j++)
            cr_expect(i == j || problem.set[i].kept < problem.set[j].kept ||
                          problem.set[i].again < problem.set[j].again ||
                          problem.set[i].seconds < problem.set[j].seconds,
                      "%s and %s", ls_pieces_name(problem.set[i].pieces).s,
                      ls_pieces_name(problem.set[j].pieces).s);
}

/* Uniform sets are choices that there are; their bytes are those of ls_model_bytes. */
Test(recompute, uniform_sets_are_never_better)
{
    static struct ls_recompute_problem problem;
    static const struct {
        const char *name;
        int64_t t, p, m;
    } cases[] = {{"gpt-1t", 8, 1, 1}, {"gpt-175b", 8, 8, 3}, {"gpt-530b", 8, 35, 1}};

    for (int i = 0; i < COUNT(cases); i++) {
        const struct ls_model_shape model = model_of(cases[i].name, 0);
        struct ls_model_run run = run_of(cases[i].t, cases[i].p, cases[i].m);

        cr_assert_eq(ls_recompute_problem_init(&problem, &model, &run, &rates, false), LS_OK);
        for (unsigned pieces = 0; pieces < LS_RECOMPUTE_SETS; pieces += 3) {
            struct ls_recompute_choice choice;
            struct ls_rank_bytes bytes;

            run.pieces = pieces;
            cr_assert_eq(ls_model_bytes(&bytes, &model, &run), LS_OK);
            const int64_t total = ls_rank_bytes_total(&bytes);
            const double seconds = (double)(model.L / run.p) *
                                   ls_recompute_set_of(&model, &run, pieces, &rates).seconds;

            cr_assert_eq(ls_recompute_choose(&choice, &problem, total), LS_OK, "%s", ls_message());
            expect_consistent(&choice, &problem);
            cr_expect_leq(choice.bytes, total);
            cr_expect_leq(choice.seconds, seconds * (1 + 1e-9) + 1e-9, "%s: %s", cases[i].name,
                          ls_pieces_name(pieces).s);
        }
    }
}

/* From the fewest bytes to no time at all, each point the cheapest of its bytes. */
Test(recompute, more_bytes_take_less_time)
{
    static struct ls_recompute_problem problem;
    static struct ls_recompute_choice points[16];
    const struct ls_model_shape model = model_of("gpt-175b", 0);
    const struct ls_model_run run = run_of(8, 8, 3);
    struct ls_recompute_choice same;
    int count = 0;

    cr_assert_eq(ls_recompute_problem_init(&problem, &model, &run, &rates, false), LS_OK);
    cr_assert_eq(ls_recompute_frontier(points, &count, COUNT(points), &problem), LS_OK);
    cr_assert_gt(count, 8);
    cr_expect_eq(points[0].bytes, ls_recompute_least(&problem));
    cr_expect_eq(points[count - 1].seconds, 0);
    for (int i = 0; i < count; i++) {
        cr_expect(i == 0 || (points[i].bytes > points[i - 1].bytes &&
                             points[i].seconds < points[i - 1].seconds),
                  "point %d", i);
        cr_assert_eq(ls_recompute_choose(&same, &problem, points[i].bytes), LS_OK);
        cr_expect_eq(same.bytes, points[i].bytes, "point %d", i);
    }
}

Test(recompute, what_is_missing_is_said)
{
    static struct ls_recompute_problem problem = {.layers = 2,
                                                  .copies = 1,
                                                  .parts = 1,
                                                  .fixed = 100,
                                                  .n = 1,
                                                  .set = {{.kept = 10, .again = 5}}};
    struct ls_recompute_choice choice;

    cr_expect_eq(ls_recompute_choose(&choice, &problem, 90), LS_EFIT);
    cr_expect(strstr(ls_message(), "125 bytes a rank, 35 more than 90"), "%s", ls_message());
    cr_expect_eq(ls_recompute_choose(&choice, &problem, 125), LS_OK);
}

Test(recompute, bytes_beyond_what_can_be_counted_do_not_fit)
{
    static struct ls_recompute_problem problem = {
        .layers = 4,
        .copies = 3,
        .parts = 1,
        .n = 2,
        .set = {{.kept = INT64_MAX / 2}, {.kept = 7, .again = 1, .seconds = 1}}};
    struct ls_recompute_choice choice;

    cr_assert_eq(ls_recompute_choose(&choice, &problem, INT64_MAX - 1), LS_OK);
    cr_expect_eq(choice.layers[1], 4);
    cr_expect_eq(choice.bytes, 85);
}

Test(recompute, a_stage_has_layers_that_can_be_counted)
{
    static struct ls_recompute_problem problem;
    const struct ls_model_shape model = model_of("gpt-22b", 8192);
    const struct ls_model_run run = run_of(8, 1, 1);

    cr_expect_eq(ls_recompute_problem_init(&problem, &model, &run, &rates, false), LS_EVALUE);
    cr_expect(strstr(ls_message(), "4096"), "%s", ls_message());
}
