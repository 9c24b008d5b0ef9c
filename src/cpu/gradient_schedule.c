/* One call of the gradient kernel: who does what, and in which order. Items of a head are taken
 * chunk by chunk, and each leaf of queries receives its dq in this order, so that the sums do not
 * depend on threads; whoever comes too early waits. The earliest item that is not done never does.
 */
#include <fenv.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>

#include "cpu/gradient.h"
#include "cpu/gradient_kernel.h"
#include "cpu/leaf.h"

/* ls_fail's message belongs to the thread that failed; the first one is kept for the caller. */
static void record_failure(struct gradient_job *job, ls_status status)
{
    int none = LS_OK;

    if (atomic_compare_exchange_strong(&job->failed, &none, (int)status))
        snprintf(job->message, sizeof job->message, "%s", ls_message());
}

static int64_t wave_groups(const struct gradient_job *job)
{
    return (job->heads + job->kernel->group - 1) / job->kernel->group;
}

/* Leaves of keys, then leaves of queries. */
static void pack_phase(struct gradient_job *job, struct gradient_worker *w)
{
    const int64_t keys = wave_groups(job) * job->call->k_leaves.count;
    const int64_t n = keys + job->heads * job->call->q_leaves.count;
    const double since = ls_now();
    int64_t i, packed = 0;

    while ((i = atomic_fetch_add(&job->next_pack, 1)) < n && !job->failed) {
        const ls_status status =
            i < keys ? pack_gradient_keys(job, w, i) : pack_gradient_queries(job, w, i - keys);
        if (status != LS_OK) record_failure(job, status);
        packed++;
        progress_tick(w->clock);
    }
    ls_profile_add(
        &w->profile, LS_EVENT_PACK, since,
        (struct ls_event_scope){.pair = job->first / job->kernel->group, .amount = packed});
}

/* A chunk of leaves of keys of one head. */
struct item {
    int64_t head, chunk;
    int64_t first, end; /* leaves of keys */
};

/* The chunk before this one of which these keys are some; -1: none. */
static int64_t chunk_before(const struct gradient_job *job, struct ls_visible visible,
                            int64_t chunk)
{
    do chunk--;
    while (chunk >= 0 && !gradient_chunk_is_seen(job, visible, chunk));
    return chunk;
}

static bool is_last_chunk(const struct gradient_job *job, struct ls_visible visible, int64_t chunk)
{
    const int64_t end = gradient_chunks(job);

    do chunk++;
    while (chunk < end && !gradient_chunk_is_seen(job, visible, chunk));
    return chunk == end;
}

/* Columns of dq as the products gave it become rows. */
static struct sums make_upright(struct gradient_worker *w, struct sums dq, int d_pad)
{
    for (int i = 0; i < LS_LEAF; i++)
        for (int e = 0; e < d_pad; e++) w->upright[i * d_pad + e] = dq.at[e * LS_LEAF + i];
    return (struct sums){w->upright, d_pad};
}

/* Returns false if another thread has failed and the turn may never come. */
static bool wait_for_turn(struct gradient_job *job, struct gradient_worker *w,
                          struct gradient_queries *queries, int64_t before)
{
    while (atomic_load_explicit(&queries->turn, memory_order_acquire) != before + 1) {
        if (job->failed) return false;
        progress_tick(w->clock);
        sched_yield();
    }
    return true;
}

/* Hands dq, summed over the chunk, to its leaf of queries. */
static void push_dq(struct gradient_job *job, struct gradient_worker *w, const struct item *item,
                    int64_t q_leaf, struct ls_visible visible)
{
    struct gradient_queries *queries = &job->kernel->queries[queries_slot(job, item->head, q_leaf)];
    struct sums dq = sum_forest_fold(&w->dq);

    if (job->kernel->products->dq_transposed) dq = make_upright(w, dq, job->kernel->d_pad);
    if (!wait_for_turn(job, w, queries, chunk_before(job, visible, item->chunk))) return;
    sum_forest_push_from(&queries->dq, dq, item->chunk);
    if (is_last_chunk(job, visible, item->chunk)) sum_forest_fold(&queries->dq);
    atomic_store_explicit(&queries->turn, item->chunk + 1, memory_order_release);
}

/* One leaf of queries meets the chunk. */
static ls_status meet_queries(struct gradient_job *job, struct gradient_worker *w,
                              const struct item *item, int64_t q_leaf)
{
    const struct ls_visible visible = gradient_visible(job, q_leaf);
    const int64_t leaf_floats = (int64_t)LS_LEAF * job->kernel->d_pad;

    sum_forest_start(&w->dq, 1, (int)leaf_floats);
    for (int64_t j = item->first; j < item->end; j++) {
        struct sum_forest *dkv = &w->dkv[j - item->first];

        if (!gradient_leaf_is_seen(job, visible, j)) continue;
        float *dk = sum_forest_next(dkv, q_leaf).at;
        const struct gradient_parts parts = {sum_forest_next(&w->dq, j).at, dk, dk + leaf_floats};

        LS_TRY(gradient_tile(&parts, job, w, item->head, q_leaf, j));
        sum_forest_push(&w->dq, j);
        sum_forest_push(dkv, q_leaf);
        progress_tick(w->clock);
    }
    if (w->dq.top > 0) push_dq(job, w, item, q_leaf, visible);
    return LS_OK;
}

/* dk and dv of a leaf of keys to the caller; 0 if nobody sees it. */
static void finish_keys(const struct gradient_job *job, struct sum_forest *dkv, int64_t head,
                        const struct ls_leaf *leaf)
{
    const struct ls_attention_shape *s = &job->kernel->shape.attention.global;
    const int rows = leaf_rows(leaf->number, s->s_k), d = (int)s->d;
    const int64_t row = head * job->call->k->dim[1] + leaf->row;
    const struct sums dk = {job->call->dk + row * d, d}, dv = {job->call->dv + row * d, d};

    if (dkv->top == 0) {
        sums_clear(dk, rows, d);
        sums_clear(dv, rows, d);
        return;
    }
    const struct sums sum = sum_forest_fold(dkv);
    const int64_t d_pad = job->kernel->d_pad;
    sums_copy(dk, (struct sums){sum.at, d_pad}, rows, d);
    sums_copy(dv, (struct sums){sum.at + LS_LEAF * d_pad, d_pad}, rows, d);
}

static ls_status run_item(struct gradient_job *job, struct gradient_worker *w, int64_t number)
{
    const struct ls_leaf_list *keys = &job->call->k_leaves;
    const int64_t first = number % gradient_chunks(job) * GRADIENT_CHUNK;
    const int64_t end = first + GRADIENT_CHUNK, tiles_before = w->tiles;
    const struct item item = {.head = job->first + number / gradient_chunks(job),
                              .chunk = number % gradient_chunks(job),
                              .first = first,
                              .end = end < keys->count ? end : keys->count};
    const double since = ls_now();

    for (int j = 0; j < GRADIENT_CHUNK; j++)
        sum_forest_start(&w->dkv[j], 1, 2 * LS_LEAF * job->kernel->d_pad);
    for (int64_t i = 0; i < job->call->q_leaves.count && !job->failed; i++)
        LS_TRY(meet_queries(job, w, &item, i));
    for (int64_t j = first; j < item.end; j++)
        finish_keys(job, &w->dkv[j - first], item.head, &keys->leaf[j]);
    ls_profile_add(&w->profile, LS_EVENT_TILE, since,
                   (struct ls_event_scope){.pair = item.head / job->kernel->group,
                                           .amount = w->tiles - tiles_before});
    return LS_OK;
}

/* Until the others are through, the first thread moves messages. */
static void wait_for_others(struct gradient_job *job, struct gradient_worker *w)
{
    atomic_fetch_sub(&job->busy, 1);
    while (w->clock && w->clock->progress.call && job->busy > 0) {
        progress_tick(w->clock);
        sched_yield();
    }
}

static void item_phase(struct gradient_job *job, struct gradient_worker *w)
{
    const struct gradient_products *products = job->kernel->products;
    const int64_t items = job->heads * gradient_chunks(job);
    int64_t item;

    if (products->begin) products->begin();
    while ((item = atomic_fetch_add(&job->next_item, 1)) < items && !job->failed) {
        const ls_status status = run_item(job, w, item);
        if (status != LS_OK) record_failure(job, status);
    }
    if (products->end) products->end();
    wait_for_others(job, w);
}

static void start_wave(struct gradient_job *job, int64_t first, int64_t heads)
{
    job->first = first;
    job->heads = heads;
    job->next_pack = job->next_item = 0;
    job->busy = omp_get_num_threads(); /* can be fewer than asked for: OMP_THREAD_LIMIT */
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

static void run_worker(struct gradient_job *job, struct gradient_worker *w)
{
    const struct ls_attention_shape *s = &job->kernel->shape.attention.global;

    for (int64_t first = 0, end; first < s->b * s->h; first = end) {
        end = wave_end(job->kernel, first);
#pragma omp barrier
#pragma omp single
        start_wave(job, first, end - first);
        pack_phase(job, w);
#pragma omp barrier
        item_phase(job, w);
    }
}

static void collect(struct ls_kernel_result *result, struct ls_gradient_kernel *kernel)
{
    for (int t = 0; t < kernel->shape.attention.threads; t++) {
        result->tiles += kernel->worker[t].tiles;
        ls_profile_merge(&result->profile, &kernel->worker[t].profile);
    }
}

ls_status cpu_gradient(struct ls_kernel_result *result, struct ls_gradient_kernel *kernel,
                       const struct ls_gradient_call *call)
{
    struct gradient_job job = {.kernel = kernel, .call = call};
    struct progress_clock clock = {.progress = call->progress, .due = ls_now()};
    fenv_t callers;

    for (int t = 0; t < kernel->shape.attention.threads; t++) {
        kernel->worker[t].tiles = 0;
        kernel->worker[t].profile = (struct ls_profile){.thread = t};
    }
#pragma omp parallel private(callers) num_threads(kernel->shape.attention.threads)
    {
        struct gradient_worker *w = &kernel->worker[omp_get_thread_num()];

        omp_set_num_threads(1); /* for oneDNN, which looks at this task's own setting */
        fegetenv(&callers);
        fesetenv(FE_DFL_ENV); /* rounding and subnormals do not depend on the caller */
        w->clock = omp_get_thread_num() == 0 ? &clock : NULL;
        run_worker(&job, w);
        fesetenv(&callers);
    }
    collect(result, kernel);
    if (job.failed) return ls_fail((ls_status)job.failed, "%s", job.message);
    return LS_OK;
}
