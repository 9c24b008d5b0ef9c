/* The gradient kernel of the CPU: what it is made of. */
#include "cpu/gradient/gradient.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/ledger.h"
#include "cpu/carve.h"
#include "cpu/gradient/kernel.h"
#include "cpu/threads.h"

#define ITEMS 4                       /* of a thread, so that all end at about the same time */
#define GROUPS_OF_IDLE 16             /* for each thread without one in the last round */
#define WAVE_BYTES ((size_t)64 << 20) /* of heads that are taken at once, unless one has more */

static int64_t chunks(const struct ls_gradient_shape *shape, int64_t chunk)
{
    return (shape->attention.k_leaves + chunk - 1) / chunk;
}

/* Smaller where threads would have less than ITEMS each. */
static int64_t chunk_leaves(const struct ls_gradient_shape *shape, int threads)
{
    const struct ls_attention_shape *s = &shape->attention.global;
    int64_t chunk = GRADIENT_CHUNK;

    while (threads > 1 && chunk > 1 && s->b * s->h * chunks(shape, chunk) < ITEMS * threads)
        chunk /= 2;
    return chunk;
}

/* Sums [LS_LEAF][d_pad]. */
static float *carve_leaf(struct cursor *cursor, int d_pad)
{
    return carve(cursor, LS_LEAF * (size_t)d_pad * sizeof(float));
}

static struct sums carve_sums(struct cursor *cursor, int d_pad)
{
    return (struct sums){carve_leaf(cursor, d_pad), d_pad};
}

static void carve_nodes(struct sum_forest *forest, struct cursor *cursor, int first, int count,
                        int d_pad)
{
    for (int i = first; i < count; i++) forest->node[i] = carve_sums(cursor, d_pad);
}

/* Of one leaf of queries: O(log k_leaves) times its dq. */
static void place_queries(struct gradient_queries *queries, struct cursor *cursor,
                          const struct ls_gradient_kernel *kernel)
{
    queries->lse = carve(cursor, LS_LEAF * sizeof *queries->lse);
    queries->delta = carve(cursor, LS_LEAF * sizeof *queries->delta);
    carve_nodes(&queries->dq, cursor, 1, sum_forest_depth(chunks(&kernel->shape, kernel->chunk)),
                kernel->pad.d);
}

/* O(log q_leaves) times dk and dv of a chunk. */
static void place_worker(struct gradient_worker *w, char **scratch, struct cursor *cursor,
                         const struct ls_gradient_kernel *kernel)
{
    const struct head_dims pad = kernel->pad;
    const int depth = sum_forest_depth(kernel->shape.q_leaves);
    const struct ls_scores *scores = &kernel->shape.attention.scores;

    w->raw = carve(cursor, LS_LEAF * gradient_row_bytes(kernel, pad.d + pad.d_v));
    w->visible = carve(cursor, LS_LEAF * sizeof *w->visible);
    if (scores->dropout > 0) w->kept = carve(cursor, LS_LEAF * sizeof *w->kept);
    if (scores->alibi || scores->distance_bias)
        w->place = carve(cursor, LS_LEAF * sizeof *w->place);
    if (scores->distance_bias)
        w->distance = carve(cursor, (size_t)scores->distances * sizeof *w->distance);
    for (int j = 0; j < GRADIENT_CHUNK; j++) {
        carve_nodes(&w->dk[j], cursor, 1, depth, pad.d);
        carve_nodes(&w->dv[j], cursor, 1, depth, pad.d_v);
        w->whole_dk[j] = carve_sums(cursor, pad.d);
        w->whole_dv[j] = carve_sums(cursor, pad.d_v);
    }
    w->whole_dq = carve_sums(cursor, pad.d);
    carve_nodes(&w->dq, cursor, 0, sum_forest_depth(GRADIENT_CHUNK), pad.d);
    w->mended_keys = carve(cursor, kernel->keys_bytes);
    w->mended_queries = carve(cursor, kernel->queries_bytes);
    w->mended_lse = carve(cursor, LS_LEAF * sizeof(float));
    w->mended_dq = carve_leaf(cursor, pad.d);
    w->mended_dk = carve_leaf(cursor, pad.d);
    w->mended_dv = carve_leaf(cursor, pad.d_v);
    *scratch = carve(cursor, kernel->products->scratch_bytes(pad));
}

static void place_packed(struct gradient_packed *packed, struct cursor *cursor, size_t leaves,
                         size_t bytes)
{
    packed->leaf = carve(cursor, leaves * bytes);
    packed->clean = carve(cursor, leaves);
}

static size_t place_wave(struct ls_gradient_kernel *kernel, struct cursor *cursor)
{
    const size_t q_leaves = (size_t)(kernel->waves * kernel->wave * kernel->shape.q_leaves);
    const size_t k_leaves =
        (size_t)(kernel->waves * kernel->wave_groups * kernel->shape.attention.k_leaves);

    place_packed(&kernel->keys, cursor, k_leaves, kernel->keys_bytes);
    place_packed(&kernel->packed, cursor, q_leaves, kernel->queries_bytes);
    kernel->queries = carve(cursor, q_leaves * sizeof *kernel->queries);
    for (size_t i = 0; i < q_leaves; i++) {
        struct gradient_queries unused;

        place_queries(cursor->base ? &kernel->queries[i] : &unused, cursor, kernel);
    }
    return cursor->used;
}

/* Lays out the kernel's memory; scratch [threads] receives the workers' parts. Returns the bytes;
 * base NULL: only counts them. */
static size_t place_kernel(struct ls_gradient_kernel *kernel, char **scratch, char *base)
{
    const int threads = kernel->cpu.threads;
    struct cursor cursor = {.base = base};

    place_wave(kernel, &cursor);
    kernel->worker = carve(&cursor, (size_t)threads * sizeof *kernel->worker);
    for (int t = 0; t < threads; t++) {
        struct gradient_worker unused, *w = base ? &kernel->worker[t] : &unused;
        char *piece;

        memset(w, 0, sizeof *w);
        place_worker(w, &piece, &cursor, kernel);
        if (base) scratch[t] = piece;
    }
    return cursor.used;
}

static size_t wave_bytes(struct ls_gradient_kernel kernel, int64_t heads, int64_t groups)
{
    struct cursor cursor = {0};

    kernel.wave = heads;
    kernel.wave_groups = groups;
    return place_wave(&kernel, &cursor);
}

/* Whether threads do best to take whole groups: there are several for each, about as many for all,
 * under one mask, so that they cost the same, and no call comes for which they had better stay
 * packed. */
static bool threads_take_groups(const struct ls_gradient_kernel *kernel, int64_t groups)
{
    const struct ls_masks *masks = &kernel->shape.attention.masks;
    const int64_t threads = kernel->cpu.threads, idle = (threads - groups % threads) % threads;

    return !kernel->shape.queries_return && masks->entries == 1 && masks->heads == 1 &&
           groups >= ITEMS * threads && groups >= GROUPS_OF_IDLE * idle &&
           (size_t)threads * wave_bytes(*kernel, kernel->group, 1) <= WAVE_BYTES;
}

/* A group for each thread, or, for all threads, as many whole groups as WAVE_BYTES hold, or, of a
 * group that is larger, some heads. */
static void choose_wave(struct ls_gradient_kernel *kernel)
{
    const int64_t group = kernel->group,
                  heads = kernel->shape.attention.global.b * kernel->shape.attention.global.h;
    int64_t wave = 1;

    kernel->waves = 1;
    if (threads_take_groups(kernel, heads / group)) {
        kernel->waves = kernel->cpu.threads;
        kernel->wave = group;
        kernel->wave_groups = 1;
        return;
    }
    while (wave < group && wave_bytes(*kernel, wave + 1, 1) <= WAVE_BYTES) wave++;
    while (wave >= group && wave < heads &&
           wave_bytes(*kernel, wave + group, wave / group + 1) <= WAVE_BYTES)
        wave += group;
    kernel->wave = wave;
    kernel->wave_groups = wave < group ? 1 : wave / group;
}

static const struct gradient_products *products_of(const struct cpu *cpu,
                                                   const struct ls_kernel_shape *attention)
{
    return cpu_gradient_products_find(cpu->isa, attention->global.type, &attention->scores);
}

static const char *name(void *self, const struct ls_kernel_shape *attention)
{
    return products_of(self, attention)->name;
}

static void init_kernel(struct ls_gradient_kernel *kernel, const struct cpu *cpu,
                        const struct ls_gradient_shape *shape)
{
    const struct ls_kernel_shape *attention = &shape->attention;
    const struct gradient_products *products = products_of(cpu, attention);
    const struct head_dims pad = head_dims_padded(&attention->global, products->d_multiple);

    *kernel = (struct ls_gradient_kernel){
        .shape = *shape,
        .cpu = *cpu,
        .products = products,
        .pad = pad,
        .chunk = chunk_leaves(shape, cpu->threads),
        .group = attention->global.h / attention->global.h_kv,
        .keys_bytes = (products->keys_bytes(pad) + 63) / 64 * 64,
        .queries_bytes = (products->queries_bytes(pad) + 63) / 64 * 64,
    };
    choose_wave(kernel);
}

static size_t bytes(void *self, const struct ls_gradient_shape *shape)
{
    struct ls_gradient_kernel kernel;

    init_kernel(&kernel, self, shape);
    return place_kernel(&kernel, NULL, NULL);
}

static void destroy(struct ls_gradient_kernel *kernel)
{
    for (int t = 0; t < kernel->cpu.threads; t++)
        if (kernel->worker[t].own) kernel->products->destroy(kernel->worker[t].own);
    ls_free(kernel->memory);
    free(kernel);
}

/* oneDNN plans for as many threads as OpenMP would give it: each worker is to get one. */
static ls_status create_workers(struct ls_gradient_kernel *kernel, char **scratch)
{
    const int threads = omp_get_max_threads();
    ls_status status = LS_OK;

    omp_set_num_threads(1);
    for (int t = 0; t < kernel->cpu.threads && status == LS_OK; t++)
        status = kernel->products->create(&kernel->worker[t].own, kernel->cpu.isa, kernel->pad,
                                          scratch[t]);
    omp_set_num_threads(threads);
    return status;
}

static ls_status create(struct ls_gradient_kernel **out, void *self,
                        const struct ls_gradient_shape *shape)
{
    const struct cpu *cpu = self;

    LS_TRY(cpu_threads_start(cpu->threads));
    struct ls_gradient_kernel *kernel = malloc(sizeof *kernel);
    char **scratch = calloc((size_t)cpu->threads, sizeof *scratch);
    ls_status status;

    if (!kernel || !scratch) {
        status = ls_fail(LS_ENOMEM, "gradient kernel: out of memory");
        goto free_kernel;
    }
    init_kernel(kernel, cpu, shape);
    LS_TRY_GOTO(status,
                ls_alloc(&kernel->memory, LS_TAG_WORKSPACE, place_kernel(kernel, NULL, NULL)),
                free_kernel);
    place_kernel(kernel, scratch, kernel->memory);
    LS_TRY_GOTO(status, create_workers(kernel, scratch), destroy_kernel);
    free(scratch);
    *out = kernel;
    return LS_OK;
destroy_kernel:
    destroy(kernel);
    kernel = NULL;
free_kernel:
    free(scratch);
    free(kernel);
    return status;
}

const struct ls_gradient_ops cpu_gradient_ops = {
    .name = name,
    .bytes = bytes,
    .create = create,
    .destroy = destroy,
    .compute = cpu_gradient,
};
