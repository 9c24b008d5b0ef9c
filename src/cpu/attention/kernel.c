/* The attention kernel of the CPU: what it is made of. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/ledger.h"
#include "cpu/attention/attention.h"
#include "cpu/attention/decode.h"
#include "cpu/attention/kernel.h"
#include "cpu/carve.h"
#include "cpu/threads.h"

#define LOG2E 1.44269504088896341
#define WAVE_BYTES ((size_t)64 << 20) /* packed K and V at once, unless one head has more */
#define SPLIT_ROWS_PER_THREAD (8 * TILE_ROWS)

static int64_t pairs(const struct ls_kernel_shape *shape)
{
    return shape->global.b * shape->global.h_kv;
}

static struct ls_row_states carve_states(struct cursor *cursor, int rows, int d_v)
{
    struct ls_row_states states;

    states.acc = carve(cursor, (size_t)rows * (size_t)d_v * sizeof(float));
    states.m = carve(cursor, (size_t)rows * sizeof(float));
    states.l = carve(cursor, (size_t)rows * sizeof(float));
    return states;
}

static void place_worker(struct worker *w, char **scratch, struct cursor *cursor,
                         const struct ls_attention_kernel *kernel)
{
    const size_t size = (size_t)ls_dtype_size(kernel->products->type);
    const struct head_dims pad = kernel->pad;
    const size_t widest = (size_t)head_dims_widest(pad);
    const int64_t chunks = (kernel->shape.k_leaves + CHUNK_LEAVES - 1) / CHUNK_LEAVES;

    w->raw = carve(cursor, LS_LEAF * widest * size);
    w->patched = carve(cursor, CHUNK_LEAVES * kernel->v_bytes);
    w->leaf = carve(cursor, LS_LEAF * sizeof *w->leaf);
    w->visible = carve(cursor, CHUNK_LEAVES * TILE_ROWS * sizeof *w->visible);
    w->score_row = carve(cursor, TILE_ROWS * sizeof *w->score_row);
    w->scales = carve(cursor, (size_t)kernel->has_scales * CHUNK_LEAVES * sizeof *w->scales);
    w->shift = carve(cursor, (size_t)kernel->quantized * TILE_ROWS * sizeof *w->shift);
    w->spare = carve_states(cursor, TILE_ROWS, pad.d_v);
    w->q = carve(cursor, TILE_ROWS * (size_t)pad.d * size);
    w->forest.simd = kernel->simd;
    w->forest.d = pad.d_v;
    for (int i = 0; i < forest_depth(chunks); i++)
        w->forest.node[i] = carve_states(cursor, TILE_ROWS, pad.d_v);
    *scratch = carve(cursor, cpu_strip_scratch_bytes(kernel->products, pad));
}

static const struct products *products_of(const struct cpu *cpu,
                                          const struct ls_kernel_shape *shape)
{
    if (shape->few_rows) return cpu_decode_find(cpu->isa);
    return cpu_products_find(cpu->isa, shape->global.type);
}

/* Of a tile. */
static int most_rows(const struct ls_kernel_shape *shape)
{
    return shape->few_rows ? LS_FEW_ROWS : TILE_ROWS;
}

static const char *name(void *self, const struct ls_kernel_shape *shape)
{
    return products_of(self, shape)->name;
}

/* Everything that follows from the shape alone. */
static void init_kernel(struct ls_attention_kernel *kernel, const struct cpu *cpu,
                        const struct ls_kernel_shape *shape)
{
    const struct products *products = products_of(cpu, shape);
    const bool are_products = ls_scores_are_products(&shape->scores);

    *kernel = (struct ls_attention_kernel){
        .shape = *shape,
        .cpu = *cpu,
        .products = products,
        .simd = simd_of(cpu->isa),
        .pad = head_dims_padded(&shape->global, products->d_multiple),
        .group = shape->global.h / shape->global.h_kv,
        .softmax_scale = (float)(are_products ? fabs((double)shape->scores.scale) * LOG2E : LOG2E),
        .are_products = are_products,
        .quantized = ls_keys_are_quantized(&shape->global),
        .negate = shape->scores.scale < 0,
        .split_states = (int64_t)SPLIT_ROWS_PER_THREAD / most_rows(shape) * cpu->threads,
    };
    kernel->has_scales = kernel->quantized && products->type == LS_BF16;
    kernel->k_bytes = products->packed_bytes(kernel->pad.d);
    kernel->v_bytes = products->packed_bytes(kernel->pad.d_v);

    const size_t pair_bytes = (size_t)shape->k_leaves * (kernel->k_bytes + kernel->v_bytes);
    const int64_t fit = pair_bytes ? (int64_t)(WAVE_BYTES / pair_bytes) : pairs(shape);
    kernel->wave = fit < 1 ? 1 : fit < pairs(shape) ? fit : pairs(shape);
}

static void place_agenda(struct agenda *agenda, struct cursor *cursor,
                         const struct ls_kernel_shape *shape)
{
    const bool heads_differ = shape->masks.heads > 1;
    const size_t masks = (size_t)(shape->global.b * (heads_differ ? shape->global.h : 1));
    const size_t pairs = (size_t)(shape->global.b * (heads_differ ? shape->global.h_kv : 1));
    const size_t queries = (size_t)((shape->global.s_q + LS_LEAF - 1) / LS_LEAF);

    agenda->sees = carve(cursor, masks * queries * sizeof *agenda->sees);
    agenda->order = carve(cursor, pairs * queries * sizeof *agenda->order);
    agenda->keys = carve(cursor, pairs * (size_t)shape->k_leaves * sizeof *agenda->keys);
    agenda->key_count = carve(cursor, pairs * sizeof *agenda->key_count);
}

/* Lays out the kernel's memory; scratch [threads] receives the workers' parts. Returns the
 * bytes; base NULL: only counts them. */
static size_t place_kernel(struct ls_attention_kernel *kernel, char **scratch, char *base)
{
    struct cursor cursor = {.base = base};
    const size_t leaves =
        kernel->products->decode ? 0 : (size_t)kernel->wave * (size_t)kernel->shape.k_leaves;

    kernel->packed.k = carve(&cursor, leaves * kernel->k_bytes);
    kernel->packed.v = carve(&cursor, leaves * kernel->v_bytes);
    kernel->packed.clean = carve(&cursor, leaves);
    kernel->packed.scales =
        carve(&cursor, kernel->has_scales * leaves * sizeof *kernel->packed.scales);
    place_agenda(&kernel->agenda, &cursor, &kernel->shape);
    kernel->split = carve(&cursor, (size_t)kernel->split_states * sizeof *kernel->split);
    for (int64_t i = 0; i < kernel->split_states; i++) {
        const struct ls_row_states states =
            carve_states(&cursor, most_rows(&kernel->shape), kernel->pad.d_v);
        if (base) kernel->split[i] = states;
    }
    kernel->worker = carve(&cursor, (size_t)kernel->cpu.threads * sizeof *kernel->worker);
    for (int t = 0; t < kernel->cpu.threads; t++) {
        struct worker unused, *w = base ? &kernel->worker[t] : &unused;
        char *piece;

        memset(w, 0, sizeof *w);
        place_worker(w, &piece, &cursor, kernel);
        if (base) scratch[t] = piece;
    }
    return cursor.used;
}

static size_t bytes(void *self, const struct ls_kernel_shape *shape)
{
    struct ls_attention_kernel kernel;

    init_kernel(&kernel, self, shape);
    return place_kernel(&kernel, NULL, NULL);
}

static void destroy(struct ls_attention_kernel *kernel)
{
    for (int t = 0; t < kernel->cpu.threads; t++) cpu_strip_worker_fini(&kernel->worker[t].strip);
    ls_free(kernel->memory);
    free(kernel);
}

/* oneDNN plans for as many threads as OpenMP would give it: each worker is to get one. */
static ls_status create_workers(struct ls_attention_kernel *kernel, char **scratch)
{
    const int threads = omp_get_max_threads();
    ls_status status = LS_OK;

    omp_set_num_threads(1);
    for (int t = 0; t < kernel->cpu.threads && status == LS_OK; t++) {
        status = cpu_strip_worker_init(&kernel->worker[t].strip, kernel->products, kernel->cpu.isa,
                                       kernel->pad, scratch[t]);
        kernel->worker[t].strip.own_maximum = kernel->shape.own_maximum;
    }
    omp_set_num_threads(threads);
    return status;
}

/* Of all shapes alike, so that every rank decides the same. */
static ls_status choose_places(struct ls_attention_kernel *kernel)
{
    const int threads = omp_get_max_threads();
    bool same;

    omp_set_num_threads(1); /* as in a worker */
    const ls_status status = cpu_rows_keep_bits(&same, &kernel->worker[0].strip);
    omp_set_num_threads(threads);
    LS_TRY(status);
    kernel->canonical = !same;
    for (int t = 0; t < kernel->cpu.threads; t++) kernel->worker[t].strip.full = !same;
    return LS_OK;
}

static ls_status create(struct ls_attention_kernel **out, void *self,
                        const struct ls_kernel_shape *shape)
{
    const struct cpu *cpu = self;

    LS_TRY(cpu_threads_start(cpu->threads));
    struct ls_attention_kernel *kernel = malloc(sizeof *kernel);
    char **scratch = calloc((size_t)cpu->threads, sizeof *scratch);
    ls_status status;

    if (!kernel || !scratch) {
        status = ls_fail(LS_ENOMEM, "attention kernel: out of memory");
        goto free_kernel;
    }
    init_kernel(kernel, cpu, shape);
    LS_TRY_GOTO(status,
                ls_alloc(&kernel->memory, LS_TAG_WORKSPACE, place_kernel(kernel, NULL, NULL)),
                free_kernel);
    place_kernel(kernel, scratch, kernel->memory);
    LS_TRY_GOTO(status, create_workers(kernel, scratch), destroy_kernel);
    if (shape->strict && !shape->few_rows)
        LS_TRY_GOTO(status, choose_places(kernel), destroy_kernel);
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

static bool canonical(const struct ls_attention_kernel *kernel)
{
    return kernel->canonical;
}

const struct ls_attention_ops cpu_attention_ops = {
    .name = name,
    .bytes = bytes,
    .create = create,
    .destroy = destroy,
    .canonical = canonical,
    .attend = cpu_attend,
    .merge = cpu_merge,
};
