/* The cheapest sets of pieces within a budget. For each amount of memory to bring back that a set
 * may take, only the sets that need no more are considered, and the rest of the budget is for what
 * layers keep. */
#include <math.h>
#include <stdlib.h>

#include "plan/mix.h"
#include "plan/recompute.h"
#include "plan/saturate.h"

/* An amount of memory to bring back, and the least that any answer with so much costs. */
struct amount {
    int64_t again;
    double bound;
};

/* ---- sets as options of a mix */

_Static_assert((int)LS_RECOMPUTE_SETS <= (int)LS_MIX_OPTIONS, "a set is an option");

static int64_t picoseconds(double seconds)
{
    return seconds < 9e6 ? (int64_t)llround(seconds * 1e12) : INT64_MAX;
}

/* Options are the problem's sets that need no more than `again`; set [n] says which. */
static void list_options(struct ls_mix_problem *out, int *set,
                         const struct ls_recompute_problem *problem, int64_t budget, int64_t again)
{
    out->many = problem->layers;
    out->budget = budget - problem->fixed - again;
    out->n = 0;
    for (int i = 0; i < problem->n; i++) {
        if (problem->set[i].again > again) continue;
        set[out->n] = i;
        out->option[out->n].bytes = times(problem->copies, problem->set[i].kept);
        out->option[out->n++].cost = picoseconds(problem->set[i].seconds);
    }
}

static int compare_amounts(const void *a, const void *b)
{
    const struct amount *x = a, *y = b;

    if (x->bound != y->bound) return x->bound < y->bound ? -1 : 1;
    return (x->again > y->again) - (x->again < y->again);
}

/* amount [LS_RECOMPUTE_SETS]: those with which something fits, the most promising first; returns
 * how many. */
static int list_amounts(struct amount *amount, const struct ls_recompute_problem *problem,
                        int64_t budget)
{
    struct ls_mix_problem mix;
    int set[LS_RECOMPUTE_SETS], n = 0;

    for (int i = 0; i < problem->n; i++) {
        amount[n].again = problem->set[i].again;
        list_options(&mix, set, problem, budget, amount[n].again);
        amount[n].bound = ls_mix_bound(&mix);
        if (isfinite(amount[n].bound)) n++;
    }
    qsort(amount, (size_t)n, sizeof *amount, compare_amounts);
    return n;
}

/* ---- answers */

static void count_bytes(struct ls_recompute_choice *out, const struct ls_recompute_problem *problem)
{
    int64_t layer_bytes = 0;

    out->again = 0;
    out->work = (struct ls_layer_work){0, 0, 0};
    out->seconds = 0;
    for (int i = 0; i < problem->n; i++) {
        const struct ls_recompute_set *set = &problem->set[i];
        const struct ls_layer_work work = ls_layer_work_times(&set->work, (double)out->layers[i]);

        if (out->layers[i] == 0) continue;
        layer_bytes = plus(layer_bytes, times(out->layers[i] / problem->parts, set->kept));
        if (set->again > out->again) out->again = set->again;
        out->work = ls_layer_work_sum(&out->work, &work);
        out->seconds += (double)out->layers[i] * set->seconds;
    }
    out->kept = times(problem->copies, layer_bytes);
    out->bytes = plus(problem->fixed, plus(out->kept, out->again));
}

/* The best that brings back at most so much, if it is better than what is there. */
static ls_status try_amount(struct ls_recompute_choice *out, int64_t *cost,
                            const struct ls_recompute_problem *problem, int64_t budget,
                            int64_t again)
{
    struct ls_recompute_choice choice = {.layers = {0}};
    struct ls_mix_problem options;
    struct ls_mix mix;
    int set[LS_RECOMPUTE_SETS];
    bool found;

    list_options(&options, set, problem, budget, again);
    LS_TRY(ls_mix_find(&mix, &found, &options, *cost));
    if (!found) return LS_OK;
    for (int i = 0; i < options.n; i++) choice.layers[set[i]] = mix.count[i] * problem->parts;
    count_bytes(&choice, problem);
    if (mix.cost == *cost && choice.bytes >= out->bytes) return LS_OK;
    *out = choice;
    *cost = mix.cost;
    return LS_OK;
}

static int64_t uniform_bytes(const struct ls_recompute_problem *problem, int i)
{
    const struct ls_recompute_set *set = &problem->set[i];

    return plus(plus(problem->fixed, set->again),
                times(times(problem->copies, problem->layers), set->kept));
}

/* All layers alike: what one that takes more to bring back keeps less is worth it for all. */
int64_t ls_recompute_least(const struct ls_recompute_problem *problem)
{
    int64_t least = INT64_MAX;

    for (int i = 0; i < problem->n; i++) {
        const int64_t bytes = uniform_bytes(problem, i);

        if (bytes < least) least = bytes;
    }
    return least;
}

ls_status ls_recompute_choose(struct ls_recompute_choice *out,
                              const struct ls_recompute_problem *problem, int64_t budget)
{
    const int64_t least = ls_recompute_least(problem);
    struct ls_recompute_choice best = {.bytes = INT64_MAX};
    struct amount amount[LS_RECOMPUTE_SETS];
    int64_t cost = INT64_MAX;

    if (least > budget || least == INT64_MAX)
        return ls_fail(LS_EFIT, "the least that fits is %lld bytes a rank, %lld more than %lld",
                       (long long)least, (long long)plus(least, -budget), (long long)budget);
    const int amounts = list_amounts(amount, problem, budget);
    for (int i = 0; i < amounts; i++)
        if (i == 0 || amount[i].again != amount[i - 1].again)
            LS_TRY(try_amount(&best, &cost, problem, budget, amount[i].again));
    *out = best;
    return LS_OK;
}

ls_status ls_recompute_frontier(struct ls_recompute_choice *out, int *count, int most,
                                const struct ls_recompute_problem *problem)
{
    const int64_t least = ls_recompute_least(problem);
    struct ls_recompute_choice dearest;
    int n = 0;

    LS_TRY(ls_recompute_choose(&dearest, problem, INT64_MAX - 1));
    for (int i = 0; i < most; i++) {
        const int64_t budget = least + (int64_t)((double)(dearest.bytes - least) * i / (most - 1));

        LS_TRY(ls_recompute_choose(&out[n], problem, i == most - 1 ? dearest.bytes : budget));
        if (n == 0 || out[n].bytes > out[n - 1].bytes) n++;
    }
    *count = n;
    return LS_OK;
}
