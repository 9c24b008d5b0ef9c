/* One call of the gradient kernel: who does what, and in which order. Items of a head are taken
 * chunk by chunk, and each leaf of queries receives its dq in this order, so that the sums do not
 * depend on threads; whoever comes too early waits. The earliest item that is not done never does.
 * Leaves of queries are met from the last to the first: under a causal mask all chunks begin with
 * the same one, and a later chunk does not wait for what only an earlier one sees.
 *
 * Where there are several groups of heads for each thread (threads_take_groups), it packs and does
 * all items of some by itself: what it has packed stays in its cache. */
#include <assert.h>
#include <omp.h>
#include <sched.h>

#include "cpu/float_mode.h"
#include "cpu/gradient/gradient.h"
#include "cpu/gradient/kernel.h"

static int64_t wave_groups(const struct gradient_job *job)
{
    return (job->heads + job->kernel->group - 1) / job->kernel->group;
}

/* Leaves of keys, then leaves of queries. */
static void pack_phase(struct gradient_job *job, struct gradient_worker *w)
{
    const int64_t keys = wave_groups(job) * job->call->k_leaves.count;
    const int64_t n = keys + job->heads * job->call->q_leaves.count;
    const bool only_keys = cpu_gradient_queries_are_packed(job);
    const double since = ls_now();
    int64_t i, packed = 0;

    while ((i = atomic_fetch_add(&job->next_pack, 1)) < n && !job->team->failed) {
        const ls_status status = i < keys ? cpu_pack_gradient_keys(job, w, i)
                                          : cpu_pack_gradient_queries(job, w, i - keys);
        if (status != LS_OK) cpu_team_fail(job->team, status);
        packed += i < keys || !only_keys;
        progress_tick(w->clock);
    }
    ls_profile_add(
        &w->profile, LS_EVENT_PACK, since,
        (struct ls_event_scope){.pair = job->first / job->kernel->group, .amount = packed});
}

/* dk or dv of a chunk. */
struct key_sums {
    struct sum_forest *forest; /* of each leaf of the chunk */
    const struct sums *own;    /* [rows][d] of each, a thread's */
    float *all;                /* [b, h, s_k_loc, d], the caller's */
    struct ls_tensor *rounded; /* NULL: the caller wants them as they are */
    int64_t d;
};

/* A chunk of leaves of keys of one head. */
struct item {
    int64_t head, chunk;
    int64_t first, end; /* leaves of keys */
    double since;       /* when its tiles, or those after the last wait, began */
    int64_t tiles;      /* of the thread by then */
};

static void start_tiles(struct item *item, const struct gradient_worker *w)
{
    item->since = ls_now();
    item->tiles = w->tiles;
}

static void end_tiles(struct gradient_worker *w, const struct gradient_job *job,
                      const struct item *item, int64_t q_leaf)
{
    ls_profile_add(&w->profile, LS_EVENT_TILE, item->since,
                   (struct ls_event_scope){.pair = item->head / job->kernel->group,
                                           .amount = w->tiles - item->tiles,
                                           .query_leaf = q_leaf});
}

static bool is_turn_of(struct gradient_queries *queries, const struct item *item)
{
    return atomic_load_explicit(&queries->turn, memory_order_acquire) == item->chunk;
}

/* Returns false if another thread has failed and the turn may never come. */
static bool wait_for_turn(struct gradient_job *job, struct gradient_worker *w,
                          struct gradient_queries *queries, struct item *item, int64_t q_leaf)
{
    if (is_turn_of(queries, item)) return true;
    end_tiles(w, job, item, q_leaf);
    const double since = ls_now();
    while (!is_turn_of(queries, item)) {
        if (job->team->failed) return false;
        progress_tick(w->clock);
        sched_yield();
    }
    ls_profile_add(&w->profile, LS_EVENT_WAIT, since,
                   (struct ls_event_scope){.pair = item->head / job->kernel->group,
                                           .amount = item->chunk,
                                           .query_leaf = q_leaf});
    start_tiles(item, w);
    return true;
}

/* The last leaf of keys of the chunk that the leaf of queries sees; none: -1. */
static int64_t last_seen(const struct gradient_job *job, const struct item *item, int64_t q_leaf)
{
    for (int64_t j = item->end - 1; j >= item->first; j--)
        if (gradient_leaf_is_seen(job, item->head, q_leaf, j)) return j;
    return -1;
}

/* One leaf of queries meets the chunk. Its dq of the chunk's last leaf goes on to what earlier
 * chunks gave it. */
static ls_status meet_queries(struct gradient_job *job, struct gradient_worker *w,
                              struct item *item, int64_t q_leaf)
{
    struct gradient_queries *queries = &job->kernel->queries[queries_slot(job, item->head, q_leaf)];
    const int64_t last = last_seen(job, item, q_leaf);

    if (last < 0) return LS_OK;
    const int64_t next = gradient_next_chunk(job, item->head, q_leaf, item->chunk + 1);
    const bool is_whole = next == gradient_chunks(job);

    sum_forest_start(&w->dq, LS_LEAF, job->kernel->pad.d);
    for (int64_t j = item->first; j <= last; j++) {
        struct gradient_paths paths = {0};

        if (!gradient_leaf_is_seen(job, item->head, q_leaf, j)) continue;
        sum_forest_lead(&paths.dq, &w->dq, j, j == last);
        sum_forest_lead(&paths.dk, &w->dk[j - item->first], ~q_leaf, false);
        sum_forest_lead(&paths.dv, &w->dv[j - item->first], ~q_leaf, false);
        if (j == last) {
            if (!wait_for_turn(job, w, queries, item, q_leaf)) return LS_OK;
            sum_forest_lead(&paths.dq, &queries->dq, item->chunk, is_whole);
            if (is_whole && job->call->rounded.dq) paths.dq.total = w->whole_dq;
        }
        LS_TRY(cpu_gradient_tile(&paths, job, w, item->head, q_leaf, j));
        progress_tick(w->clock);
    }
    if (is_whole) gradient_finish_dq(job, item->head, q_leaf, w->whole_dq);
    atomic_store_explicit(&queries->turn, next, memory_order_release);
    return LS_OK;
}

static void start_sums(const struct key_sums *of, const struct gradient_job *job,
                       const struct item *item, int64_t k_leaf)
{
    const struct ls_leaf *leaf = &job->call->k_leaves.leaf[k_leaf];
    const int64_t row = item->head * job->call->k->dim[1] + leaf->row, i = k_leaf - item->first;
    const int rows = leaf_rows(leaf->number, job->kernel->shape.attention.global.s_k);

    sum_forest_start(&of->forest[i], rows, (int)of->d);
    of->forest[i].node[0] = of->rounded ? of->own[i] : (struct sums){of->all + row * of->d, of->d};
}

/* 0 if nobody sees these keys. */
static void finish_sums(const struct key_sums *of, const struct gradient_job *job,
                        const struct item *item, int64_t k_leaf)
{
    const int64_t h = job->kernel->shape.attention.global.h;
    struct sum_forest *forest = &of->forest[k_leaf - item->first];

    if (forest->top == 0)
        cpu_sums_clear(forest->node[0], forest->rows, forest->d);
    else
        sum_forest_fold(forest);
    if (of->rounded)
        cpu_round_rows(of->rounded, item->head / h, job->call->k_leaves.leaf[k_leaf].row,
                       item->head % h, forest->node[0], forest->rows);
}

static ls_status run_item(struct gradient_job *job, struct gradient_worker *w, int64_t number)
{
    const struct ls_attention_shape *s = &job->kernel->shape.attention.global;
    const struct ls_gradient_call *call = job->call;
    const int64_t first = number % gradient_chunks(job) * job->kernel->chunk;
    const int64_t end = first + job->kernel->chunk, leaves = call->k_leaves.count;
    const struct key_sums sums[] = {
        {w->dk, w->whole_dk, call->dk, call->rounded.dk, s->d},
        {w->dv, w->whole_dv, call->dv, call->rounded.dv, ls_value_dim(s)}};
    struct item item = {.head = job->first + number / gradient_chunks(job),
                        .chunk = number % gradient_chunks(job),
                        .first = first,
                        .end = end < leaves ? end : leaves};

    start_tiles(&item, w);
    for (int i = 0; i < 2; i++)
        for (int64_t j = item.first; j < item.end; j++) start_sums(&sums[i], job, &item, j);
    for (int64_t i = call->q_leaves.count - 1; i >= 0 && !job->team->failed; i--)
        LS_TRY(meet_queries(job, w, &item, i));
    for (int i = 0; i < 2; i++)
        for (int64_t j = item.first; j < item.end; j++) finish_sums(&sums[i], job, &item, j);
    end_tiles(w, job, &item, 0);
    return LS_OK;
}

static void item_phase(struct gradient_job *job, struct gradient_worker *w)
{
    const struct gradient_products *products = job->kernel->products;
    const int64_t items = job->heads * gradient_chunks(job);
    int64_t item;

    if (products->begin) products->begin();
    while ((item = atomic_fetch_add(&job->next_item, 1)) < items && !job->team->failed) {
        const ls_status status = run_item(job, w, item);
        if (status != LS_OK) cpu_team_fail(job->team, status);
    }
    if (products->end) products->end();
}

static void start_wave(struct gradient_job *job, int64_t first, int64_t end)
{
    job->first = first;
    job->heads = end - first;
    job->next_pack = job->next_item = 0;
}

/* Heads [first, end) are a wave's: whole groups, or some of one. */
static int64_t wave_end(const struct ls_gradient_kernel *kernel, int64_t first)
{
    const int64_t group = kernel->group,
                  all = kernel->shape.attention.global.b * kernel->shape.attention.global.h;
    const int64_t most = kernel->wave < group ? (first / group + 1) * group : all;
    const int64_t end = first + kernel->wave;

    return end < most ? end : most;
}

/* Can be fewer than asked for: OMP_THREAD_LIMIT. */
static void start_team(struct team *team)
{
    team->busy = omp_get_num_threads();
}

/* All threads take one wave after the other. */
static void run_together(struct gradient_job *job, struct gradient_worker *w, int64_t heads)
{
    for (int64_t first = 0, end; first < heads; first = end) {
        end = wave_end(job->kernel, first);
#pragma omp barrier
#pragma omp single
        {
            start_wave(job, first, end);
            start_team(job->team);
        }
        pack_phase(job, w);
#pragma omp barrier
        item_phase(job, w);
        cpu_team_wait(job->team, w->clock);
    }
}

/* Each thread takes waves of its own, the next ones that there are; `next` is of all threads. */
static void run_apart(const struct gradient_job *all, _Atomic int64_t *next,
                      struct gradient_worker *w, int64_t heads)
{
    const struct ls_gradient_kernel *kernel = all->kernel;
    struct gradient_job job = {
        .kernel = all->kernel, .call = all->call, .team = all->team, .wave = w - kernel->worker};
    int64_t first;

#pragma omp single
    start_team(all->team);
    while ((first = atomic_fetch_add(next, kernel->wave)) < heads && !job.team->failed) {
        start_wave(&job, first, wave_end(kernel, first));
        pack_phase(&job, w);
        item_phase(&job, w);
    }
    cpu_team_wait(job.team, w->clock);
}

static void collect(struct ls_work *work, struct ls_gradient_kernel *kernel)
{
    for (int t = 0; t < kernel->cpu.threads; t++) {
        work->tiles += kernel->worker[t].tiles;
        ls_profile_merge(&work->profile, &kernel->worker[t].profile);
    }
}

/* A tile that failed may have left some. */
static void clear_distances(const struct ls_gradient_kernel *kernel, struct gradient_worker *w)
{
    for (int64_t i = 0; i < kernel->shape.attention.scores.distances; i++) w->distance[i] = 0;
}

ls_status cpu_gradient(struct ls_queue *queue, struct ls_gradient_kernel *kernel,
                       const struct ls_gradient_call *call)
{
    const int64_t heads = kernel->shape.attention.global.b * kernel->shape.attention.global.h;
    struct team team = {0};
    struct gradient_job job = {.kernel = kernel, .call = call, .team = &team};
    _Atomic int64_t next_wave = 0;
    struct progress_clock clock = {.progress = queue->progress, .due = ls_now()};

    assert(kernel->group == 1 || (!call->rounded.dk && !call->rounded.dv));
    if (call->change) {
        kernel->shape.attention.masks = call->change->masks;
        kernel->shape.attention.scores.seed = call->change->seed;
        kernel->distances = call->change->distances;
    }
    for (int t = 0; t < kernel->cpu.threads; t++) {
        kernel->worker[t].tiles = 0;
        kernel->worker[t].profile = (struct ls_profile){.thread = t};
    }
#pragma omp parallel num_threads(kernel->cpu.threads)
    {
        struct gradient_worker *w = &kernel->worker[omp_get_thread_num()];

        omp_set_num_threads(1); /* for oneDNN, which looks at this task's own setting */
        const fenv_t callers = cpu_float_mode_enter();
        w->clock = omp_get_thread_num() == 0 ? &clock : NULL;
        clear_distances(kernel, w);
        if (kernel->waves == 1)
            run_together(&job, w, heads);
        else
            run_apart(&job, &next_wave, w, heads);
        fesetenv(&callers);
    }
    collect(&queue->work, kernel);
    return cpu_team_status(&team);
}
