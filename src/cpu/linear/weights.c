/* What gives sums over tokens: dw. A tile of dw meets all leaves, one after the other; a leaf's
 * product is computed from nothing and takes its way into the tree while it is in cache. */
#include <string.h>

#include "cpu/linear/linear.h"

struct sum_job {
    struct ls_linear_kernel *kernel;
    const struct ls_linear_sum *sum;
    _Atomic int64_t next_tile;
};

/* A tile of dw. */
struct tile {
    int64_t row, column;
    int rows, columns;
};

static int leaf_rows(const struct ls_linear_shape *shape, int64_t number)
{
    const int64_t leaves = (shape->s + LS_LEAF - 1) / LS_LEAF;
    const int64_t left = shape->s - number % leaves * LS_LEAF;

    return left < LS_LEAF ? (int)left : LS_LEAF;
}

/* The block of sums [32][32] becomes a part of dw, as far as the tile goes; NULL: zeros. */
static void finish_block(const struct ls_linear_sum *sum, const struct tile *t, const float *block,
                         int i, int j)
{
    const int row = i * LINEAR_SIDE, column = j * LINEAR_SIDE;
    const int rows = t->rows - row < LINEAR_SIDE ? t->rows - row : LINEAR_SIDE;
    const int columns = t->columns - column < LINEAR_SIDE ? t->columns - column : LINEAR_SIDE;

    for (int r = 0; r < rows; r++, block += LINEAR_SIDE) {
        float *to = (float *)(void *)linear_element(sum->dw, t->row + row + r, t->column + column);

        if (sum->add)
            cpu_add_floats(to, to, block, columns);
        else
            memcpy(to, block, (size_t)columns * sizeof *to);
    }
}

/* A block of a leaf's product. What waits is added to it, and it waits in turn, or is complete. */
static void compute_block(const struct sum_job *job, struct linear_worker *w, const struct tile *t,
                          const struct sum_path *path, int steps, bool last, int i, int j)
{
    const struct linear_products *products = job->kernel->products;
    const int64_t at = (j * linear_panels(t->rows) + i) * LINEAR_AREA;
    const bool passes = path->count > 0 || last;
    float *out = passes ? w->block : path->total.at + at;

    products->multiply(out, w->left + linear_step_bytes(products, i * steps),
                       w->right + linear_step_bytes(products, j * steps), steps);
    for (int n = 0; n < path->count; n++) {
        float *to = n == path->count - 1 && !last ? path->total.at + at : w->block;

        cpu_add_floats(to, path->waiting[n].at + at, out, LINEAR_AREA);
    }
    if (last) finish_block(job->sum, t, out, i, j);
}

static void meet_leaf(const struct sum_job *job, struct linear_worker *w, const struct tile *t,
                      int64_t leaf)
{
    const struct ls_linear_sum *sum = job->sum;
    const struct linear_products *products = job->kernel->products;
    const struct ls_leaf *at = &sum->leaves.leaf[leaf];
    const bool last = leaf == sum->leaves.count - 1;
    const int depth = leaf_rows(&job->kernel->shape, at->number);
    struct sum_path path = {0};

    sum_forest_lead(&path, &w->dw, at->number, last);
    cpu_linear_pack_lines(w->left, products, false, (struct linear_operand){sum->dy, true}, t->row,
                          t->rows, at->row, depth);
    cpu_linear_pack_lines(w->right, products, true, (struct linear_operand){sum->x, true},
                          t->column, t->columns, at->row, depth);
    for (int j = 0; j < linear_panels(t->columns); j++) {
        for (int i = 0; i < linear_panels(t->rows); i++)
            compute_block(job, w, t, &path, linear_steps(depth), last, i, j);
        progress_tick(w->clock);
    }
}

static void clear_tile(const struct ls_linear_sum *sum, const struct tile *t)
{
    for (int r = 0; r < t->rows; r++)
        memset(linear_element(sum->dw, t->row + r, t->column), 0,
               (size_t)t->columns * sizeof(float));
}

static void compute_tile(const struct sum_job *job, struct linear_worker *w, const struct tile *t)
{
    const int64_t blocks = linear_panels(t->rows) * linear_panels(t->columns);

    sum_forest_start(&w->dw, (int)blocks * LINEAR_SIDE, LINEAR_SIDE);
    for (int64_t leaf = 0; leaf < job->sum->leaves.count; leaf++) meet_leaf(job, w, t, leaf);
    if (job->sum->leaves.count == 0 && !job->sum->add) clear_tile(job->sum, t);
}

static int part(int64_t n, int64_t first, int most)
{
    return n - first < most ? (int)(n - first) : most;
}

static int64_t compute_tiles(void *data, struct linear_worker *w)
{
    struct sum_job *job = data;
    const struct linear_tile most = job->kernel->dw;
    const int64_t rows = job->sum->dw->dim[0], columns = job->sum->dw->dim[1];
    const int64_t down = (rows + most.rows - 1) / most.rows;
    const int64_t across = (columns + most.columns - 1) / most.columns;
    int64_t i, done = 0;

    for (; (i = atomic_fetch_add(&job->next_tile, 1)) < down * across; done++) {
        const int64_t row = i / across * most.rows, column = i % across * most.columns;

        compute_tile(job, w,
                     &(struct tile){row, column, part(rows, row, most.rows),
                                    part(columns, column, most.columns)});
    }
    return done;
}

void cpu_linear_dw(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                   const struct ls_linear_sum *sum)
{
    struct sum_job job = {.kernel = kernel, .sum = sum};

    cpu_linear_call(queue, kernel, &job, NULL, compute_tiles);
}
