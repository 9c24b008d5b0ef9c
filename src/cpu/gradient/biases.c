/* Gradients of biases of pairs. A work item is a run of queries of one leaf and a leaf of keys: for
 * one entry and head after the other that share the bias it takes the two products that a
 * probability and its gradient need, and adds what they give in double. A row stands in the
 * products at its place in the leaf, so its bits do not depend on how queries are cut. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/ledger.h"
#include "cpu/carve.h"
#include "cpu/float_mode.h"
#include "cpu/gemm.h"
#include "cpu/gradient/gradient.h"
#include "cpu/gradient/kernel.h"
#include "cpu/gradient/pair.h"
#include "cpu/threads.h"
#include "tensor/dtype.h"

#define STRIP 64 /* keys of a product */

/* What a thread has of its own. */
struct bias_worker {
    struct gemm *scores, *values; /* [STRIP, d] x [d, LS_LEAF], [STRIP, d_v] x [d_v, LS_LEAF] */
    char *q, *d_o, *k, *v;        /* [LS_LEAF][pad.d or pad.d_v] */
    char *packed_q, *packed_d_o;  /* transposed */
    void *scratch;
    float *score, *dp, *bias;            /* [STRIP][LS_LEAF] queries in lanes */
    float *lse, *delta;                  /* [LS_LEAF], lse in log2 units, of a run's rows */
    double *sum;                         /* [LS_LEAF keys][LS_LEAF rows] */
    struct ls_leaf_keys *visible, *kept; /* [LS_LEAF], likewise */
    int64_t *place;
    struct progress_clock *clock; /* of the first thread, else NULL */
    struct ls_profile profile;
} __attribute__((aligned(64)));

struct ls_bias_gradient_kernel {
    struct ls_kernel_shape shape;
    struct cpu cpu;
    ls_dtype type; /* of the products */
    struct head_dims pad;
    struct bias_worker *worker; /* [threads] */
    void *memory;
};

struct bias_job {
    struct ls_bias_gradient_kernel *kernel;
    const struct ls_bias_gradient_call *call;
    _Atomic int64_t next;
    struct team team;
};

/* ---- memory */

static size_t row_bytes(const struct ls_bias_gradient_kernel *kernel, int d_pad)
{
    return (size_t)d_pad * (size_t)ls_dtype_size(kernel->type);
}

/* oneDNN pads a packed operand to blocks of at most 64. */
static size_t packed_bytes(const struct ls_bias_gradient_kernel *kernel, int d_pad)
{
    return LS_LEAF * row_bytes(kernel, (d_pad + 63) / 64 * 64);
}

static void place_worker(struct bias_worker *w, struct cursor *cursor,
                         const struct ls_bias_gradient_kernel *kernel)
{
    const struct head_dims pad = kernel->pad;

    w->q = carve(cursor, LS_LEAF * row_bytes(kernel, pad.d));
    w->d_o = carve(cursor, LS_LEAF * row_bytes(kernel, pad.d_v));
    w->k = carve(cursor, LS_LEAF * row_bytes(kernel, pad.d));
    w->v = carve(cursor, LS_LEAF * row_bytes(kernel, pad.d_v));
    w->packed_q = carve(cursor, packed_bytes(kernel, pad.d));
    w->packed_d_o = carve(cursor, packed_bytes(kernel, pad.d_v));
    w->scratch = carve(cursor, GEMM_SCRATCH);
    w->score = carve(cursor, STRIP * LS_LEAF * sizeof *w->score);
    w->dp = carve(cursor, STRIP * LS_LEAF * sizeof *w->dp);
    w->bias = carve(cursor, STRIP * LS_LEAF * sizeof *w->bias);
    w->lse = carve(cursor, LS_LEAF * sizeof *w->lse);
    w->delta = carve(cursor, LS_LEAF * sizeof *w->delta);
    w->sum = carve(cursor, LS_LEAF * LS_LEAF * sizeof *w->sum);
    w->visible = carve(cursor, LS_LEAF * sizeof *w->visible);
    w->kept = carve(cursor, LS_LEAF * sizeof *w->kept);
    w->place = carve(cursor, LS_LEAF * sizeof *w->place);
}

/* Returns the bytes; base NULL: only counts them. */
static size_t place_kernel(struct ls_bias_gradient_kernel *kernel, char *base)
{
    const int threads = kernel->cpu.threads;
    struct cursor cursor = {.base = base};

    kernel->worker = carve(&cursor, (size_t)threads * sizeof *kernel->worker);
    for (int t = 0; t < threads; t++) {
        struct bias_worker unused, *w = base ? &kernel->worker[t] : &unused;

        memset(w, 0, sizeof *w);
        place_worker(w, &cursor, kernel);
    }
    return cursor.used;
}

/* bf16 where backward's own portable products take it. */
static void init_kernel(struct ls_bias_gradient_kernel *kernel, const struct cpu *cpu,
                        const struct ls_kernel_shape *shape)
{
    const struct gradient_products *products = &cpu_gradient_portable_bf16;

    if (!products->fits(cpu->isa, shape->global.type, &shape->scores))
        products = &cpu_gradient_portable_f32;
    *kernel = (struct ls_bias_gradient_kernel){
        .shape = *shape,
        .cpu = *cpu,
        .type = products->type,
        .pad = head_dims_padded(&shape->global, products->d_multiple)};
}

static size_t bytes(void *self, const struct ls_kernel_shape *shape)
{
    struct ls_bias_gradient_kernel kernel;

    init_kernel(&kernel, self, shape);
    return place_kernel(&kernel, NULL);
}

static ls_status create_product(struct gemm **out, const struct ls_bias_gradient_kernel *kernel,
                                int d_pad)
{
    const struct gemm_shape shape = {.m = STRIP,
                                     .n = LS_LEAF,
                                     .k = d_pad,
                                     .a_stride = d_pad,
                                     .b_stride = d_pad,
                                     .transposed = true};

    LS_TRY(cpu_gemm_create(out, kernel->type, &shape));
    if (cpu_gemm_packed_bytes(*out) > packed_bytes(kernel, d_pad))
        return ls_fail(LS_EINTERNAL,
                       GEMM_NAME " packs a leaf of head dim %d into %zu bytes, not %zu", d_pad,
                       cpu_gemm_packed_bytes(*out), packed_bytes(kernel, d_pad));
    return LS_OK;
}

static void destroy(struct ls_bias_gradient_kernel *kernel)
{
    for (int t = 0; t < kernel->cpu.threads; t++) {
        cpu_gemm_destroy(kernel->worker[t].scores);
        cpu_gemm_destroy(kernel->worker[t].values);
    }
    ls_free(kernel->memory);
    free(kernel);
}

/* oneDNN plans for as many threads as OpenMP would give it: each worker is to get one. */
static ls_status create_products(struct ls_bias_gradient_kernel *kernel)
{
    const int threads = omp_get_max_threads();
    ls_status status = LS_OK;

    cpu_gemm_limit_isa(kernel->cpu.isa);
    omp_set_num_threads(1);
    for (int t = 0; t < kernel->cpu.threads && status == LS_OK; t++) {
        status = create_product(&kernel->worker[t].scores, kernel, kernel->pad.d);
        if (status == LS_OK)
            status = create_product(&kernel->worker[t].values, kernel, kernel->pad.d_v);
    }
    omp_set_num_threads(threads);
    return status;
}

static ls_status create(struct ls_bias_gradient_kernel **out, void *self,
                        const struct ls_kernel_shape *shape)
{
    const struct cpu *cpu = self;

    LS_TRY(cpu_threads_start(cpu->threads));
    struct ls_bias_gradient_kernel *kernel = malloc(sizeof *kernel);
    ls_status status;

    if (!kernel) return ls_fail(LS_ENOMEM, "gradients of biases: out of memory");
    init_kernel(kernel, cpu, shape);
    LS_TRY_GOTO(status, ls_alloc(&kernel->memory, LS_TAG_WORKSPACE, place_kernel(kernel, NULL)),
                free_kernel);
    place_kernel(kernel, kernel->memory);
    LS_TRY_GOTO(status, create_products(kernel), destroy_kernel);
    *out = kernel;
    return LS_OK;
destroy_kernel:
    destroy(kernel);
    return status;
free_kernel:
    free(kernel);
    return status;
}

/* ---- one head's queries of a run and one leaf of keys */

/* What an item is about; entry and head of dbias, which others may share. */
struct bias_item {
    int64_t entry, head;
    const struct ls_row_run *run;
    const struct ls_leaf *keys;
    int key_count;
};

/* Rows of a head, from place `at` of a leaf that is 0 elsewhere. */
static void gather(char *leaf, const struct ls_bias_gradient_kernel *kernel, int d_pad,
                   const struct ls_tensor *from, int64_t batch, int64_t head, int64_t row, int rows,
                   int at)
{
    const size_t bytes = row_bytes(kernel, d_pad);

    memset(leaf, 0, LS_LEAF * bytes);
    for (int r = 0; r < rows; r++)
        ls_dtype_convert(leaf + (size_t)(at + r) * bytes, kernel->type,
                         element(from, batch, row + r, head), from->type, from->dim[3]);
}

static float number_of(const struct ls_tensor *t, int64_t batch, int64_t head, int64_t row)
{
    return (
        (const float *)t->data)[batch * t->stride[0] + head * t->stride[1] + row * t->stride[2]];
}

/* Both leaves, and what is one number for each row; a row that sees nothing has lse +inf. */
static ls_status load(struct bias_worker *w, const struct bias_job *job,
                      const struct bias_item *item, int64_t batch, int64_t head)
{
    const struct ls_bias_gradient_kernel *kernel = job->kernel;
    const struct ls_bias_gradient_call *call = job->call;
    const struct ls_row_run *run = item->run;
    const int64_t kv_head = head / (kernel->shape.global.h / kernel->shape.global.h_kv);
    const int rows = (int)run->count, at = (int)(run->position % LS_LEAF);
    const struct head_dims pad = kernel->pad;

    gather(w->q, kernel, pad.d, call->q, batch, head, run->row, rows, at);
    gather(w->d_o, kernel, pad.d_v, call->d_o, batch, head, run->row, rows, at);
    gather(w->k, kernel, pad.d, call->k, batch, kv_head, item->keys->row, item->key_count, 0);
    gather(w->v, kernel, pad.d_v, call->v, batch, kv_head, item->keys->row, item->key_count, 0);
    for (int r = 0; r < rows; r++) {
        const float lse = number_of(call->lse, batch, head, run->row + r);

        w->lse[r] = lse == -INFINITY ? INFINITY : lse * LOG2E;
        w->delta[r] = number_of(call->delta, batch, head, run->row + r);
    }
    LS_TRY(cpu_gemm_pack(w->packed_q, w->scores, w->q));
    return cpu_gemm_pack(w->packed_d_o, w->values, w->d_o);
}

/* sum [LS_LEAF] += dlogit of the rows that see the key. */
LS_CLONED static void add_biased(double *restrict sum, const float *score, const float *dp,
                                 const float *bias, const struct gradient_tile *tile, int key)
{
    const float *lse = tile->lse, *delta = tile->delta;
    const float scale = tile->scale;
    float dlogit[LS_LEAF];

#pragma omp simd
    for (int i = 0; i < tile->rows; i++)
        dlogit[i] = gradient_of_biased(score[i], dp[i], lse[i], delta[i], scale, bias[i]).dlogit;
    for (int i = 0; i < tile->rows; i++) {
        const bool seen = gradient_tile_sees(tile, i, key) && lse[i] != INFINITY;

        sum[i] += seen ? (double)dlogit[i] : 0;
    }
}

static void add_bent(double *sum, const float *score, const float *dp, const float *bias,
                     const struct gradient_tile *tile, int key)
{
    for (int i = 0; i < tile->rows; i++)
        if (gradient_tile_sees(tile, i, key) && tile->lse[i] != INFINITY)
            sum[i] += (double)gradient_of_pair(score[i], dp[i], tile->lse[i], tile->delta[i],
                                               tile->scores, tile->scale, bias[i],
                                               gradient_tile_keeps(tile, i, key))
                          .dlogit;
}

/* Rows stand at their place in the products, from the first one on elsewhere. */
static ls_status add_strip(struct bias_worker *w, const struct ls_bias_gradient_kernel *kernel,
                           const struct gradient_tile *tile, int first)
{
    const int place = (int)(tile->first_query % LS_LEAF);
    const bool bent = tile->scores->soft_cap != 0 || tile->kept;

    LS_TRY(cpu_gemm_run(w->score, w->scores,
                        w->k + (size_t)first * row_bytes(kernel, kernel->pad.d), w->packed_q,
                        w->scratch));
    LS_TRY(cpu_gemm_run(w->dp, w->values, w->v + (size_t)first * row_bytes(kernel, kernel->pad.d_v),
                        w->packed_d_o, w->scratch));
    progress_tick(w->clock);
    cpu_gradient_biases(w->bias, tile, first, STRIP);
    for (int j = 0; j < STRIP && first + j < tile->key_count; j++)
        (bent ? add_bent : add_biased)(w->sum + (first + j) * LS_LEAF,
                                       w->score + j * LS_LEAF + place, w->dp + j * LS_LEAF + place,
                                       w->bias + j * LS_LEAF, tile, first + j);
    progress_tick(w->clock);
    return LS_OK;
}

static ls_status add_head(struct bias_worker *w, const struct bias_job *job,
                          const struct bias_item *item, int64_t batch, int64_t head)
{
    const struct ls_kernel_shape *shape = &job->kernel->shape;
    const struct ls_scores *scores = &shape->scores;
    const int64_t of_all = scores->first_head + head, first = item->run->position;
    const struct ls_mask *mask = ls_masks_of(&shape->masks, batch, of_all);
    const int rows = (int)item->run->count;

    if (!ls_mask_meets(mask, first, rows, item->keys->number * LS_LEAF, LS_LEAF)) return LS_OK;
    struct gradient_tile tile = {
        .lse = w->lse,
        .delta = w->delta,
        .visible = cpu_gradient_visible(w->visible, mask, first, rows, item->keys->number),
        .rows = rows,
        .key_count = item->key_count,
        .scale = scores->scale,
        .scores = scores,
        .batch = batch,
        .head = of_all,
        .first_query = first,
        .first_key = item->keys->number * LS_LEAF,
        .place = cpu_gradient_places(w->place, scores, mask, first, rows),
    };

    tile.kept = cpu_gradient_kept(w->kept, &tile, job->kernel->cpu.isa);
    LS_TRY(load(w, job, item, batch, head));
    for (int key = 0; key < item->key_count; key += STRIP)
        LS_TRY(add_strip(w, job->kernel, &tile, key));
    return LS_OK;
}

/* ---- an item */

/* Rounded to their rows, a block of both at a time. */
static void write_sums(const struct bias_worker *w, const struct bias_job *job,
                       const struct bias_item *item)
{
    enum { BLOCK = 16 };
    const struct ls_tensor *out = job->call->dbias;
    const int rows = (int)item->run->count;
    float *first = (float *)out->data + item->entry * out->stride[0] + item->head * out->stride[1] +
                   item->run->row * out->stride[2] + item->keys->number * LS_LEAF;

    for (int i0 = 0; i0 < rows; i0 += BLOCK)
        for (int j0 = 0; j0 < item->key_count; j0 += BLOCK)
            for (int i = i0; i < i0 + BLOCK && i < rows; i++)
                for (int j = j0; j < j0 + BLOCK && j < item->key_count; j++)
                    first[i * out->stride[2] + j] = (float)w->sum[j * LS_LEAF + i];
}

static ls_status run_item(struct bias_worker *w, const struct bias_job *job,
                          const struct bias_item *item)
{
    const struct ls_attention_shape *s = &job->kernel->shape.global;
    const int64_t *dim = job->call->dbias->dim;
    const int64_t entries = dim[0] == s->b ? 1 : s->b, heads = dim[1] == s->h ? 1 : s->h;
    const double since = ls_now();

    memset(w->sum, 0, LS_LEAF * LS_LEAF * sizeof *w->sum);
    for (int64_t batch = item->entry; batch < item->entry + entries; batch++)
        for (int64_t head = item->head; head < item->head + heads; head++)
            LS_TRY(add_head(w, job, item, batch, head));
    write_sums(w, job, item);
    ls_profile_add(&w->profile, LS_EVENT_TILE, since,
                   (struct ls_event_scope){.pair = item->entry * s->h_kv,
                                           .amount = entries * heads,
                                           .query_leaf = item->run->position / LS_LEAF});
    return LS_OK;
}

/* ---- a call */

static ls_status run_number(struct bias_worker *w, const struct bias_job *job, int64_t n)
{
    const struct ls_bias_gradient_call *call = job->call;
    const int64_t leaves = call->k_leaves.count, matrix = n / leaves / call->run_count;
    const struct ls_leaf *keys = &call->k_leaves.leaf[n % leaves];
    const struct bias_item item = {.entry = matrix / call->dbias->dim[1],
                                   .head = matrix % call->dbias->dim[1],
                                   .run = &call->runs[n / leaves % call->run_count],
                                   .keys = keys,
                                   .key_count =
                                       leaf_rows(keys->number, job->kernel->shape.global.s_k)};

    return run_item(w, job, &item);
}

static void run_worker(struct bias_job *job, struct bias_worker *w)
{
    const struct ls_bias_gradient_call *call = job->call;
    const int64_t items =
        call->dbias->dim[0] * call->dbias->dim[1] * call->run_count * call->k_leaves.count;
    int64_t n;

    while ((n = atomic_fetch_add(&job->next, 1)) < items && !job->team.failed) {
        const ls_status status = run_number(w, job, n);

        if (status != LS_OK) cpu_team_fail(&job->team, status);
    }
    cpu_team_wait(&job->team, w->clock);
}

static ls_status compute(struct ls_queue *queue, struct ls_bias_gradient_kernel *kernel,
                         const struct ls_bias_gradient_call *call)
{
    struct bias_job job = {.kernel = kernel, .call = call};
    struct progress_clock clock = {.progress = queue->progress, .due = ls_now()};

    if (call->change) {
        kernel->shape.masks = call->change->masks;
        kernel->shape.scores.seed = call->change->seed;
    }
    for (int t = 0; t < kernel->cpu.threads; t++)
        kernel->worker[t].profile = (struct ls_profile){.thread = t};
#pragma omp parallel num_threads(kernel->cpu.threads)
    {
        struct bias_worker *w = &kernel->worker[omp_get_thread_num()];

        omp_set_num_threads(1); /* for oneDNN, which looks at this task's own setting */
        const fenv_t callers = cpu_float_mode_enter();
        w->clock = omp_get_thread_num() == 0 ? &clock : NULL;
#pragma omp single
        job.team.busy = omp_get_num_threads(); /* can be fewer than asked for: OMP_THREAD_LIMIT */
        run_worker(&job, w);
        fesetenv(&callers);
    }
    for (int t = 0; t < kernel->cpu.threads; t++)
        ls_profile_merge(&queue->work.profile, &kernel->worker[t].profile);
    return cpu_team_status(&job.team);
}

const struct ls_bias_gradient_ops cpu_bias_gradient_ops = {
    .bytes = bytes, .create = create, .destroy = destroy, .compute = compute};
