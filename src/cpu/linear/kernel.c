/* The kernel of linear layers on the CPU: what it is made of. */
#include <stdlib.h>
#include <string.h>

#include "base/ledger.h"
#include "cpu/carve.h"
#include "cpu/linear/linear.h"
#include "cpu/threads.h"
#include "tensor/dtype.h"

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* So many lines, in whole blocks, but no more than `most`, which is whole blocks. */
static int side(int64_t lines, int most)
{
    return (int)least(linear_panels(most_of(lines, 1)) * LINEAR_SIDE, most);
}

static int64_t depth_of_rows(const struct ls_linear_shape *shape)
{
    return shape->backward ? most_of(shape->in, shape->out) : shape->in;
}

static size_t lines_bytes(const struct linear_products *products, int64_t lines, int64_t depth)
{
    return linear_step_bytes(products, linear_panels(lines) * linear_steps(depth));
}

/* Leaves of all sequences together: below this are their numbers. */
static int64_t leaves(const struct ls_linear_shape *shape)
{
    return shape->b * ((shape->s + LS_LEAF - 1) / LS_LEAF);
}

static void place_worker(struct linear_worker *w, struct cursor *cursor,
                         const struct ls_linear_kernel *kernel)
{
    const struct linear_products *products = kernel->products;
    const struct ls_linear_shape *shape = &kernel->shape;
    const int64_t depth = depth_of_rows(shape), leaf = least(shape->s, LS_LEAF);
    size_t left = lines_bytes(products, kernel->most.rows, least(depth, LS_LINEAR_CHUNK));

    if (shape->backward) {
        const size_t of_dw = lines_bytes(products, kernel->dw.rows, leaf);

        if (of_dw > left) left = of_dw;
    }
    w->left = carve(cursor, left);
    w->block = carve(cursor, LINEAR_AREA * sizeof(float));
    if (depth > LS_LINEAR_CHUNK)
        w->sums =
            carve(cursor, (size_t)kernel->most.rows * (size_t)kernel->most.columns * sizeof(float));
    if (!shape->backward) return;
    w->right = carve(cursor, lines_bytes(products, kernel->dw.columns, leaf));
    for (int i = 0; i < sum_forest_depth(leaves(shape)); i++)
        w->dw.node[i] = (struct sums){
            carve(cursor, (size_t)kernel->dw.rows * (size_t)kernel->dw.columns * sizeof(float)),
            LINEAR_SIDE};
}

/* Lays out the kernel's memory. Returns the bytes; base NULL: only counts them. */
static size_t place_kernel(struct ls_linear_kernel *kernel, char *base)
{
    struct cursor cursor = {.base = base};

    kernel->weights = carve(&cursor, lines_bytes(kernel->products, kernel->shape.in,
                                                 linear_panels(kernel->shape.out) * LINEAR_SIDE));
    kernel->worker = carve(&cursor, (size_t)kernel->cpu.threads * sizeof *kernel->worker);
    for (int t = 0; t < kernel->cpu.threads; t++) {
        struct linear_worker unused, *w = base ? &kernel->worker[t] : &unused;

        memset(w, 0, sizeof *w);
        place_worker(w, &cursor, kernel);
    }
    return cursor.used;
}

static void init_kernel(struct ls_linear_kernel *kernel, const struct cpu *cpu,
                        const struct ls_linear_shape *shape)
{
    const int64_t columns = shape->backward ? most_of(shape->in, shape->out) : shape->out;
    const struct linear_tile dw = {side(shape->out, LINEAR_DW_ROWS),
                                   side(shape->in, LINEAR_DW_COLUMNS)};

    *kernel = (struct ls_linear_kernel){
        .shape = *shape,
        .cpu = *cpu,
        .products = cpu_linear_products_find(cpu->isa, shape->type),
        .most = {side(shape->rows, LINEAR_TILE_ROWS), side(columns, LINEAR_TILE_COLUMNS)},
        .dw = cpu_linear_fit_tile(dw, shape->out, shape->in, cpu->threads),
    };
}

static const char *name(void *self, ls_dtype type)
{
    return cpu_linear_products_find(((const struct cpu *)self)->isa, type)->name;
}

static size_t bytes(void *self, const struct ls_linear_shape *shape)
{
    struct ls_linear_kernel kernel;

    init_kernel(&kernel, self, shape);
    return place_kernel(&kernel, NULL);
}

static void destroy(struct ls_linear_kernel *kernel)
{
    ls_free(kernel->memory);
    free(kernel);
}

static ls_status create(struct ls_linear_kernel **out, void *self,
                        const struct ls_linear_shape *shape)
{
    const struct cpu *cpu = self;
    ls_status status;

    if (shape->type != LS_BF16 && shape->type != LS_F32)
        return ls_fail(LS_ETYPE, "linear layers are of bf16 or f32, not of %s",
                       ls_dtype_name(shape->type));
    LS_TRY(cpu_threads_start(cpu->threads));
    struct ls_linear_kernel *kernel = malloc(sizeof *kernel);

    if (!kernel) return ls_fail(LS_ENOMEM, "linear kernel: out of memory");
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

const struct ls_linear_ops cpu_linear_ops = {
    .name = name,
    .bytes = bytes,
    .create = create,
    .destroy = destroy,
    .forward = cpu_linear_forward,
    .dx = cpu_linear_dx,
    .dw = cpu_linear_dw,
};
