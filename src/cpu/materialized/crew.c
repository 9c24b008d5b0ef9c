/* The threads of one call: what of heads is packed, and what is done with it. */
#include <omp.h>
#include <sched.h>

#include "cpu/float_mode.h"
#include "cpu/materialized/materialized.h"

struct ls_tensor cpu_materialized_head_of(const struct ls_tensor *t, int64_t batch, int64_t head)
{
    const int64_t dim[] = {t->dim[1], t->dim[3]};
    const int64_t at = batch * t->stride[0] + head * t->stride[2];
    struct ls_tensor view =
        ls_tensor_view((char *)t->data + at * ls_dtype_size(t->type), t->type, 2, dim);

    view.stride[0] = t->stride[1];
    return view;
}

struct ls_tensor cpu_materialized_kept_of(const struct materialized_job *job, const void *all,
                                          int64_t batch, int64_t head)
{
    const struct ls_materialized_shape *shape = &job->kernel->shape;
    const int64_t dim[] = {shape->rows, shape->s};
    const int64_t at = (batch * shape->h + head) * dim[0] * dim[1];

    return ls_tensor_view((char *)(uintptr_t)all + at * ls_dtype_size(shape->type), shape->type, 2,
                          dim);
}

/* ---- packing */

static int64_t key_leaves(const struct materialized_job *job)
{
    return materialized_leaves(job->kernel->shape.s);
}

/* Rows [from, from + rows) of a head as a leaf of a right operand. */
static void pack_leaf(char *to, const struct ls_materialized_kernel *kernel,
                      const struct ls_tensor *head, int64_t from, int rows)
{
    cpu_linear_pack_lines(to, kernel->products, true, (struct linear_operand){head, true}, 0,
                          kernel->shape.d, from, rows);
}

static void pack_keys(const struct materialized_job *job, int64_t head, int64_t leaf)
{
    const struct ls_materialized_kernel *kernel = job->kernel;
    const struct materialized_slot *to = materialized_slot_of(kernel, head);
    const int64_t batch = head / kernel->shape.h;
    const int64_t kv = materialized_kv_head(&kernel->shape, head % kernel->shape.h);
    const struct ls_tensor k = cpu_materialized_head_of(job->k, batch, kv);
    const struct ls_tensor v = cpu_materialized_head_of(job->v, batch, kv);
    const bool backward = job->d_o != NULL;
    const int64_t first = leaf * LS_LEAF;
    const int keys = materialized_leaf_keys(&kernel->shape, leaf);

    cpu_linear_pack_lines(
        to->lines + (size_t)(first / LINEAR_SIDE) * materialized_panel_bytes(kernel),
        kernel->products, true, (struct linear_operand){backward ? &v : &k, false}, first, keys, 0,
        (int)kernel->shape.d);
    if (backward || job->o)
        pack_leaf(to->leaves + (size_t)leaf * materialized_leaf_bytes(kernel), kernel,
                  backward ? &k : &v, first, keys);
}

static void pack_queries(const struct materialized_job *job, int64_t head, int64_t run)
{
    const struct ls_materialized_kernel *kernel = job->kernel;
    const struct materialized_slot *to = materialized_slot_of(kernel, head);
    const int64_t h = kernel->shape.h;
    const struct ls_tensor q = cpu_materialized_head_of(job->q, head / h, head % h);
    const struct ls_tensor d_o = cpu_materialized_head_of(job->d_o, head / h, head % h);
    const struct ls_row_run *rows = &job->runs->run[run];
    const size_t at = (size_t)run * materialized_leaf_bytes(kernel);

    pack_leaf(to->q + at, kernel, &q, rows->row, (int)rows->count);
    pack_leaf(to->d_o + at, kernel, &d_o, rows->row, (int)rows->count);
}

static void pack(const struct materialized_job *job, struct materialized_worker *w, int64_t head,
                 int64_t i)
{
    (void)w;
    if (i < key_leaves(job))
        pack_keys(job, head, i);
    else
        pack_queries(job, head, i - key_leaves(job));
}

/* ---- who does what */

/* Items are taken in this order: in step n all items of phase p of head n - p. So what an item
 * needs comes before it and is under way, and is seldom waited for. */
struct item {
    int phase;
    int64_t head, number;
};

static int64_t items_of_a_step(const struct materialized_job *job,
                               const struct materialized_phase phase[PHASES])
{
    int64_t n = 0;

    for (int p = 0; p < job->phases; p++) n += phase[p].items;
    return n;
}

static struct item item_at(const struct materialized_job *job,
                           const struct materialized_phase phase[PHASES], int64_t i)
{
    const int64_t all = items_of_a_step(job, phase);
    struct item item = {.number = i % all};

    while (item.number >= phase[item.phase].items) item.number -= phase[item.phase++].items;
    item.head = i / all - item.phase;
    return item;
}

/* What a slot has done before an item may begin: all of the phase before it, or before packing all
 * of the heads that had the slot. */
static bool is_ready(const struct materialized_job *job,
                     const struct materialized_phase phase[PHASES], const struct item *item)
{
    const struct ls_materialized_kernel *kernel = job->kernel;
    const int before = item->phase > 0 ? item->phase - 1 : job->phases - 1;
    const int64_t heads = item->head / kernel->slots + (item->phase > 0);

    return materialized_slot_of(kernel, item->head)->done[before] >= heads * phase[before].items;
}

/* The first thread moves messages meanwhile. */
static void await(const struct materialized_job *job, struct materialized_worker *w,
                  const struct materialized_phase phase[PHASES], const struct item *item)
{
    const double since = ls_now();

    if (is_ready(job, phase, item)) return;
    while (!is_ready(job, phase, item)) {
        progress_tick(w->clock);
        sched_yield();
    }
    ls_profile_add(&w->profile, LS_EVENT_WAIT, since, (struct ls_event_scope){.pair = item->head});
}

static void do_item(const struct materialized_job *job, struct materialized_worker *w,
                    const struct materialized_phase phase[PHASES], const struct item *item)
{
    await(job, w, phase, item);
    const double since = ls_now();

    phase[item->phase].take(job, w, item->head, item->number);
    atomic_fetch_add(&materialized_slot_of(job->kernel, item->head)->done[item->phase], 1);
    w->tiles += item->phase > 0;
    ls_profile_add(&w->profile, item->phase > 0 ? LS_EVENT_TILE : LS_EVENT_PACK, since,
                   (struct ls_event_scope){.pair = item->head, .amount = 1});
    progress_tick(w->clock);
}

static void do_items(struct materialized_job *job, struct materialized_worker *w,
                     const struct materialized_phase phase[PHASES])
{
    const int64_t heads = job->kernel->shape.b * job->kernel->shape.h;
    const int64_t all = (heads + job->phases - 1) * items_of_a_step(job, phase);
    int64_t i;

    while ((i = atomic_fetch_add(&job->next, 1)) < all) {
        const struct item item = item_at(job, phase, i);

        if (item.head >= 0 && item.head < heads) do_item(job, w, phase, &item);
    }
}

/* ---- threads */

static void collect(struct ls_work *work, const struct ls_materialized_kernel *kernel)
{
    for (int t = 0; t < kernel->cpu.threads; t++) {
        work->tiles += kernel->worker[t].tiles;
        ls_profile_merge(&work->profile, &kernel->worker[t].profile);
    }
}

static void start(struct ls_materialized_kernel *kernel)
{
    for (int t = 0; t < kernel->cpu.threads; t++) {
        kernel->worker[t].tiles = 0;
        kernel->worker[t].profile = (struct ls_profile){.thread = t};
    }
    for (int64_t i = 0; i < kernel->slots; i++)
        for (int p = 0; p < PHASES; p++) kernel->slot[i].done[p] = 0;
}

void cpu_materialized_call(struct ls_queue *queue, struct materialized_job *job,
                           const struct materialized_phase *phase, int phases)
{
    struct ls_materialized_kernel *kernel = job->kernel;
    struct progress_clock clock = {.progress = queue->progress, .due = ls_now()};
    struct materialized_phase all[PHASES] = {
        {key_leaves(job) + (job->d_o ? job->runs->count : 0), pack}};
    struct team team = {0};

    for (int p = 0; p < phases; p++) all[1 + p] = phase[p];
    job->phases = 1 + phases;
    start(kernel);
#pragma omp parallel num_threads(kernel->cpu.threads)
    {
        struct materialized_worker *w = &kernel->worker[omp_get_thread_num()];

        const fenv_t callers = cpu_float_mode_enter();
        w->clock = omp_get_thread_num() == 0 ? &clock : NULL;
#pragma omp single
        team.busy = omp_get_num_threads(); /* can be fewer than asked for: OMP_THREAD_LIMIT */
        if (kernel->products->begin) kernel->products->begin();
        do_items(job, w, all);
        if (kernel->products->end) kernel->products->end();
        cpu_team_wait(&team, w->clock);
        fesetenv(&callers);
    }
    collect(&queue->work, kernel);
}
