/* The attention kernel of the CPU: its memory, its threads, its order of work. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ledger.h"
#include "cpu/attention.h"
#include "cpu/kernel.h"

#define LOG2E 1.44269504088896341
#define WAVE_BYTES ((size_t)64 << 20) /* packed K and V at once, unless one head has more */
#define SPLITS_PER_THREAD 8

/* What one call's phases share. */
struct job {
    struct ls_attention_kernel *kernel;
    const struct ls_kernel_call *call;
    int64_t wave_first, wave_pairs;
    int64_t span;  /* key leaves of an item */
    int64_t spans; /* items that share a tile, 1 unless tiles are few */
    _Atomic int64_t next_pack, next_item, next_fold;
    _Atomic int failed; /* an ls_status */
    char message[256];
};

static int64_t pairs(const struct ls_kernel_shape *shape)
{
    return shape->global.b * shape->global.h_kv;
}

/* Gives out consecutive pieces of one block, each aligned to 64 bytes. */
struct cursor {
    char *base; /* NULL: only count */
    size_t used;
};

static void *carve(struct cursor *cursor, size_t bytes)
{
    void *piece = cursor->base ? cursor->base + cursor->used : NULL;

    cursor->used += (bytes + 63) / 64 * 64;
    return piece;
}

static struct ls_row_states carve_states(struct cursor *cursor, int d_pad)
{
    struct ls_row_states states;

    states.acc = carve(cursor, (size_t)TILE_ROWS * (size_t)d_pad * sizeof(float));
    states.m = carve(cursor, TILE_ROWS * sizeof(float));
    states.l = carve(cursor, TILE_ROWS * sizeof(float));
    return states;
}

static void place_worker(struct worker *w, char **scratch, struct cursor *cursor,
                         const struct ls_attention_kernel *kernel)
{
    const size_t row = (size_t)kernel->d_pad * (size_t)ls_dtype_size(kernel->products->type);
    const int64_t chunks = (kernel->shape.k_leaves + CHUNK_LEAVES - 1) / CHUNK_LEAVES;

    w->q = carve(cursor, TILE_ROWS * row);
    w->raw = carve(cursor, LS_LEAF * row);
    w->patched = carve(cursor, kernel->packed_bytes);
    w->visible = carve(cursor, CHUNK_LEAVES * TILE_ROWS * sizeof *w->visible);
    w->spare = carve_states(cursor, kernel->d_pad);
    w->forest.simd = kernel->simd;
    w->forest.d = kernel->d_pad;
    for (int i = 0; i < forest_depth(chunks); i++)
        w->forest.node[i] = carve_states(cursor, kernel->d_pad);
    *scratch = carve(cursor, strip_scratch_bytes(kernel->products, kernel->d_pad));
}

/* Everything that follows from the shape alone. */
static void init_kernel(struct ls_attention_kernel *kernel, const struct ls_kernel_shape *shape)
{
    const int64_t d = shape->global.d;

    *kernel = (struct ls_attention_kernel){
        .shape = *shape,
        .products = products_find(shape->isa, shape->global.type),
        .simd = simd_of(shape->isa),
        .group = shape->global.h / shape->global.h_kv,
        .scale_log2 = (float)(fabs((double)shape->scale) * LOG2E),
        .negate = shape->scale < 0,
        .split_states = (int64_t)SPLITS_PER_THREAD * shape->threads,
    };
    kernel->d_pad = (int)((d + kernel->products->d_multiple - 1) / kernel->products->d_multiple *
                          kernel->products->d_multiple);
    kernel->packed_bytes = kernel->products->packed_bytes(kernel->d_pad);

    const size_t pair_bytes = 2 * (size_t)shape->k_leaves * kernel->packed_bytes;
    const int64_t fit = pair_bytes ? (int64_t)(WAVE_BYTES / pair_bytes) : 1;
    kernel->wave = fit < 1 ? 1 : fit < pairs(shape) ? fit : pairs(shape);
}

/* Lays out the kernel's memory; scratch [threads] receives the workers' parts. Returns the
 * bytes; base NULL: only counts them. */
static size_t place_kernel(struct ls_attention_kernel *kernel, char **scratch, char *base)
{
    struct cursor cursor = {.base = base};
    const size_t leaves = (size_t)kernel->wave * (size_t)kernel->shape.k_leaves;

    kernel->packed.k = carve(&cursor, leaves * kernel->packed_bytes);
    kernel->packed.v = carve(&cursor, leaves * kernel->packed_bytes);
    kernel->packed.clean = carve(&cursor, leaves);
    kernel->split = carve(&cursor, (size_t)kernel->split_states * sizeof *kernel->split);
    for (int64_t i = 0; i < kernel->split_states; i++) {
        const struct ls_row_states states = carve_states(&cursor, kernel->d_pad);
        if (base) kernel->split[i] = states;
    }
    kernel->worker = carve(&cursor, (size_t)kernel->shape.threads * sizeof *kernel->worker);
    for (int t = 0; t < kernel->shape.threads; t++) {
        struct worker unused, *w = base ? &kernel->worker[t] : &unused;
        char *piece;

        memset(w, 0, sizeof *w);
        place_worker(w, &piece, &cursor, kernel);
        if (base) scratch[t] = piece;
    }
    return cursor.used;
}

size_t cpu_kernel_bytes(const struct ls_kernel_shape *shape)
{
    struct ls_attention_kernel kernel;

    init_kernel(&kernel, shape);
    return place_kernel(&kernel, NULL, NULL);
}

void cpu_kernel_destroy(struct ls_attention_kernel *kernel)
{
    for (int t = 0; t < kernel->shape.threads; t++) strip_worker_fini(&kernel->worker[t].strip);
    ls_free(kernel->memory);
    free(kernel);
}

/* oneDNN plans for as many threads as OpenMP would give it: each worker is to get one. */
static ls_status create_workers(struct ls_attention_kernel *kernel, char **scratch)
{
    const int threads = omp_get_max_threads();
    ls_status status = LS_OK;

    omp_set_num_threads(1);
    for (int t = 0; t < kernel->shape.threads && status == LS_OK; t++)
        status = strip_worker_init(&kernel->worker[t].strip, kernel->products, kernel->shape.isa,
                                   kernel->d_pad, scratch[t]);
    omp_set_num_threads(threads);
    return status;
}

ls_status cpu_kernel_create(struct ls_attention_kernel **out, const struct ls_kernel_shape *shape)
{
    struct ls_attention_kernel *kernel = malloc(sizeof *kernel);
    char **scratch = calloc((size_t)shape->threads, sizeof *scratch);
    ls_status status;

    if (!kernel || !scratch) {
        status = ls_fail(LS_ENOMEM, "attention kernel: out of memory");
        goto free_kernel;
    }
    init_kernel(kernel, shape);
    LS_TRY_GOTO(status,
                ls_alloc(&kernel->memory, LS_TAG_WORKSPACE, place_kernel(kernel, NULL, NULL)),
                free_kernel);
    place_kernel(kernel, scratch, kernel->memory);
    LS_TRY_GOTO(status, create_workers(kernel, scratch), destroy_kernel);
    free(scratch);
    *out = kernel;
    return LS_OK;
destroy_kernel:
    cpu_kernel_destroy(kernel);
    kernel = NULL;
free_kernel:
    free(scratch);
    free(kernel);
    return status;
}

const char *cpu_kernel_name(const struct ls_attention_kernel *kernel)
{
    return kernel->products->name;
}

/* ls_fail's message belongs to the thread that failed; the first one is kept for the caller. */
static void record_failure(struct job *job, ls_status status)
{
    int none = LS_OK;

    if (atomic_compare_exchange_strong(&job->failed, &none, (int)status))
        snprintf(job->message, sizeof job->message, "%s", ls_message());
}

static void pack_phase(struct job *job, struct worker *w)
{
    const int64_t leaves = job->call->k_leaves.count;
    const double since = ls_now();
    int64_t i;

    while ((i = atomic_fetch_add(&job->next_pack, 1)) < job->wave_pairs * leaves && !job->failed) {
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

static int64_t tile_count(const struct job *job)
{
    if (job->call->q_leaves.count == 0) return 0;
    return job->call->q_leaves.count * job->wave_pairs * tiles_per_leaf(job);
}

/* Tile number i of the wave, the last query leaves (the longest ones, if causal) first; false if
 * that number is not taken because its leaf is short. */
static bool find_tile(struct tile *out, const struct job *job, int64_t i)
{
    const struct ls_attention_kernel *kernel = job->kernel;
    const struct ls_leaf_list *leaves = &job->call->q_leaves;
    const int64_t tiles = tiles_per_leaf(job), per_leaf = job->wave_pairs * tiles;
    const struct ls_leaf *leaf = &leaves->leaf[leaves->count - 1 - i / per_leaf];
    const int rows = leaf_rows(leaf->number, kernel->shape.global.s_q);
    const int64_t folded = kernel->group * rows, first = i % tiles * TILE_ROWS;

    if (first >= folded) return false;
    *out = (struct tile){
        .pair = job->wave_first + i % per_leaf / tiles,
        .leaf = leaf,
        .leaf_rows = rows,
        .first = (int)first,
        .rows = folded - first < TILE_ROWS ? (int)(folded - first) : TILE_ROWS,
    };
    return true;
}

/* With few tiles, each one's keys are cut into spans, aligned nodes of the tree, so that all
 * threads have work; the results are merged as the tree says, so the bits do not depend on it. */
static void choose_spans(struct job *job)
{
    const struct ls_attention_kernel *kernel = job->kernel;
    const int64_t leaves = job->call->k_leaves.count, tiles = tile_count(job);

    job->span = leaves;
    job->spans = 1;
    if (tiles == 0 || leaves == 0 || tiles >= 2 * (int64_t)kernel->shape.threads ||
        kernel->shape.threads == 1)
        return;
    job->span = CHUNK_LEAVES;
    while (tiles * ((leaves + job->span - 1) / job->span) > kernel->split_states) job->span *= 2;
    job->spans = (leaves + job->span - 1) / job->span;
}

static void keep_split(struct ls_row_states to, struct ls_row_states from, int rows, int d_pad)
{
    memcpy(to.m, from.m, (size_t)rows * sizeof *to.m);
    memcpy(to.l, from.l, (size_t)rows * sizeof *to.l);
    memcpy(to.acc, from.acc, (size_t)rows * (size_t)d_pad * sizeof *to.acc);
}

static ls_status run_item(struct job *job, struct worker *w, int64_t item)
{
    struct ls_attention_kernel *kernel = job->kernel;
    const int64_t number = item / job->spans, from = item % job->spans * job->span;
    struct ls_row_states result;
    struct tile tile;

    if (!find_tile(&tile, job, number)) return LS_OK;
    double since = ls_now();
    gather_queries(kernel, w, job->call->q, &tile);
    LS_TRY(
        fold_tile(&result, kernel, w, job->call, &tile, job->wave_first, from, from + job->span));
    ls_profile_add(&w->profile, LS_EVENT_TILE, since);
    since = ls_now();
    if (job->spans == 1) {
        finish_tile(kernel, w, job->call, &tile, result);
        ls_profile_add(&w->profile, LS_EVENT_FINISH, since);
    } else {
        keep_split(kernel->split[item], result, tile.rows, kernel->d_pad);
        ls_profile_add(&w->profile, LS_EVENT_MERGE, since);
    }
    return LS_OK;
}

static void tile_phase(struct job *job, struct worker *w)
{
    const int64_t items = tile_count(job) * job->spans;
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
    const int64_t tiles = job->spans > 1 ? tile_count(job) : 0;
    int64_t number;

    while ((number = atomic_fetch_add(&job->next_fold, 1)) < tiles && !job->failed) {
        struct forest forest = {.simd = kernel->simd, .d = kernel->d_pad};
        struct tile tile;

        if (!find_tile(&tile, job, number)) continue;
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
    const int64_t left = pairs(&job->kernel->shape) - first;

    job->wave_first = first;
    job->wave_pairs = left < job->kernel->wave ? left : job->kernel->wave;
    job->next_pack = job->next_item = job->next_fold = 0;
    choose_spans(job);
}

static void run_worker(struct job *job, struct worker *w)
{
    const int64_t end = pairs(&job->kernel->shape);

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
