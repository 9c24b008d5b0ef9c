/* dx of a group of rows, and then, while they are in cache, what they add to dgamma and dbeta. */
#include <assert.h>

#include "base/cpu.h"
#include "cpu/device.h"
#include "cpu/norm/norm.h"
#include "cpu/rows/group.h"

struct row {
    void *dx;
    const void *dy, *x;
    float mean, rstd; /* mean 0 for RMSNorm */
};

/* ---- dx */

/* What stands at n elements of a row. */
struct terms {
    struct pair dy, xhat;
};

static ALWAYS_INLINE struct terms terms_of(const struct row *row, ls_dtype type, int64_t i, int n)
{
    struct terms t = {load_pair(row->dy, type, i, n, 0), load_pair(row->x, type, i, n, 0)};

    for (int half = 0; half < 2; half++) t.xhat.x[half] = (t.xhat.x[half] - row->mean) * row->rstd;
    return t;
}

/* sum += g, products += g xhat. */
static ALWAYS_INLINE void add_terms(struct pair *sum, struct pair *products, const struct row *row,
                                    const void *gamma, ls_dtype type, int64_t i, int n)
{
    const struct pair scale = load_pair(gamma, type, i, n, 0);
    const struct terms t = terms_of(row, type, i, n);

    for (int half = 0; half < 2; half++) {
        const lanes g = t.dy.x[half] * scale.x[half];

        sum->x[half] += g;
        products->x[half] += g * t.xhat.x[half];
    }
}

struct means {
    float g, product; /* of g and of g xhat */
};

static ALWAYS_INLINE struct means means_of(const struct row *row, const void *gamma, ls_dtype type,
                                           int64_t e)
{
    const int64_t whole = e - e % PAIR;
    struct pair sum = {{{0}}}, products = {{{0}}};

    for (int64_t i = 0; i < whole; i += PAIR) add_terms(&sum, &products, row, gamma, type, i, PAIR);
    if (whole < e) add_terms(&sum, &products, row, gamma, type, whole, (int)(e - whole));
    return (struct means){
        .g = (float)(sum_of_pair(sum) / (double)e),
        .product = (float)(sum_of_pair(products) / (double)e),
    };
}

static ALWAYS_INLINE void write_pair(const struct row *row, struct means m, const void *gamma,
                                     ls_dtype type, int64_t i, int n, bool add)
{
    const struct pair scale = load_pair(gamma, type, i, n, 0);
    const struct terms t = terms_of(row, type, i, n);
    struct pair dx;

    for (int half = 0; half < 2; half++)
        dx.x[half] =
            ((t.dy.x[half] * scale.x[half] - m.g) - t.xhat.x[half] * m.product) * row->rstd;
    if (add) {
        const struct pair old = load_pair(row->dx, type, i, n, 0);

        for (int half = 0; half < 2; half++) dx.x[half] += old.x[half];
    }
    store_pair(row->dx, type, i, n, dx);
}

static ALWAYS_INLINE void write_dx(const struct row *given, const struct ls_norm_backward *call,
                                   ls_dtype type, int64_t e)
{
    const struct row row = *given;
    const int64_t whole = e - e % PAIR;
    const void *const gamma = call->gamma;
    const bool add = call->add;
    struct means m = means_of(&row, gamma, type, e);

    if (!call->mean) m.g = 0;
    for (int64_t i = 0; i < whole; i += PAIR) write_pair(&row, m, gamma, type, i, PAIR, add);
    if (whole < e) write_pair(&row, m, gamma, type, whole, (int)(e - whole), add);
}

/* ---- dgamma and dbeta */

/* Of n columns of `rows` rows, 1 or ROW_GROUP. */
static ALWAYS_INLINE void add_columns(float *dgamma, float *dbeta, const struct row *row, int rows,
                                      ls_dtype type, int64_t i, int n)
{
    struct pair dy[ROW_GROUP], product[ROW_GROUP];

#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        const struct terms t = terms_of(&row[r], type, i, n);

        dy[r] = t.dy;
        for (int half = 0; half < 2; half++) product[r].x[half] = t.dy.x[half] * t.xhat.x[half];
    }
    store_sums(dgamma, type, i, n, sum_of_group(product, rows));
    if (dbeta) store_sums(dbeta, type, i, n, sum_of_group(dy, rows));
}

static ALWAYS_INLINE void add_rows(float *dgamma, float *dbeta, const struct row *row, int rows,
                                   ls_dtype type, int64_t e)
{
    const int64_t whole = e - e % PAIR;

    for (int64_t i = 0; i < whole; i += PAIR) add_columns(dgamma, dbeta, row, rows, type, i, PAIR);
    if (whole < e) add_columns(dgamma, dbeta, row, rows, type, whole, (int)(e - whole));
}

/* ---- both */

static ALWAYS_INLINE void take_rows(float *sums, const struct row *row, int rows,
                                    const struct ls_norm_backward *call, ls_dtype type)
{
    const int64_t e = call->x->dim[2];
    float *const dbeta = call->dbeta ? sums + e : NULL;

    for (int r = 0; r < rows; r++) write_dx(&row[r], call, type, e);
    if (rows == ROW_GROUP)
        add_rows(sums, dbeta, row, ROW_GROUP, type, e);
    else
        add_rows(sums, dbeta, row, 1, type, e);
}

LS_CLONED static void take_rows_f32(float *sums, const struct row *row, int rows,
                                    const struct ls_norm_backward *call)
{
    take_rows(sums, row, rows, call, LS_F32);
}

LS_CLONED static void take_rows_bf16(float *sums, const struct row *row, int rows,
                                     const struct ls_norm_backward *call)
{
    take_rows(sums, row, rows, call, LS_BF16);
}

static void add_group(float *sums, const void *what, const struct row_place *place, int n)
{
    const struct ls_norm_backward *call = what;
    struct row row[ROW_GROUP];

    for (int i = 0; i < n; i++) {
        const int64_t at = place[i].batch * call->x->dim[1] + place[i].row;

        row[i] = (struct row){
            .dx = row_of(call->dx, place[i].batch, place[i].row),
            .dy = row_of(call->dy, place[i].batch, place[i].row),
            .x = row_of(call->x, place[i].batch, place[i].row),
            .mean = call->mean ? call->mean[at] : 0,
            .rstd = call->rstd[at],
        };
    }
    (call->x->type == LS_F32 ? take_rows_f32 : take_rows_bf16)(sums, row, n, call);
}

size_t cpu_norm_backward_bytes(void *self, int64_t rows, int64_t e)
{
    return cpu_node_sums_bytes(rows, 2 * e, ((const struct cpu *)self)->threads);
}

void cpu_norm_backward(void *self, const struct ls_norm_backward *call)
{
    const struct ls_tensor *x = call->x;

    assert(x->ndim == 3 && (x->type == LS_F32 || x->type == LS_BF16));
    assert(call->dy->type == x->type && call->dx->type == x->type);
    cpu_node_sums(&(struct node_sums){
        .order = call->order,
        .b = x->dim[0],
        .s_loc = x->dim[1],
        .e = x->dim[2],
        .vectors = call->dbeta ? 2 : 1,
        .out = {call->dgamma, call->dbeta},
        .scratch = call->scratch,
        .threads = ((const struct cpu *)self)->threads,
        .add_group = add_group,
        .what = call,
    });
}
