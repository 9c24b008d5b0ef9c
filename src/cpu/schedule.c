/* One call of the attention kernel: who does what, and in which order. */
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "cpu/attention.h"
#include "cpu/kernel.h"

/* What one call's phases share. */
struct job {
    struct ls_attention_kernel *kernel;
    const struct ls_kernel_call *call;
    int64_t wave_first, wave_pairs;
    int lanes;     /* tiles of an item */
    int64_t span;  /* leaves of keys of an item */
    int64_t spans; /* items that share a tile, 1 unless tiles are few */
    _Atomic int64_t next_pack, next_item, next_fold;
    _Atomic int failed; /* an ls_status */
    char message[256];
};

static int64_t pairs(const struct ls_attention_kernel *kernel)
{
    return kernel->shape.global.b * kernel->shape.global.h_kv;
}

/* ls_fail's message belongs to the thread that failed; the first one is kept for the caller. */
static void record_failure(struct job *job, ls_status status)
{
    int none = LS_OK;

    if (atomic_compare_exchange_strong(&job->failed, &none, (int)status))
        snprintf(job->message, sizeof job->message, "%s", ls_message());
}

/* Leaves of keys that the last, and so some, query leaf sees. */
static int64_t needed_leaves(const struct job *job)
{
    const struct ls_leaf_list *queries = &job->call->q_leaves;

    if (queries->count == 0) return 0;
    return visible_leaves(job->kernel, job->call, &queries->leaf[queries->count - 1]);
}

static void pack_phase(struct job *job, struct worker *w)
{
    const int64_t leaves = needed_leaves(job), n = job->wave_pairs * leaves;
    const double since = ls_now();
    int64_t i;

    while ((i = atomic_fetch_add(&job->next_pack, 1)) < n && !job->failed) {
        const ls_status status = pack_leaf(job->kernel, w, job->call, job->wave_first,
                                           job->wave_first + i / leaves, i % leaves);
        if (status != LS_OK) record_failure(job, status);
        progress_tick(w->clock);
    }
    ls_profile_add(&w->profile, LS_EVENT_PACK, since);
}

/* Tiles that the group's heads make of one query leaf; only the last leaf can have fewer. */
static int64_t tiles_per_leaf(const struct job *job)
{
    const struct ls_attention_kernel *kernel = job->kernel;
    const int64_t first = job->call->q_leaves.leaf[0].number;
    const int rows = leaf_rows(first, kernel->shape.global.s_q);

    return (kernel->group * rows + TILE_ROWS - 1) / TILE_ROWS;
}

/* Items of the wave, each one taking job->lanes tiles of as many query leaves and one pair. */
static int64_t item_count(const struct job *job)
{
    const int64_t leaves = job->call->q_leaves.count;

    if (leaves == 0) return 0;
    return (leaves + job->lanes - 1) / job->lanes * job->wave_pairs * tiles_per_leaf(job);
}

/* The tile in one lane of an item. Items go from the last query leaves, which take longest if
 * causal, to the first. False if there is no such tile: the last leaf can be short, and the first
 * leaves may be fewer than lanes. */
static bool find_tile(struct tile *out, const struct job *job, int64_t item, int lane)
{
    const struct ls_attention_kernel *kernel = job->kernel;
    const struct ls_leaf_list *leaves = &job->call->q_leaves;
    const int64_t tiles = tiles_per_leaf(job), per_block = job->wave_pairs * tiles;
    const int64_t t = item % tiles * job->lanes + lane;
    const int64_t from_end = item / per_block * job->lanes + t / tiles;

    if (from_end >= leaves->count) return false;
    const struct ls_leaf *leaf = &leaves->leaf[leaves->count - 1 - from_end];
    const int rows = leaf_rows(leaf->number, kernel->shape.global.s_q);
    const int64_t folded = kernel->group * rows, first = t % tiles * TILE_ROWS;

    if (first >= folded) return false;
    *out = (struct tile){
        .pair = job->wave_first + item % per_block / tiles,
        .leaf = leaf,
        .leaf_rows = rows,
        .first = (int)first,
        .rows = folded - first < TILE_ROWS ? (int)(folded - first) : TILE_ROWS,
    };
    return true;
}

/* Several tiles that meet each leaf one after the other read it from nearby. With few tiles they go
 * alone, and with very few each one's keys are cut into spans, aligned nodes of the tree, so that
 * all threads have work; results are merged as the tree says, so the bits do not depend on it. */
static void choose_items(struct job *job)
{
    const int64_t threads = job->kernel->shape.threads, leaves = job->call->k_leaves.count;

    job->lanes = 1;
    job->span = leaves;
    job->spans = 1;
    const int64_t tiles = item_count(job);
    if (tiles >= 8 * threads) {
        job->lanes = LANES;
    } else if (tiles > 0 && leaves > 0 && tiles < 2 * threads && threads > 1) {
        job->span = CHUNK_LEAVES;
        while (tiles * ((leaves + job->span - 1) / job->span) > job->kernel->split_states)
            job->span *= 2;
        job->spans = (leaves + job->span - 1) / job->span;
    }
}

/* A tile that sees none of the keys leaves earlier results as they are. */
static bool changes_nothing(const struct job *job, const struct tile *tile)
{
    return job->call->merge && !job->call->o &&
           visible_leaves(job->kernel, job->call, tile->leaf) == 0;
}

static void keep_split(struct ls_row_states to, struct ls_row_states from, int rows, int d_pad)
{
    memcpy(to.m, from.m, (size_t)rows * sizeof *to.m);
    memcpy(to.l, from.l, (size_t)rows * sizeof *to.l);
    memcpy(to.acc, from.acc, (size_t)rows * (size_t)d_pad * sizeof *to.acc);
}

/* Brings the item's tiles into lanes; returns how many. */
static int fill_lanes(struct job *job, struct worker *w, int64_t item)
{
    int lanes = 0;

    for (int i = 0; i < job->lanes; i++) {
        struct lane *lane = &w->lane[lanes];

        if (!find_tile(&lane->tile, job, item, i) || changes_nothing(job, &lane->tile)) continue;
        gather_queries(job->kernel, lane, job->call->q);
        lanes++;
    }
    return lanes;
}

static ls_status run_item(struct job *job, struct worker *w, int64_t number)
{
    struct ls_attention_kernel *kernel = job->kernel;
    const int64_t item = number / job->spans, from = number % job->spans * job->span;
    double since = ls_now();
    const int lanes = fill_lanes(job, w, item);

    if (lanes == 0) return LS_OK;
    LS_TRY(meet_keys(kernel, w, job->call, lanes, job->wave_first, from, from + job->span));
    ls_profile_add(&w->profile, LS_EVENT_TILE, since);
    since = ls_now();
    for (struct lane *lane = w->lane; lane < w->lane + lanes; lane++) {
        const struct ls_row_states result = lane_result(lane);

        if (job->spans == 1)
            finish_tile(kernel, w, job->call, &lane->tile, result);
        else
            keep_split(kernel->split[number], result, lane->tile.rows, kernel->d_pad);
    }
    ls_profile_add(&w->profile, job->spans == 1 ? LS_EVENT_FINISH : LS_EVENT_MERGE, since);
    return LS_OK;
}

static void tile_phase(struct job *job, struct worker *w)
{
    const int64_t items = item_count(job) * job->spans;
    int64_t item;

    while ((item = atomic_fetch_add(&job->next_item, 1)) < items && !job->failed) {
        const ls_status status = run_item(job, w, item);
        if (status != LS_OK) record_failure(job, status);
    }
}

/* Merges the spans of each tile and finishes it. */
static void fold_phase(struct job *job, struct worker *w)
{
    const struct ls_attention_kernel *kernel = job->kernel;
    const int64_t tiles = job->spans > 1 ? item_count(job) : 0;
    int64_t number;

    while ((number = atomic_fetch_add(&job->next_fold, 1)) < tiles && !job->failed) {
        struct forest forest = {.simd = kernel->simd, .d = kernel->d_pad};
        struct tile tile;

        if (!find_tile(&tile, job, number, 0) || changes_nothing(job, &tile)) continue;
        const double since = ls_now();
        forest_start(&forest, tile.rows);
        for (int64_t i = 0; i < job->spans; i++) {
            forest.node[forest.top] = kernel->split[number * job->spans + i];
            forest_push(&forest);
        }
        finish_tile(kernel, w, job->call, &tile, forest_fold(&forest));
        ls_profile_add(&w->profile, LS_EVENT_MERGE, since);
    }
}

static void start_wave(struct job *job, int64_t first)
{
    const int64_t left = pairs(job->kernel) - first;

    job->wave_first = first;
    job->wave_pairs = left < job->kernel->wave ? left : job->kernel->wave;
    job->next_pack = job->next_item = job->next_fold = 0;
    choose_items(job);
}

static void run_worker(struct job *job, struct worker *w)
{
    const int64_t end = pairs(job->kernel);

    for (int64_t first = 0; first < end; first += job->kernel->wave) {
#pragma omp barrier
#pragma omp single
        start_wave(job, first);
        pack_phase(job, w);
#pragma omp barrier
        tile_phase(job, w);
#pragma omp barrier
        fold_phase(job, w);
    }
}

static void collect(struct ls_kernel_result *result, struct ls_attention_kernel *kernel)
{
    for (int t = 0; t < kernel->shape.threads; t++) {
        result->tiles += kernel->worker[t].tiles;
        ls_profile_merge(&result->profile, &kernel->worker[t].profile);
    }
}

ls_status cpu_attend(struct ls_kernel_result *result, struct ls_attention_kernel *kernel,
                     const struct ls_kernel_call *call)
{
    struct job job = {.kernel = kernel, .call = call};
    struct progress_clock clock = {.progress = call->progress, .due = ls_now()};

#pragma omp parallel num_threads(kernel->shape.threads)
    {
        struct worker *w = &kernel->worker[omp_get_thread_num()];

        omp_set_num_threads(1); /* for oneDNN, which looks at this task's own setting */
        w->clock = omp_get_thread_num() == 0 ? &clock : NULL;
        w->tiles = 0;
        memset(&w->profile, 0, sizeof w->profile);
        run_worker(&job, w);
    }
    collect(result, kernel);
    if (job.failed) return ls_fail((ls_status)job.failed, "%s", job.message);
    return LS_OK;
}
