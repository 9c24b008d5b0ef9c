/* The sums of a tensor's own rows, as the gradient of a bias is. */
#include <assert.h>

#include "base/cpu.h"
#include "cpu/device.h"
#include "cpu/rows/group.h"
#include "cpu/rows/rows.h"
#include "tensor/dtype.h"

static ALWAYS_INLINE void add_pairs(float *sum, const void *const row[ROW_GROUP], ls_dtype type,
                                    int64_t i, int n)
{
    struct pair x[ROW_GROUP];

#pragma GCC unroll 8
    for (int r = 0; r < ROW_GROUP; r++) x[r] = load_pair(row[r], type, i, n, 0);
    store_sums(sum, type, i, n, sum_of_group(x, ROW_GROUP));
}

static ALWAYS_INLINE void add_eight(float *sum, const void *const row[ROW_GROUP], ls_dtype type,
                                    int64_t e)
{
    const int64_t whole = e - e % PAIR;

    for (int64_t i = 0; i < whole; i += PAIR) add_pairs(sum, row, type, i, PAIR);
    if (whole < e) add_pairs(sum, row, type, whole, (int)(e - whole));
}

LS_CLONED static void add_eight_f32(float *sum, const void *const row[ROW_GROUP], int64_t e)
{
    add_eight(sum, row, LS_F32, e);
}

LS_CLONED static void add_eight_bf16(float *sum, const void *const row[ROW_GROUP], int64_t e)
{
    add_eight(sum, row, LS_BF16, e);
}

static void add_group(float *sum, const void *what, const struct row_place *place, int n)
{
    const struct ls_tensor *x = what;
    const void *row[ROW_GROUP];

    for (int i = 0; i < n; i++) row[i] = row_of(x, place[i].batch, place[i].row);
    if (n == 1)
        ls_dtype_convert(sum, LS_F32, row[0], x->type, x->dim[2]);
    else
        (x->type == LS_F32 ? add_eight_f32 : add_eight_bf16)(sum, row, x->dim[2]);
}

size_t cpu_sum_rows_bytes(void *self, int64_t rows, int64_t e)
{
    return cpu_node_sums_bytes(rows, e, ((const struct cpu *)self)->threads);
}

void cpu_sum_rows(void *self, float *out, const struct ls_tensor *x,
                  const struct ls_row_order *order, void *scratch)
{
    assert(x->ndim == 3 && (x->type == LS_F32 || x->type == LS_BF16));
    cpu_node_sums(&(struct node_sums){
        .order = order,
        .b = x->dim[0],
        .s_loc = x->dim[1],
        .e = x->dim[2],
        .vectors = 1,
        .out = {out},
        .scratch = scratch,
        .threads = ((const struct cpu *)self)->threads,
        .add_group = add_group,
        .what = x,
    });
}
