/* Sums of two tensors, and dropout, which is one with what is kept. */
#include <assert.h>

#include "base/cpu.h"
#include "cpu/device.h"
#include "cpu/draw.h"
#include "cpu/float_mode.h"
#include "cpu/gradient/sum_forest.h"
#include "cpu/pointwise/blocks.h"
#include "cpu/pointwise/held_rows.h"
#include "cpu/pointwise/pointwise.h"
#include "cpu/tanh.h"

static void add_block(struct ls_tensor *out, const struct ls_tensor *a, const struct ls_tensor *b,
                      const struct block *at)
{
    float a_room[BLOCK], b_room[BLOCK], sum_room[BLOCK];
    float *const sum = out_block(sum_room, out, at, 0);

    cpu_add_floats(sum, read_block(a_room, a, at, 0), read_block(b_room, b, at, 0), at->n);
    write_block(out, at, 0, sum);
}

void cpu_tensor_add(void *self, struct ls_tensor *out, const struct ls_tensor *a,
                    const struct ls_tensor *b)
{
    const int threads = ((const struct cpu *)self)->threads;
    const struct blocks blocks = blocks_of((const struct ls_tensor *const[]){out, a, b}, 3);

    assert(a->type == out->type && b->type == out->type);
#pragma omp parallel num_threads(threads)
    {
        const fenv_t callers = cpu_float_mode_enter();

#pragma omp for
        for (int64_t i = 0; i < blocks.count; i++) {
            const struct block at = block_at(&blocks, i);

            add_block(out, a, b, &at);
        }
        fesetenv(&callers);
    }
}

/* ---- dropout */

LS_CLONED static void keep(float *out, const float *x, const uint8_t *mask, float factor, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++)
        out[i] = f32_of_bits(bits_of_f32(x[i] * factor) & -(uint32_t)mask[i]);
}

LS_CLONED static void add_kept(float *out, const float *residual, const float *x,
                               const uint8_t *mask, float factor, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++)
        out[i] = residual[i] + f32_of_bits(bits_of_f32(x[i] * factor) & -(uint32_t)mask[i]);
}

static void drop_block(const struct ls_dropout_call *call, const struct block *b,
                       const uint8_t *mask)
{
    const float factor = (float)(1 / (1 - (double)call->dropout->rate));
    float x_room[BLOCK], residual_room[BLOCK], out_room[BLOCK];
    const float *const x = read_block(x_room, call->x, b, 0);
    float *const out = out_block(out_room, call->out, b, 0);

    if (call->residual)
        add_kept(out, read_block(residual_room, call->residual, b, 0), x, mask, factor, b->n);
    else
        keep(out, x, mask, factor, b->n);
    write_block(call->out, b, 0, out);
}

/* Blocks of the rows that a tensor [b, s_loc, e] holds: of all batch entries of a row together. */
struct held_blocks {
    const struct ls_row_runs *runs;
    struct held_cursor at;
    int64_t b, e, of_a_row;
};

static int64_t count_held(const struct held_blocks *h)
{
    return held_rows(h->runs) * h->b * h->of_a_row;
}

/* The i-th; *row is its row of the whole problem. i as in held_row. */
static struct block held_block(int64_t *row, struct held_blocks *h, int64_t i)
{
    const struct held_row held = held_row(&h->at, h->runs, i / (h->b * h->of_a_row));
    const int64_t batch = i / h->of_a_row % h->b, column = i % h->of_a_row * BLOCK;
    const int64_t left = h->e - column;

    *row = batch * h->runs->s + held.position;
    return (struct block){batch, held.row, column, left < BLOCK ? (int)left : BLOCK};
}

void cpu_dropout(void *self, const struct ls_dropout_call *call)
{
    const struct cpu *const cpu = self;
    const int64_t *const dim = call->x->dim;
    const struct drawing drawing = drawing_of(call->dropout, LS_RANDOM_ELEMENT, cpu->isa);
    const struct held_blocks all = {call->runs, {0}, dim[0], dim[2], (dim[2] + BLOCK - 1) / BLOCK};
    const int64_t count = count_held(&all);

    assert(call->x->type == call->out->type);
#pragma omp parallel num_threads(cpu->threads)
    {
        const fenv_t callers = cpu_float_mode_enter();
        struct held_blocks mine = all;

#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; i++) {
            uint8_t drawn[BLOCK];
            int64_t row;
            const struct block b = held_block(&row, &mine, i);
            const uint8_t *mask = drawn;

            if (call->mask)
                mask = call->mask + (b.batch * dim[1] + b.row) * dim[2] + b.column;
            else
                draw(drawn, &drawing, row, b.column, b.n);
            drop_block(call, &b, mask);
        }
        fesetenv(&callers);
    }
}

void cpu_dropout_mask(void *self, uint8_t *mask, const int64_t dim[3],
                      const struct ls_dropout *dropout, const struct ls_row_runs *runs)
{
    const struct cpu *const cpu = self;
    const struct drawing drawing = drawing_of(dropout, LS_RANDOM_ELEMENT, cpu->isa);
    const struct held_blocks all = {runs, {0}, dim[0], dim[2], (dim[2] + BLOCK - 1) / BLOCK};
    const int64_t count = count_held(&all);

#pragma omp parallel num_threads(cpu->threads)
    {
        struct held_blocks mine = all;

#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; i++) {
            int64_t row;
            const struct block b = held_block(&row, &mine, i);

            draw(mask + (b.batch * dim[1] + b.row) * dim[2] + b.column, &drawing, row, b.column,
                 b.n);
        }
    }
}
