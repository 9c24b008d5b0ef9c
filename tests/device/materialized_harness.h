/* What the tests of the materialized core share: attention of drawn numbers, and its calls. */
#ifndef TESTS_DEVICE_MATERIALIZED_HARNESS_H
#define TESTS_DEVICE_MATERIALIZED_HARNESS_H

#include <criterion/criterion.h>
#include <math.h>

#include "base/random.h"
#include "device/materialized.h"
#include "longspan/layout.h"
#include "mirror.h"
#include "reference/layer_core.h"
#include "variants.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))
#define MOST_RUNS 16

/* Attention of b sequences, of whose leaves of queries a rank has those of number `first` modulo
 * `step`. */
struct problem {
    struct ls_materialized_shape shape; /* rows are filled in */
    int64_t step, first;
    int threads;
    uint64_t seed;
    int64_t sums, first_run[MOST_RUNS + 1]; /* of dk and dv; at most one sum: of all runs */

    struct ls_row_run run[MOST_RUNS];
    struct ls_row_runs runs;
    int64_t width;           /* of q, k and v together */
    char *qkv, *d_o;         /* [b, s, width], [b, s, h d] of the type */
    double *exact, *exact_d; /* the same in double */
    char *o, *dq;            /* [b, rows, h d] */
    float *dk, *dv;          /* [sums][b, h, s, d] */
    char *softmax, *dropped; /* [b, h, rows, s] */
    uint8_t *mask;
    struct ls_work work;
};

static inline size_t size_of(const struct problem *p)
{
    return (size_t)ls_dtype_size(p->shape.type);
}

static inline void *draw_elements(double **exact, const struct problem *p, int64_t n,
                                  uint32_t stream)
{
    float *x = malloc((size_t)n * sizeof *x);
    void *out = malloc((size_t)n * size_of(p));

    *exact = malloc((size_t)n * sizeof **exact);
    ls_random_normal(x, 17, stream, 0, n);
    ls_dtype_convert(out, p->shape.type, x, LS_F32, n);
    ls_dtype_convert(*exact, LS_F64, out, p->shape.type, n);
    free(x);
    return out;
}

static inline void *marked(size_t bytes)
{
    void *out = malloc(bytes + 1);

    memset(out, 0xff, bytes + 1); /* NaN */
    return out;
}

static inline void list_runs(struct problem *p)
{
    p->runs = (struct ls_row_runs){.run = p->run, .s = p->shape.s};
    p->shape.rows = 0;
    for (int64_t leaf = p->first; leaf * LS_LEAF < p->shape.s; leaf += p->step) {
        const int64_t left = p->shape.s - leaf * LS_LEAF, rows = left < LS_LEAF ? left : LS_LEAF;

        p->run[p->runs.count++] = (struct ls_row_run){p->shape.rows, rows, leaf * LS_LEAF};
        p->shape.rows += rows;
    }
}

/* Numbers of one dk or dv. */
static inline int64_t sum_elements(const struct problem *p)
{
    return p->shape.b * p->shape.h * p->shape.s * p->shape.d;
}

static inline size_t gradient_bytes(const struct problem *p)
{
    return (size_t)(p->sums * sum_elements(p)) * sizeof(float);
}

static inline void problem_open(struct problem *p)
{
    struct ls_materialized_shape *n = &p->shape;

    list_runs(p);
    if (p->sums <= 1) p->first_run[p->sums = 1] = p->runs.count;
    n->backward = true;
    n->scale = 1 / sqrtf((float)n->d);
    n->heads = n->h + n->first_head;
    p->width = (n->h + 2 * n->h_kv) * n->d;
    const size_t kept = (size_t)(n->b * n->h * n->rows * n->s);
    const size_t rows = (size_t)(n->b * n->rows * n->h * n->d) * size_of(p);

    p->qkv = draw_elements(&p->exact, p, n->b * n->s * p->width, 1);
    p->d_o = draw_elements(&p->exact_d, p, n->b * n->s * n->h * n->d, 2);
    p->o = marked(rows);
    p->dq = marked(rows);
    p->dk = marked(gradient_bytes(p));
    p->dv = marked(gradient_bytes(p));
    p->softmax = marked(kept * size_of(p));
    p->dropped = marked(kept * size_of(p));
    p->mask = marked(kept);
}

static inline void problem_close(struct problem *p)
{
    void *all[] = {p->qkv, p->d_o, p->exact,   p->exact_d, p->o,   p->dq,
                   p->dk,  p->dv,  p->softmax, p->dropped, p->mask};

    for (int i = 0; i < LENGTH(all); i++) free(all[i]);
}

static inline int64_t position_of(const struct problem *p, int64_t row)
{
    return p->run[row / LS_LEAF].position + row % LS_LEAF;
}

/* ---- calls */

/* A view [b, rows, heads, d] of what is `width` wide, from a column on. */
static inline struct ls_tensor view(const struct problem *p, char *all, int64_t rows, int64_t width,
                                    int64_t column, int64_t heads)
{
    const int64_t d = p->shape.d, dim[] = {p->shape.b, rows, heads, d};
    struct ls_tensor t = ls_tensor_view(all + (size_t)column * size_of(p), p->shape.type, 4, dim);

    t.stride[0] = rows * width;
    t.stride[1] = width;
    return t;
}

/* Of what is [b, s, width] the rows of the problem, [b, rows, width]. */
static inline char *rows_of(const struct problem *p, const char *all, int64_t width)
{
    const struct ls_materialized_shape *n = &p->shape;
    const size_t row = (size_t)width * size_of(p);
    char *out = malloc((size_t)(n->b * n->rows) * row + 1);

    for (int64_t i = 0; i < n->b * n->rows; i++)
        memcpy(out + (size_t)i * row,
               all + (size_t)(i / n->rows * n->s + position_of(p, i % n->rows)) * row, row);
    return out;
}

struct operands {
    struct mirror mirror;
    struct ls_tensor q, k, v, d_o, o, dq;
    struct ls_probabilities kept;
    char *rows, *d_rows;
};

static inline void operands_open(struct operands *x, struct problem *p, struct ls_device *device)
{
    const struct ls_materialized_shape *n = &p->shape;
    const int64_t h = n->h, d = n->d, kv = n->h_kv;
    const size_t kept = (size_t)(n->b * h * n->rows * n->s);
    const bool drops = n->dropout > 0;

    *x = (struct operands){.mirror = {.device = device}};
    x->rows = rows_of(p, p->qkv, p->width);
    x->d_rows = rows_of(p, p->d_o, h * d);
    const struct ls_tensor host[] = {view(p, x->rows, n->rows, p->width, 0, h),
                                     view(p, p->qkv, n->s, p->width, h * d, kv),
                                     view(p, p->qkv, n->s, p->width, (h + kv) * d, kv),
                                     view(p, x->d_rows, n->rows, h * d, 0, h)};
    struct ls_tensor *const there[] = {&x->q, &x->k, &x->v, &x->d_o};
    const struct ls_tensor o = view(p, p->o, n->rows, h * d, 0, h);
    const struct ls_tensor dq = view(p, p->dq, n->rows, h * d, 0, h);

    for (int i = 0; i < LENGTH(host); i++) mirror_input(there[i], &x->mirror, &host[i]);
    mirror_output(&x->o, &x->mirror, &o);
    mirror_output(&x->dq, &x->mirror, &dq);
    x->kept = (struct ls_probabilities){
        .softmax = mirror_result(&x->mirror, p->softmax, kept * size_of(p)),
        .mask = drops ? mirror_result(&x->mirror, p->mask, kept) : NULL,
        .dropped = drops ? mirror_result(&x->mirror, p->dropped, kept * size_of(p)) : NULL};
}

static inline void operands_close(struct operands *x, struct problem *p)
{
    cr_assert_eq(ls_queue_finish(&p->work, &x->mirror.device->queue), LS_OK, "%s", ls_message());
    mirror_read_back(&x->mirror);
    free(x->rows);
    free(x->d_rows);
}

static inline struct ls_materialized_kernel *open_kernel(const struct problem *p,
                                                         struct ls_device *device)
{
    struct ls_materialized_kernel *kernel;

    need_family(device->ops->materialized, "materialized attention");
    cr_assert_eq(ls_materialized_kernel_create(&kernel, device, &p->shape), LS_OK, "%s",
                 ls_message());
    return kernel;
}

static inline void run_forward(struct problem *p, struct ls_device *device,
                               struct ls_materialized_kernel *kernel, bool wants_o)
{
    struct operands x;

    operands_open(&x, p, device);
    ls_materialized_forward(&device->queue, kernel,
                            &(struct ls_materialized_forward){.o = wants_o ? &x.o : NULL,
                                                              .kept = x.kept,
                                                              .q = &x.q,
                                                              .k = &x.k,
                                                              .v = &x.v,
                                                              .runs = &p->runs,
                                                              .seed = p->seed});
    operands_close(&x, p);
}

static inline void run_backward(struct problem *p, struct ls_device *device,
                                struct ls_materialized_kernel *kernel)
{
    const size_t keys = gradient_bytes(p);
    struct operands x;

    operands_open(&x, p, device);
    ls_materialized_backward(
        &device->queue, kernel,
        &(struct ls_materialized_backward){.dq = &x.dq,
                                           .dk = mirror_result(&x.mirror, p->dk, keys),
                                           .dv = mirror_result(&x.mirror, p->dv, keys),
                                           .first = p->first_run,
                                           .sums = p->sums,
                                           .kept = x.kept,
                                           .q = &x.q,
                                           .k = &x.k,
                                           .v = &x.v,
                                           .d_o = &x.d_o,
                                           .runs = &p->runs});
    operands_close(&x, p);
}

static inline void run(struct problem *p)
{
    struct ls_device *device = open_device(p->threads);
    struct ls_materialized_kernel *kernel = open_kernel(p, device);

    run_forward(p, device, kernel, true);
    run_backward(p, device, kernel);
    ls_materialized_kernel_destroy(device, kernel);
    ls_device_close(device);
}

static inline double element(const struct problem *p, const char *all, int64_t i)
{
    return ls_dtype_load(p->shape.type, all + (size_t)i * size_of(p));
}

/* ---- the same in double */

struct exact {
    double *o, *lse, *dqkv;
};

/* type LS_F64: exactly; else with the roundings of what is kept. */
static inline struct exact solve(const struct problem *p, ls_dtype type)
{
    const struct ls_materialized_shape *n = &p->shape;
    const int64_t rows = n->b * n->s;
    struct exact out = {calloc((size_t)(rows * n->h * n->d), sizeof *out.o),
                        calloc((size_t)(rows * n->h), sizeof *out.lse),
                        calloc((size_t)(rows * p->width), sizeof *out.dqkv)};
    const struct ls_reference_core core = {
        .shape = {.b = n->b, .s = n->s, .h = n->h, .h_kv = n->h_kv, .d = n->d},
        .core = LS_CORE_MATERIALIZED,
        .type = type,
        .causal = n->causal,
        .dropout = n->dropout,
        .seed = p->seed,
        .qkv = p->exact,
        .o = out.o,
        .lse = out.lse};

    cr_assert_eq(n->first_head, 0);
    cr_assert_eq(ls_reference_core_forward(&core), LS_OK);
    cr_assert_eq(ls_reference_core_backward(out.dqkv, &core, p->exact_d), LS_OK);
    return out;
}

static inline void exact_close(struct exact *x)
{
    free(x->o);
    free(x->lse);
    free(x->dqkv);
}

#endif
