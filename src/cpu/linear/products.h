/* Products of blocks, from which those of linear layers are made: 32 rows by 32 columns, any depth.
 * Each way of computing them is a row of the table in products.c. An element of a block is a sum
 * over depth in one order, so that its bits do not depend on its place. */
#ifndef LS_CPU_LINEAR_PRODUCTS_H
#define LS_CPU_LINEAR_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"
#include "longspan/tensor.h"

#define LINEAR_SIDE 32                          /* of a block, and depth of a step */
#define LINEAR_AREA (LINEAR_SIDE * LINEAR_SIDE) /* elements of a step of a packed operand */

/* Rows of a left operand or columns of a right one, at most LINEAR_SIDE, as the caller has them. */
struct linear_panel {
    const void *at;
    ls_dtype type;
    int64_t stride; /* elements between lines; or, if deep, between the elements of a line, of
                     * which those of the next line are neighbours */
    bool deep;
    int lines, depth;
};

struct linear_products {
    const char *name;
    ls_dtype type; /* of packed operands */
    bool (*fits)(ls_isa isa, ls_dtype storage);

    /* Packed, a panel is steps of LINEAR_AREA elements; zero beyond its lines and its depth. */
    void (*pack_left)(void *to, const struct linear_panel *from);
    void (*pack_right)(void *to, const struct linear_panel *from);

    /* Around any number of products, on one thread; NULL: nothing to do. */
    void (*begin)(void);
    void (*end)(void);

    /* out [32][32] = left x right, `steps` steps deep */
    void (*multiply)(float *out, const void *left, const void *right, int steps);
};

extern const struct linear_products cpu_linear_amx, cpu_linear_avx512bf16, cpu_linear_avx512,
    cpu_linear_avx2, cpu_linear_generic;

/* For rows that this machine's architecture cannot have. */
bool cpu_linear_fits_never(ls_isa isa, ls_dtype storage);

/* The first row of the table that fits. */
const struct linear_products *cpu_linear_products_find(ls_isa isa, ls_dtype storage);

static inline int linear_steps(int64_t depth)
{
    return (int)((depth + LINEAR_SIDE - 1) / LINEAR_SIDE);
}

/* pack_bf16.c: for CPUs with AVX-512. */
void cpu_linear_pack_left_bf16(void *to, const struct linear_panel *from);
void cpu_linear_pack_right_bf16(void *to, const struct linear_panel *from);

/* pack_f32.c: for each of depth, its element of every line. bf16 is widened. */
void cpu_linear_pack_f32(void *to, const struct linear_panel *from);

#endif
