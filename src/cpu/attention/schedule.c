/* One call of the attention kernel: who does what, and in which order. */
#include <omp.h>
#include <string.h>

#include "cpu/attention/attention.h"
#include "cpu/attention/kernel.h"
#include "cpu/float_mode.h"
#include "cpu/team.h"

/* What one call's phases share. */
struct job {
    struct ls_attention_kernel *kernel;
    const struct ls_kernel_call *call;
    int64_t wave_first, wave_pairs;
    int64_t span;       /* leaves of keys of an item */
    int64_t spans;      /* items that share a tile, 1 unless tiles are few */
    int64_t span_first; /* place where the first one begins, a multiple of span */
    _Atomic int64_t next_pack, next_item, next_fold;
    struct team team;
};

static int64_t pairs(const struct ls_attention_kernel *kernel)
{
    return kernel->shape.global.b * kernel->shape.global.h_kv;
}

/* Of a leaf one head after the other, whose rows lie side by side. */
static void pack_phase(struct job *job, struct worker *w)
{
    const struct agenda *agenda = &job->kernel->agenda;
    const int64_t heads = job->wave_pairs, n = heads * agenda->most_keys;
    const double since = ls_now();
    int64_t i, packed = 0;

    if (job->kernel->products->decode) return;
    while ((i = atomic_fetch_add(&job->next_pack, 1)) < n && !job->team.failed) {
        const int64_t pair = job->wave_first + i % heads,
                      n_of_pair = agenda_pair(job->kernel, pair);

        if (i / heads >= agenda->key_count[n_of_pair]) continue;
        const ls_status status =
            cpu_pack_leaf(job->kernel, w, job->call, job->wave_first, pair,
                          agenda->keys[n_of_pair * job->call->k_leaves.count + i / heads]);
        if (status != LS_OK) cpu_team_fail(&job->team, status);
        packed++;
        progress_tick(w->clock);
    }
    ls_profile_add(&w->profile, LS_EVENT_PACK, since,
                   (struct ls_event_scope){.pair = job->wave_first, .amount = packed});
}

/* Tiles that the group's heads make of one query leaf; only the last leaf can have fewer. */
static int64_t tiles_per_leaf(const struct job *job)
{
    const struct ls_attention_kernel *kernel = job->kernel;
    const int64_t first = job->call->q_leaves.leaf[0].number;
    const int pitch = rows_of_a_head(kernel, leaf_rows(first, kernel->shape.global.s_q));

    return (kernel->group * pitch + TILE_ROWS - 1) / TILE_ROWS;
}

static int64_t tile_count(const struct job *job)
{
    if (job->call->q_leaves.count == 0) return 0;
    return job->call->q_leaves.count * job->wave_pairs * tiles_per_leaf(job);
}

/* Most rows of a tile: where heads are kept apart, those of one head. */
static int rows_in_tile(int pitch, int rows)
{
    return pitch == LS_LEAF ? rows : TILE_ROWS;
}

/* Tile number i of the wave: pair by pair, whose keys so stay near, the longest ones first; false
 * if that number is not taken because its leaf is short. */
static bool find_tile(struct tile *out, const struct job *job, int64_t i)
{
    const struct ls_attention_kernel *kernel = job->kernel;
    const struct ls_leaf_list *leaves = &job->call->q_leaves;
    const int64_t tiles = tiles_per_leaf(job), per_pair = leaves->count * tiles;
    const int64_t pair = job->wave_first + i / per_pair;
    const int64_t of_pair = agenda_pair(kernel, pair) * leaves->count;
    const int64_t place = kernel->agenda.order[of_pair + i % per_pair / tiles];
    const struct ls_leaf *leaf = &leaves->leaf[place];
    const int rows = leaf_rows(leaf->number, kernel->shape.global.s_q);
    const int pitch = rows_of_a_head(kernel, rows);
    const int64_t first = i % tiles * TILE_ROWS;
    const int64_t folded = (kernel->group - 1) * pitch + rows - first;
    const int64_t of_mask = of_pair * masks_of_a_pair(kernel) +
                            mask_of_a_row(kernel, (int)first, pitch) * leaves->count;

    if (folded <= 0) return false;
    *out = (struct tile){
        .pair = pair,
        .leaf = leaf,
        .sees = kernel->agenda.sees[of_mask + place],
        .pitch = pitch,
        .first = (int)first,
        .rows = folded < rows_in_tile(pitch, rows) ? (int)folded : rows_in_tile(pitch, rows),
    };
    return true;
}

/* Whether several heads' keys lie side by side and are read where they lie. */
static bool heads_are_neighbours(const struct job *job)
{
    const struct ls_tensor *k = job->call->k;

    return job->kernel->products->decode && k->dim[2] > 1 && k->stride[2] < k->stride[1];
}

/* The first place that is seen by any pair, and the end of them. */
static struct ls_range places_in_use(const struct job *job)
{
    const struct agenda *agenda = &job->kernel->agenda;
    struct ls_range used = {INT64_MAX, 0};

    for (int64_t i = 0; i < agenda_pairs(job->kernel); i++) {
        const int64_t *keys = agenda->keys + i * job->call->k_leaves.count,
                      n = agenda->key_count[i];

        if (n == 0) continue;
        if (keys[0] < used.from) used.from = keys[0];
        if (keys[n - 1] >= used.to) used.to = keys[n - 1] + 1;
    }
    return used;
}

/* Each tile's keys are cut into spans, aligned nodes of the tree: with few tiles, so that all
 * threads have work, and with neighbours, so that what the hardware brings of the next head is
 * still near when its turn comes. The results are merged as the tree says, so the bits do not
 * depend on it. */
static void choose_spans(struct job *job)
{
    const int64_t threads = job->kernel->cpu.threads, tiles = tile_count(job);
    const bool few = threads > 1 && tiles < 2 * threads;

    job->span = job->call->k_leaves.count;
    job->spans = 1;
    job->span_first = 0;
    if (tiles == 0 || job->kernel->agenda.most_keys == 0 || tiles > job->kernel->split_states)
        return;
    if (!few && !heads_are_neighbours(job)) return;
    const struct ls_range used = places_in_use(job);

    job->span = CHUNK_LEAVES;
    do {
        job->span_first = used.from / job->span * job->span;
        job->spans = (used.to - job->span_first + job->span - 1) / job->span;
    } while (tiles * job->spans > job->kernel->split_states && (job->span *= 2));
}

static int64_t span_begin(const struct job *job, int64_t i)
{
    return job->span_first + i * job->span;
}

/* Whether the tile sees a leaf of span i. */
static bool sees_span(const struct job *job, const struct tile *tile, int64_t i)
{
    const struct ls_range seen = seen_places(job->kernel, job->call, mask_of(job->kernel, tile),
                                             tile->leaf, span_begin(job, i));

    return seen.from < seen.to && seen.from < span_begin(job, i + 1);
}

/* A tile that sees none of the keys leaves earlier results as they are. */
static bool changes_nothing(const struct job *job, const struct tile *tile)
{
    const struct ls_kernel_call *call = job->call;

    return !call->o && call->found_count == 1 && call->found[0].states == call->states &&
           tile->sees.count == 0;
}

static void keep_split(struct ls_row_states to, struct ls_row_states from, int rows, int d_v)
{
    memcpy(to.m, from.m, (size_t)rows * sizeof *to.m);
    memcpy(to.l, from.l, (size_t)rows * sizeof *to.l);
    memcpy(to.acc, from.acc, (size_t)rows * (size_t)d_v * sizeof *to.acc);
}

static void add_event(struct worker *w, ls_event event, double since, const struct tile *tile,
                      int64_t amount)
{
    ls_profile_add(&w->profile, event, since,
                   (struct ls_event_scope){tile->pair, amount, tile->leaf->number});
}

/* Span by span, of each all tiles. */
static ls_status run_item(struct job *job, struct worker *w, int64_t item)
{
    struct ls_attention_kernel *kernel = job->kernel;
    const int64_t tiles = tile_count(job), number = item % tiles, span = item / tiles;
    const int64_t tiles_before = w->tiles;
    struct ls_row_states result;
    struct tile tile;

    if (!find_tile(&tile, job, number) || changes_nothing(job, &tile)) return LS_OK;
    if (job->spans > 1 && !sees_span(job, &tile, span)) return LS_OK;
    double since = ls_now();
    cpu_gather_queries(kernel, w, job->call->q, &tile);
    LS_TRY(cpu_fold_tile(&result, kernel, w, job->call, &tile, job->wave_first,
                         span_begin(job, span), span_begin(job, span + 1)));
    add_event(w, LS_EVENT_TILE, since, &tile, w->tiles - tiles_before);
    since = ls_now();
    if (job->spans == 1) {
        cpu_finish_tile(kernel, w, job->call, &tile, result);
        add_event(w, LS_EVENT_FINISH, since, &tile, tile.rows);
    } else {
        keep_split(kernel->split[number * job->spans + span], result, tile.rows, kernel->pad.d_v);
        add_event(w, LS_EVENT_MERGE, since, &tile, 1);
    }
    return LS_OK;
}

static void tile_phase(struct job *job, struct worker *w)
{
    const int64_t items = tile_count(job) * job->spans;
    int64_t item;

    while ((item = atomic_fetch_add(&job->next_item, 1)) < items && !job->team.failed) {
        const ls_status status = run_item(job, w, item);
        if (status != LS_OK) cpu_team_fail(&job->team, status);
    }
    cpu_team_wait(&job->team, w->clock);
}

/* Merges the spans of each tile and finishes it. */
static void fold_phase(struct job *job, struct worker *w)
{
    const struct ls_attention_kernel *kernel = job->kernel;
    const int64_t tiles = job->spans > 1 ? tile_count(job) : 0;
    int64_t number;

    while ((number = atomic_fetch_add(&job->next_fold, 1)) < tiles && !job->team.failed) {
        struct forest forest = {.simd = kernel->simd, .d = kernel->pad.d_v};
        struct tile tile;

        if (!find_tile(&tile, job, number) || changes_nothing(job, &tile)) continue;
        const double since = ls_now();
        forest_start(&forest, tile.rows);
        forest_skip(&forest, job->span_first / job->span);
        for (int64_t i = 0; i < job->spans; i++) {
            forest.node[forest.top] = kernel->split[number * job->spans + i];
            if (sees_span(job, &tile, i))
                forest_push(&forest);
            else
                forest_skip(&forest, 1);
        }
        cpu_finish_tile(kernel, w, job->call, &tile, forest_fold(&forest));
        add_event(w, LS_EVENT_MERGE, since, &tile, job->spans);
    }
}

static void start_wave(struct job *job, int64_t first)
{
    const int64_t left = pairs(job->kernel) - first;

    job->wave_first = first;
    job->wave_pairs = left < job->kernel->wave ? left : job->kernel->wave;
    job->next_pack = job->next_item = job->next_fold = 0;
    job->team.busy = omp_get_num_threads(); /* can be fewer than asked for: OMP_THREAD_LIMIT */
    choose_spans(job);
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

static void collect(struct ls_work *work, struct ls_attention_kernel *kernel)
{
    for (int t = 0; t < kernel->cpu.threads; t++) {
        work->tiles += kernel->worker[t].tiles;
        ls_profile_merge(&work->profile, &kernel->worker[t].profile);
    }
}

ls_status cpu_attend(struct ls_queue *queue, struct ls_attention_kernel *kernel,
                     const struct ls_kernel_call *call)
{
    struct job job = {.kernel = kernel, .call = call};
    struct progress_clock clock = {.progress = queue->progress, .due = ls_now()};

    if (call->change) {
        kernel->shape.masks = call->change->masks;
        kernel->shape.scores.seed = call->change->seed;
        kernel->key_mean = call->change->key_mean;
    }
    cpu_make_agenda(kernel, call);
#pragma omp parallel num_threads(kernel->cpu.threads)
    {
        struct worker *w = &kernel->worker[omp_get_thread_num()];

        omp_set_num_threads(1); /* for oneDNN, which looks at this task's own setting */
        const fenv_t callers = cpu_float_mode_enter();
        w->clock = omp_get_thread_num() == 0 ? &clock : NULL;
        w->tiles = 0;
        w->profile = (struct ls_profile){.thread = omp_get_thread_num()};
        run_worker(&job, w);
        fesetenv(&callers);
    }
    collect(&queue->work, kernel);
    return cpu_team_status(&job.team);
}

void cpu_merge(struct ls_attention_kernel *kernel, struct ls_row_states into,
               struct ls_row_states from, int64_t rows)
{
    const int64_t d = ls_value_dim(&kernel->shape.global);

#pragma omp parallel for num_threads(kernel->cpu.threads)
    for (int64_t first = 0; first < rows; first += TILE_ROWS) {
        const int64_t left = rows - first;
        const fenv_t callers = cpu_float_mode_enter();
        kernel->simd->merge(
            (struct ls_row_states){into.m + first, into.l + first, into.acc + first * d},
            (struct ls_row_states){from.m + first, from.l + first, from.acc + first * d},
            left < TILE_ROWS ? (int)left : TILE_ROWS, (int)d);
        fesetenv(&callers);
    }
}
