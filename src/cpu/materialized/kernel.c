/* The kernel of the materialized core on the CPU: what it is made of. */
#include <stdlib.h>
#include <string.h>

#include "base/ledger.h"
#include "cpu/carve.h"
#include "cpu/materialized/materialized.h"
#include "cpu/threads.h"
#include "tensor/dtype.h"

static int64_t most_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void place_worker(struct materialized_worker *w, struct cursor *cursor,
                         const struct ls_materialized_kernel *kernel)
{
    const struct ls_materialized_shape *shape = &kernel->shape;
    const int64_t steps = most_of(linear_steps(shape->d), LS_LEAF / LINEAR_SIDE);
    const int64_t leaves = materialized_leaves(shape->s), panels = linear_panels(shape->d);

    w->left = carve(cursor, linear_step_bytes(kernel->products, steps));
    w->strip = carve(cursor, (size_t)linear_panels(shape->s) * LINEAR_AREA * sizeof(float));
    w->block = carve(cursor, LINEAR_AREA * sizeof(float));
    for (int i = 0; i < sum_forest_depth(leaves); i++)
        w->sums.node[i] =
            (struct sums){carve(cursor, (size_t)panels * LINEAR_AREA * sizeof(float)), LINEAR_SIDE};
}

static void place_slot(struct materialized_slot *slot, struct cursor *cursor,
                       const struct ls_materialized_kernel *kernel)
{
    const struct ls_materialized_shape *shape = &kernel->shape;
    const size_t leaf = materialized_leaf_bytes(kernel);
    const size_t keys = (size_t)materialized_leaves(shape->s) * leaf;
    const size_t queries = (size_t)materialized_leaves(shape->rows) * leaf;

    slot->lines = carve(cursor, (size_t)linear_panels(shape->s) * materialized_panel_bytes(kernel));
    slot->leaves = carve(cursor, keys);
    if (!shape->backward) return;
    slot->q = carve(cursor, queries);
    slot->d_o = carve(cursor, queries);
    slot->ds = carve(cursor, (size_t)(shape->rows * shape->s * ls_dtype_size(shape->type)));
}

/* Lays out the kernel's memory. Returns the bytes; base NULL: only counts them. */
static size_t place_kernel(struct ls_materialized_kernel *kernel, char *base)
{
    struct cursor cursor = {.base = base};

    kernel->worker = carve(&cursor, (size_t)kernel->cpu.threads * sizeof *kernel->worker);
    kernel->slot = carve(&cursor, (size_t)kernel->slots * sizeof *kernel->slot);
    for (int t = 0; t < kernel->cpu.threads; t++) {
        struct materialized_worker unused, *w = base ? &kernel->worker[t] : &unused;

        memset(w, 0, sizeof *w);
        place_worker(w, &cursor, kernel);
    }
    for (int64_t i = 0; i < kernel->slots; i++) {
        struct materialized_slot unused, *slot = base ? &kernel->slot[i] : &unused;

        memset(slot, 0, sizeof *slot);
        place_slot(slot, &cursor, kernel);
    }
    return cursor.used;
}

static void init_kernel(struct ls_materialized_kernel *kernel, const struct cpu *cpu,
                        const struct ls_materialized_shape *shape)
{
    /* one head a thread, and those whose packing is ahead or whose sums are behind */
    const int64_t heads = shape->b * shape->h, most = cpu->threads + PHASES - 1;

    *kernel = (struct ls_materialized_kernel){
        .shape = *shape,
        .cpu = *cpu,
        .products = cpu_linear_products_find(cpu->isa, shape->type),
        .slots = heads < most ? heads : most,
    };
}

static size_t bytes(void *self, const struct ls_materialized_shape *shape)
{
    struct ls_materialized_kernel kernel;

    init_kernel(&kernel, self, shape);
    return place_kernel(&kernel, NULL);
}

static void destroy(struct ls_materialized_kernel *kernel)
{
    ls_free(kernel->memory);
    free(kernel);
}

static ls_status create(struct ls_materialized_kernel **out, void *self,
                        const struct ls_materialized_shape *shape)
{
    const struct cpu *cpu = self;
    ls_status status;

    if (shape->type != LS_BF16 && shape->type != LS_F32)
        return ls_fail(LS_ETYPE, "a materialized core is of bf16 or f32, not of %s",
                       ls_dtype_name(shape->type));
    LS_TRY(cpu_threads_start(cpu->threads));
    struct ls_materialized_kernel *kernel = malloc(sizeof *kernel);

    if (!kernel) return ls_fail(LS_ENOMEM, "materialized core: out of memory");
    init_kernel(kernel, cpu, shape);
    LS_TRY_GOTO(status, ls_alloc(&kernel->memory, LS_TAG_WORKSPACE, place_kernel(kernel, NULL)),
                free_kernel);
    place_kernel(kernel, kernel->memory);
    *out = kernel;
    return LS_OK;
free_kernel:
    free(kernel);
    return status;
}

const struct ls_materialized_ops cpu_materialized_ops = {
    .bytes = bytes,
    .create = create,
    .destroy = destroy,
    .forward = cpu_materialized_forward,
    .backward = cpu_materialized_backward,
};
