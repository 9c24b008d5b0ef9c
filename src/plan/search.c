#include "plan/search.h"

#include <stdlib.h>

#include "longspan/layout.h"
#include "plan/model_size.h"
#include "plan/model_widths.h"
#include "plan/pieces.h"
#include "tensor/dtype.h"

/* ---- time */

/* To the next stage and back, for each part. */
static double between_stages(const struct ls_model_shape *model, const struct ls_model_run *run)
{
    const double bytes =
        (double)outer_rows(run) * (double)model->h * (double)ls_dtype_size(run->type);

    return run->p > 1 ? 2 * bytes * (double)run->m : 0;
}

struct ls_micro_batch ls_micro_batch(const struct ls_model_shape *model,
                                     const struct ls_model_run *run,
                                     const struct ls_layer_work *again,
                                     const struct ls_rates *rates)
{
    const struct ls_step_flops flops = ls_model_flops(model, run);
    const struct ls_layer_work layer = ls_layer_step(model, run);
    struct ls_micro_batch out = {.step = ls_layer_work_times(&layer, (double)(model->L / run->p)),
                                 .again = *again};

    out.step.flops = (flops.forward + flops.backward) / (double)(run->t * run->c * run->p);
    out.step.exchanged += between_stages(model, run);
    const struct ls_layer_work all = ls_layer_work_sum(&out.step, again);
    out.seconds = ls_layer_work_seconds(&all, rates);
    return out;
}

/* ---- grids */

/* A grid, and what it takes at the least: with nothing computed again. */
struct candidate {
    int64_t t, c, p;
    bool sp;
    double seconds_per_token;
};

struct candidates {
    struct candidate *list;
    size_t count, room;
};

struct question {
    const struct ls_model_shape *model;
    const struct ls_model_run *run;
    int64_t ranks, budget;
    const struct ls_rates *rates;
    bool choose;
};

/* Interleaved as far as its stages have so many parts. */
static struct ls_model_run run_of(const struct candidate *grid, const struct question *q)
{
    struct ls_model_run out = *q->run;

    out.t = grid->t;
    out.c = grid->c;
    out.p = grid->p;
    if (grid->p == 1 || q->model->L % (grid->p * out.m) != 0) out.m = 1;
    out.sp = grid->sp;
    return out;
}

static double per_token(const struct ls_model_run *run, int64_t ranks, double seconds)
{
    const int64_t copies = ranks / (run->t * run->c * run->p);

    return seconds / ((double)run->b * (double)run->s * (double)copies);
}

static ls_status take(struct candidates *all, const struct candidate *grid)
{
    if (all->count == all->room) {
        const size_t room = 2 * all->room + 64;
        struct candidate *more = realloc(all->list, room * sizeof *more);

        if (!more) return ls_fail(LS_ENOMEM, "search: out of memory");
        all->list = more;
        all->room = room;
    }
    all->list[all->count++] = *grid;
    return LS_OK;
}

/* Both ways to have the rows outside, if the grid can be. */
static ls_status take_grid(struct candidates *all, const struct question *q, struct candidate grid)
{
    const struct ls_layer_work nothing = {0, 0, 0};
    struct ls_rank_bytes bytes;

    for (int sp = 0; sp < (grid.t > 1 ? 2 : 1); sp++) {
        grid.sp = sp == 1;
        const struct ls_model_run run = run_of(&grid, q);

        if (ls_model_bytes(&bytes, q->model, &run) != LS_OK) return LS_OK;
        grid.seconds_per_token =
            per_token(&run, q->ranks, ls_micro_batch(q->model, &run, &nothing, q->rates).seconds);
        LS_TRY(take(all, &grid));
    }
    return LS_OK;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int compare(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    return (x->seconds_per_token > y->seconds_per_token) -
           (x->seconds_per_token < y->seconds_per_token);
}

/* Fastest first. */
static ls_status list_grids(struct candidates *all, const struct question *q)
{
    const struct ls_model_shape *model = q->model;
    const int64_t leaves = share(q->run->s, LS_LEAF);

    for (int64_t t = 1; t <= smaller(q->ranks, model->a); t++) {
        if (model->a % t != 0) continue;
        for (int64_t p = 1; p <= smaller(q->ranks / t, model->L); p++) {
            if (model->L % p != 0) continue;
            for (int64_t c = 1; c <= smaller(q->ranks / (t * p), leaves); c++)
                LS_TRY(take_grid(all, q, (struct candidate){.t = t, .c = c, .p = p}));
        }
    }
    if (all->count == 0)
        return ls_fail(LS_EVALUE, "no grid of up to %lld ranks can have this model",
                       (long long)q->ranks);
    qsort(all->list, all->count, sizeof *all->list, compare);
    return LS_OK;
}

/* ---- the best of them */

struct best {
    struct ls_grid_plan *list;
    int count, most;
    int64_t least; /* bytes of the grid that misses the budget by least */
    struct ls_model_run nearest;
};

static bool is_better(const struct ls_grid_plan *a, const struct ls_grid_plan *b)
{
    if (a->seconds_per_token != b->seconds_per_token)
        return a->seconds_per_token < b->seconds_per_token;
    return a->choice.bytes < b->choice.bytes;
}

/* Into its place; list has room for one more than the most. */
static void insert(struct best *best, int at)
{
    for (; at > 0 && is_better(&best->list[at], &best->list[at - 1]); at--) {
        const struct ls_grid_plan moved = best->list[at];

        best->list[at] = best->list[at - 1];
        best->list[at - 1] = moved;
    }
    if (best->count < best->most) best->count++;
}

/* No pieces take less: the layer's input alone is kept, and nothing brought back. */
static ls_status count_least(int64_t *out, const struct question *q, const struct ls_model_run *run)
{
    struct ls_model_run least = *run;
    struct ls_rank_bytes bytes;

    least.pieces = LS_PIECE_LAYER;
    LS_TRY(ls_model_bytes(&bytes, q->model, &least));
    bytes.recompute = 0;
    *out = ls_rank_bytes_total(&bytes);
    return LS_OK;
}

static ls_status try_grid(struct best *best, const struct question *q, const struct candidate *grid)
{
    struct ls_grid_plan *plan = &best->list[best->count];

    int64_t least;

    plan->run = run_of(grid, q);
    LS_TRY(count_least(&least, q, &plan->run));
    if (least > q->budget && (best->count > 0 || least >= best->least)) return LS_OK;
    LS_TRY(ls_recompute_problem_init(&plan->problem, q->model, &plan->run, q->rates, !q->choose));
    least = ls_recompute_least(&plan->problem);
    if (least < best->least) {
        best->least = least;
        best->nearest = plan->run;
    }
    if (least > q->budget) return LS_OK;
    LS_TRY(ls_recompute_choose(&plan->choice, &plan->problem, q->budget));
    plan->copies = q->ranks / (grid->t * grid->c * grid->p);
    plan->time = ls_micro_batch(q->model, &plan->run, &plan->choice.work, q->rates);
    plan->seconds_per_token = per_token(&plan->run, q->ranks, plan->time.seconds);
    insert(best, best->count);
    return LS_OK;
}

/* Computing again only adds to a grid's time: behind the last that may be among the best, none is.
 */
static ls_status try_grids(struct best *best, const struct candidates *all,
                           const struct question *q)
{
    for (size_t i = 0; i < all->count; i++) {
        if (best->count == best->most &&
            all->list[i].seconds_per_token > best->list[best->count - 1].seconds_per_token)
            return LS_OK;
        LS_TRY(try_grid(best, q, &all->list[i]));
    }
    if (best->count > 0) return LS_OK;
    return ls_fail(LS_EFIT,
                   "none of %lld grids of up to %lld ranks fits: %lld x %lld x %lld (tp x cp x "
                   "pp)%s takes %lld bytes a rank, %lld more than %lld",
                   (long long)all->count, (long long)q->ranks, (long long)best->nearest.t,
                   (long long)best->nearest.c, (long long)best->nearest.p,
                   best->nearest.sp ? " with sequence parallelism" : "", (long long)best->least,
                   (long long)(best->least - q->budget), (long long)q->budget);
}

ls_status ls_model_search(struct ls_grid_plan **out, int *count, int most,
                          const struct ls_model_shape *model, const struct ls_model_run *run,
                          int64_t ranks, int64_t budget, const struct ls_rates *rates, bool choose)
{
    const struct question question = {model, run, ranks, budget, rates, choose};
    struct candidates all = {NULL, 0, 0};
    struct best best = {
        .list = calloc((size_t)most + 1, sizeof *best.list), .most = most, .least = INT64_MAX};
    ls_status status =
        best.list ? list_grids(&all, &question) : ls_fail(LS_ENOMEM, "search: out of memory");

    if (status == LS_OK) status = try_grids(&best, &all, &question);
    free(all.list);
    if (status != LS_OK) {
        free(best.list);
        return status;
    }
    *out = best.list;
    *count = best.count;
    return LS_OK;
}
