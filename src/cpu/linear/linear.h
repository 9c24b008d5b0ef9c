/* The kernel of linear layers on the CPU: what its files share. Every product is one of panels of
 * 32 rows or columns; a thread takes a tile of the result, packs what it needs of the left operand
 * (of both, for dw) and multiplies block by block. */
#ifndef LS_CPU_LINEAR_LINEAR_H
#define LS_CPU_LINEAR_LINEAR_H

#include <stdatomic.h>

#include "cpu/device.h"
#include "cpu/gradient/sum_forest.h"
#include "cpu/linear/products.h"
#include "cpu/team.h"
#include "device/linear.h"

/* Rows and columns of a tile, at most: what fits into a cache of 1 MiB with the sums of the tile
 * and, of dw, a few subtrees of them. */
#define LINEAR_TILE_ROWS 128
#define LINEAR_TILE_COLUMNS 512
#define LINEAR_DW_ROWS 192
#define LINEAR_DW_COLUMNS 256

/* What a thread has of its own. */
struct linear_worker {
    char *left, *right;           /* packed panels of a tile; right: of dw */
    float *sums;                  /* of a tile, block by block, where depth is cut into chunks */
    float *block;                 /* [32][32] */
    struct sum_forest dw;         /* of a tile, block by block */
    struct progress_clock *clock; /* of the first thread, else NULL */
    struct ls_profile profile;
    int64_t tiles;
} __attribute__((aligned(64)));

/* Rows and columns of a tile. */
struct linear_tile {
    int rows, columns; /* multiples of 32 */
};

struct ls_linear_kernel {
    struct ls_linear_shape shape;
    struct cpu cpu;
    const struct linear_products *products;
    struct linear_tile most; /* of y and dx */
    struct linear_tile dw;
    char *weights;                /* packed right operand */
    struct linear_worker *worker; /* [threads] */
    void *memory;
};

/* What becomes of sums. */
struct linear_finish {
    const struct ls_tensor *y, *z; /* z NULL: not wanted */
    const struct ls_tensor *bias;  /* NULL: none */
    bool gelu;
};

extern const struct ls_linear_ops cpu_linear_ops;

/* Bytes of so many steps of a packed panel. */
static inline size_t linear_step_bytes(const struct linear_products *products, int64_t steps)
{
    return (size_t)steps * LINEAR_AREA * (products->type == LS_BF16 ? 2 : 4);
}

/* An element of a tensor of two dimensions. */
static inline char *linear_element(const struct ls_tensor *t, int64_t row, int64_t column)
{
    return (char *)t->data + (row * t->stride[0] + column) * (t->type == LS_BF16 ? 2 : 4);
}

static inline int64_t linear_panels(int64_t lines)
{
    return (lines + LINEAR_SIDE - 1) / LINEAR_SIDE;
}

/* The lines of an operand, of which a tile has some, and how they lie. */
struct linear_operand {
    const struct ls_tensor *t;
    bool deep; /* lines are columns of t */
};

/* pack.c: packs lines [first, first + lines) of an operand, `depth` elements from place `from` on,
 * panel by panel. */
void cpu_linear_pack_lines(char *to, const struct linear_products *products, bool right,
                           struct linear_operand operand, int64_t first, int64_t lines,
                           int64_t from, int depth);

/* A part of a call that a thread does, item by item, until none is left; gives their number. */
typedef int64_t linear_phase(void *job, struct linear_worker *w);

/* crew.c: all threads do what there is to pack (NULL: nothing), and then the tiles. */
void cpu_linear_call(struct ls_queue *queue, struct ls_linear_kernel *kernel, void *job,
                     linear_phase *pack, linear_phase *tiles);

/* At most `most`, smaller, down to one block, until there are a few for each thread; all of about
 * one size. */
struct linear_tile cpu_linear_fit_tile(struct linear_tile most, int64_t rows, int64_t columns,
                                       int threads);

/* finish.c: a block of sums [32][32] becomes y (and z) from this row and column on, as far as it
 * goes. What was written can be relied on after cpu_linear_end_finish. */
void cpu_linear_finish(const struct linear_finish *finish, const float *block, int64_t row,
                       int64_t column);
void cpu_linear_end_finish(void);

/* rows.c and weights.c: rows of cpu_linear_ops. */
void cpu_linear_forward(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                        const struct ls_linear_call *call);
void cpu_linear_dx(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                   const struct ls_linear_input_gradient *call);
void cpu_linear_dw(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                   const struct ls_linear_sum *sum);

#endif
