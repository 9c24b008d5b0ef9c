/* What gives rows of tokens: y and dx. The weights are packed once, by all threads, and stay for
 * calls of further rows; a tile packs its rows chunk by chunk. */
#include "cpu/linear/linear.h"

/* left [rows, depth] x right [depth, columns] */
struct product {
    struct ls_linear_kernel *kernel;
    struct linear_operand left, right;
    int64_t rows, columns, depth;
    struct linear_tile tile;
    struct linear_finish finish;
    bool packed;
    _Atomic int64_t next_panel, next_tile;
};

static int64_t chunks(const struct product *p)
{
    return (p->depth + LS_LINEAR_CHUNK - 1) / LS_LINEAR_CHUNK;
}

static int chunk_depth(const struct product *p, int64_t chunk)
{
    const int64_t left = p->depth - chunk * LS_LINEAR_CHUNK;

    return left < LS_LINEAR_CHUNK ? (int)left : LS_LINEAR_CHUNK;
}

/* Where a panel of the weights is: chunk by chunk, as a tile meets them. */
static char *weights_at(const struct product *p, int64_t chunk, int64_t panel)
{
    const struct linear_products *products = p->kernel->products;
    const int64_t full = LS_LINEAR_CHUNK / LINEAR_SIDE;

    return p->kernel->weights +
           linear_step_bytes(products, chunk * full * linear_panels(p->columns) +
                                           panel * linear_steps(chunk_depth(p, chunk)));
}

static int64_t pack_weights(void *job, struct linear_worker *w)
{
    struct product *p = job;
    const int64_t panels = linear_panels(p->columns);
    int64_t i, packed = 0;

    for (; (i = atomic_fetch_add(&p->next_panel, 1)) < chunks(p) * panels; packed++) {
        const int64_t chunk = i / panels, first = i % panels * LINEAR_SIDE;
        const int64_t left = p->columns - first;

        cpu_linear_pack_lines(weights_at(p, chunk, i % panels), p->kernel->products, true, p->right,
                              first, left < LINEAR_SIDE ? left : LINEAR_SIDE,
                              chunk * LS_LINEAR_CHUNK, chunk_depth(p, chunk));
        progress_tick(w->clock);
    }
    return packed;
}

/* A tile of the result, and one chunk of its sums. */
struct tile {
    int64_t row, column;
    int row_panels, column_panels;
    int64_t chunk;
};

/* One block: its chunk is added to those before. */
static void multiply_block(const struct product *p, struct linear_worker *w, const struct tile *t,
                           int i, int j)
{
    const struct linear_products *products = p->kernel->products;
    const int64_t row = t->row + i * LINEAR_SIDE, column = t->column + j * LINEAR_SIDE;
    const int steps = linear_steps(chunk_depth(p, t->chunk));
    const bool first = t->chunk == 0, last = t->chunk == chunks(p) - 1;
    float *sums = first && last ? w->block : w->sums + (j * t->row_panels + i) * LINEAR_AREA;
    float *out = first ? sums : w->block;

    products->multiply(out, w->left + linear_step_bytes(products, i * steps),
                       weights_at(p, t->chunk, column / LINEAR_SIDE), steps);
    if (!first) cpu_add_floats(sums, sums, out, LINEAR_AREA);
    if (last) cpu_linear_finish(&p->finish, sums, row, column);
}

static void compute_tile(const struct product *p, struct linear_worker *w, int64_t number)
{
    const int64_t across = (p->columns + p->tile.columns - 1) / p->tile.columns;
    struct tile t = {.row = number / across * p->tile.rows,
                     .column = number % across * p->tile.columns};
    const int64_t rows = p->rows - t.row < p->tile.rows ? p->rows - t.row : p->tile.rows;
    const int64_t columns =
        p->columns - t.column < p->tile.columns ? p->columns - t.column : p->tile.columns;

    t.row_panels = (int)linear_panels(rows);
    t.column_panels = (int)linear_panels(columns);
    for (; t.chunk < chunks(p); t.chunk++) {
        cpu_linear_pack_lines(w->left, p->kernel->products, false, p->left, t.row, rows,
                              t.chunk * LS_LINEAR_CHUNK, chunk_depth(p, t.chunk));
        for (int j = 0; j < t.column_panels; j++) {
            for (int i = 0; i < t.row_panels; i++) multiply_block(p, w, &t, i, j);
            progress_tick(w->clock);
        }
    }
}

static int64_t compute_tiles(void *job, struct linear_worker *w)
{
    struct product *p = job;
    const int64_t down = (p->rows + p->tile.rows - 1) / p->tile.rows;
    const int64_t across = (p->columns + p->tile.columns - 1) / p->tile.columns;
    int64_t i, done = 0;

    for (; (i = atomic_fetch_add(&p->next_tile, 1)) < down * across; done++) compute_tile(p, w, i);
    cpu_linear_end_finish();
    return done;
}

static void multiply(struct ls_queue *queue, struct product *p)
{
    p->rows = p->finish.y->dim[0];
    p->columns = p->finish.y->dim[1];
    p->depth = p->left.t->dim[1];
    p->tile = cpu_linear_fit_tile(p->kernel->most, p->rows, p->columns, p->kernel->cpu.threads);
    cpu_linear_call(queue, p->kernel, p, p->packed ? NULL : pack_weights, compute_tiles);
}

void cpu_linear_forward(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                        const struct ls_linear_call *call)
{
    struct product product = {
        .kernel = kernel,
        .left = {call->x, false},
        .right = {call->w, false},
        .finish = {.y = call->y, .z = call->z, .bias = call->bias, .gelu = call->gelu},
        .packed = call->packed,
    };

    multiply(queue, &product);
}

void cpu_linear_dx(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                   const struct ls_linear_input_gradient *call)
{
    struct product product = {
        .kernel = kernel,
        .left = {call->dy, false},
        .right = {call->w, true},
        .finish = {.y = call->dx},
        .packed = call->packed,
    };

    multiply(queue, &product);
}
