/* The threads of one call, and what each of them takes. */
#include <omp.h>

#include "cpu/float_mode.h"
#include "cpu/linear/linear.h"

#define ITEMS 4 /* of a thread, so that all end at about the same time */

static int64_t parts(int64_t n, int part)
{
    return (n + part - 1) / part;
}

/* The smallest part, in whole blocks, that gives no more parts than `part` does. */
static int even_part(int64_t n, int part)
{
    if (n == 0) return part;
    const int64_t count = parts(n, part);

    return (int)(linear_panels((n + count - 1) / count) * LINEAR_SIDE);
}

static int half(int part)
{
    return (int)linear_panels(part / 2) * LINEAR_SIDE;
}

struct linear_tile cpu_linear_fit_tile(struct linear_tile most, int64_t rows, int64_t columns,
                                       int threads)
{
    struct linear_tile tile = most;

    while (threads > 1 && (tile.rows > LINEAR_SIDE || tile.columns > LINEAR_SIDE) &&
           parts(rows, tile.rows) * parts(columns, tile.columns) < ITEMS * threads) {
        if (tile.columns >= tile.rows)
            tile.columns = half(tile.columns);
        else
            tile.rows = half(tile.rows);
    }
    return (struct linear_tile){even_part(rows, tile.rows), even_part(columns, tile.columns)};
}

static void do_tiles(void *job, struct linear_worker *w, const struct linear_products *products,
                     linear_phase *tiles)
{
    const double since = ls_now();

    if (products->begin) products->begin();
    w->tiles = tiles(job, w);
    if (products->end) products->end();
    ls_profile_add(&w->profile, LS_EVENT_TILE, since, (struct ls_event_scope){.amount = w->tiles});
}

static void do_packing(void *job, struct linear_worker *w, linear_phase *pack)
{
    const double since = ls_now();
    const int64_t packed = pack(job, w);

    ls_profile_add(&w->profile, LS_EVENT_PACK, since, (struct ls_event_scope){.amount = packed});
}

static void collect(struct ls_work *work, const struct ls_linear_kernel *kernel)
{
    for (int t = 0; t < kernel->cpu.threads; t++) {
        work->tiles += kernel->worker[t].tiles;
        ls_profile_merge(&work->profile, &kernel->worker[t].profile);
    }
}

void cpu_linear_call(struct ls_queue *queue, struct ls_linear_kernel *kernel, void *job,
                     linear_phase *pack, linear_phase *tiles)
{
    struct progress_clock clock = {.progress = queue->progress, .due = ls_now()};
    struct team team = {0};

    for (int t = 0; t < kernel->cpu.threads; t++) {
        kernel->worker[t].tiles = 0;
        kernel->worker[t].profile = (struct ls_profile){.thread = t};
    }
#pragma omp parallel num_threads(kernel->cpu.threads)
    {
        struct linear_worker *w = &kernel->worker[omp_get_thread_num()];

        const fenv_t callers = cpu_float_mode_enter();
        w->clock = omp_get_thread_num() == 0 ? &clock : NULL;
#pragma omp single
        team.busy = omp_get_num_threads(); /* can be fewer than asked for: OMP_THREAD_LIMIT */
        if (pack) do_packing(job, w, pack);
#pragma omp barrier
        do_tiles(job, w, kernel->products, tiles);
        cpu_team_wait(&team, w->clock);
        fesetenv(&callers);
    }
    collect(&queue->work, kernel);
}
