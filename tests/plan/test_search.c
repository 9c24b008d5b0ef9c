/* A search finds what trying every grid would, best first. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "longspan/layout.h"
#include "model/presets.h"
#include "plan/model_size.h"
#include "plan/pieces.h"
#include "plan/search.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
#define GIB ((int64_t)1 << 30)

static const struct ls_rates rates = {150e12, 1.7e12, 100e9};

static struct ls_model_shape small_model(void)
{
    return (struct ls_model_shape){.h = 4096,
                                   .L = 12,
                                   .v = 50000,
                                   .a = 12,
                                   .a_kv = 4,
                                   .d = 128,
                                   .f = 12288,
                                   .bias = true,
                                   .tied = true};
}

static struct ls_model_run small_run(void)
{
    return (struct ls_model_run){.type = LS_BF16,
                                 .b = 2,
                                 .s = 1100,
                                 .t = 1,
                                 .c = 1,
                                 .p = 1,
                                 .m = 2,
                                 .dropout = true,
                                 .causal = true};
}

/* Seconds per token of one grid; -1: it cannot be, or does not fit. */
static double try_grid(const struct ls_model_shape *model, const struct ls_model_run *run,
                       int64_t ranks, int64_t budget, bool choose)
{
    static struct ls_recompute_problem problem;
    struct ls_recompute_choice choice;

    if (ls_recompute_problem_init(&problem, model, run, &rates, !choose) != LS_OK) return -1;
    if (ls_recompute_choose(&choice, &problem, budget) != LS_OK) return -1;
    const double seconds = ls_micro_batch(model, run, &choice.work, &rates).seconds;
    return seconds / (double)(run->b * run->s * (ranks / (run->t * run->c * run->p)));
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Of every grid there is; returns how many fit. */
static int try_all(double *seconds, const struct ls_model_shape *model,
                   const struct ls_model_run *asked, int64_t ranks, int64_t budget, bool choose)
{
    int n = 0;

    for (int64_t grid = 0; grid < ranks * ranks * ranks * 2; grid++) {
        struct ls_model_run run = *asked;

        run.sp = grid % 2 == 1;
        run.t = 1 + grid / 2 % ranks;
        run.c = 1 + grid / 2 / ranks % ranks;
        run.p = 1 + grid / 2 / ranks / ranks;
        if (run.t * run.c * run.p > ranks || (run.sp && run.t == 1)) continue;
        if (run.p == 1 || model->L % (run.p * run.m) != 0) run.m = 1;
        seconds[n] = try_grid(model, &run, ranks, budget, choose);
        if (seconds[n] >= 0) n++;
    }
    qsort(seconds, (size_t)n, sizeof *seconds, compare);
    return n;
}

/* The first `most` of all. */
static void expect_first(const struct ls_model_shape *model, const struct ls_model_run *run,
                         int64_t ranks, int64_t budget, bool choose, int most, const char *what)
{
    struct ls_grid_plan *grids = NULL;
    double seconds[256];
    int count = 0;

    const int all = try_all(seconds, model, run, ranks, budget, choose);
    cr_assert_gt(all, 0, "%s", what);
    cr_assert_eq(ls_model_search(&grids, &count, most, model, run, ranks, budget, &rates, choose),
                 LS_OK, "%s: %s", what, ls_message());
    cr_expect_eq(count, all < most ? all : most, "%s: %d of %d", what, count, all);
    for (int i = 0; i < count; i++) {
        const struct ls_model_run *r = &grids[i].run;

        cr_expect_float_eq(grids[i].seconds_per_token, seconds[i], 1e-12 * seconds[i],
                           "%s, grid %d of %d", what, i, most);
        cr_expect_leq(grids[i].choice.bytes, budget);
        cr_expect_leq(grids[i].copies * r->t * r->c * r->p, ranks);
    }
    free(grids);
}

Test(search, the_first_grids_are_the_best_of_all)
{
    const struct ls_model_shape model = small_model();
    struct ls_model_run run = small_run();
    static const struct {
        int64_t ranks, budget;
        bool choose;
        const char *pieces;
    } cases[] = {{1, 80 * GIB, true, "none"},       {8, 80 * GIB, true, "none"},
                 {12, 8 * GIB, true, "none"},       {12, 5 * GIB, true, "none"},
                 {12, 6 * GIB, false, "norm,core"}, {7, 9 * GIB, false, "full"}};

    for (int i = 0; i < COUNT(cases); i++)
        for (int most = 1; most <= 10; most += 3) {
            cr_assert_eq(ls_pieces_parse(&run.pieces, cases[i].pieces), LS_OK);
            expect_first(&model, &run, cases[i].ranks, cases[i].budget, cases[i].choose, most,
                         cases[i].pieces);
        }
}

/* The grid that misses by least is named. */
Test(search, nothing_fits)
{
    const struct ls_model_shape model = small_model();
    struct ls_model_run run = small_run();
    struct ls_grid_plan *grids = NULL;
    int count = -1;
    const int64_t budget = GIB / 2;
    int64_t nearest = INT64_MAX;
    char says[64];

    for (int i = 0; i < 2; i++) {
        static struct ls_recompute_problem problem;

        run.m = 1;
        run.t = 4;
        run.sp = i == 1;
        cr_assert_eq(ls_recompute_problem_init(&problem, &model, &run, &rates, false), LS_OK);
        if (ls_recompute_least(&problem) < nearest) nearest = ls_recompute_least(&problem);
    }
    cr_expect_eq(ls_model_search(&grids, &count, 10, &model, &run, 4, budget, &rates, true),
                 LS_EFIT);
    cr_expect_null(grids);
    cr_expect_eq(count, -1);
    snprintf(says, sizeof says, "takes %lld bytes a rank", (long long)nearest);
    cr_expect(strstr(ls_message(), says) && strstr(ls_message(), "up to 4 ranks"), "%s, not %s",
              ls_message(), says);
}

/* With more tensor-parallel ranks than width to share, and a stage of each layer. */
Test(search, time_is_counted_part_by_part)
{
    const struct ls_model_shape model = small_model();
    struct ls_model_run run = small_run();
    const struct ls_layer_work again = {1e12, 2e9, 3e9};

    run.t = run.p = 2;
    run.m = 3;
    const struct ls_micro_batch time = ls_micro_batch(&model, &run, &again, &rates);
    const struct ls_step_flops flops = ls_model_flops(&model, &run);
    const double row = 2 * 1100 * 4096 * 2; /* 1100 tokens, 2 sequences, bytes */

    cr_expect_float_eq(time.step.flops, (flops.forward + flops.backward) / 4, 1);
    cr_expect_float_eq(time.step.exchanged, 6 * 4 * 2 * row * 1 / 2 + 3 * 2 * row, 1e-3);
    cr_expect_float_eq(time.seconds,
                       (time.step.flops + 1e12) / 150e12 + (time.step.memory + 2e9) / 1.7e12 +
                           (time.step.exchanged + 3e9) / 100e9,
                       1e-9);
}
