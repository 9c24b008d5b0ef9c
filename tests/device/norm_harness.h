/* What tests of norms share: a problem, and its execution forward and backward in parts. */
#ifndef TESTS_DEVICE_NORM_HARNESS_H
#define TESTS_DEVICE_NORM_HARNESS_H

#include "device/norm.h"
#include "nodes.h"

struct problem {
    struct sheet x, dy, old, gamma, beta; /* old: what dx is added to */
    float epsilon;
    bool rms, add;
};

struct result {
    struct sheet y, dx;
    float *mean, *rstd;    /* [b, s] */
    float *dgamma, *dbeta; /* [e] */
};

static inline struct problem problem_create(ls_dtype type, int64_t b, int64_t s, int64_t e,
                                            bool rms)
{
    struct problem p = {.x = sheet_create(type, b, s, e, 3),
                        .dy = sheet_create(type, b, s, e, 0),
                        .old = sheet_create(type, b, s, e, 0),
                        .gamma = sheet_create(type, 1, 1, e, 0),
                        .beta = sheet_create(type, 1, 1, e, 0),
                        .epsilon = 1e-5F,
                        .rms = rms};

    sheet_fill(&p.x, 1, 2, 0.5F);
    sheet_fill(&p.dy, 2, 1, 0);
    sheet_fill(&p.old, 5, 1, 1);
    sheet_fill(&p.gamma, 3, 1, 0.3F);
    sheet_fill(&p.beta, 4, 1, 0);
    return p;
}

static inline void problem_destroy(struct problem *p)
{
    free(p->x.memory);
    free(p->dy.memory);
    free(p->old.memory);
    free(p->gamma.memory);
    free(p->beta.memory);
}

static inline void result_destroy(struct result *r)
{
    free(r->y.memory);
    free(r->dx.memory);
    free(r->mean);
    free(r->rstd);
    free(r->dgamma);
    free(r->dbeta);
}

/* ---- one part on the device */

struct part_result {
    struct sheet y, dx;
    float *mean, *rstd;
    struct nodes *dgamma, *dbeta; /* of all parts */
};

static inline void run_forward(struct part_result *r, const struct problem *p,
                               const struct sheet *x, int threads)
{
    struct mirror m = {.device = open_device(threads)};
    const size_t rows = (size_t)(x->t.dim[0] * x->t.dim[1]) * sizeof(float);
    const size_t e = sheet_row_bytes(x);
    struct ls_tensor y, x_there;
    const struct ls_norm_forward call = {
        .y = sheet_result(&y, &m, &r->y),
        .mean = p->rms ? NULL : mirror_result(&m, r->mean, rows),
        .rstd = mirror_result(&m, r->rstd, rows),
        .x = mirror_input(&x_there, &m, &x->t),
        .gamma = mirror_operand(&m, p->gamma.t.data, e),
        .beta = p->rms ? NULL : mirror_operand(&m, p->beta.t.data, e),
        .epsilon = p->epsilon,
    };

    ls_norm_forward(&m.device->queue, &call);
    cr_assert_eq(ls_queue_finish(NULL, &m.device->queue), LS_OK, "%s", ls_message());
    mirror_read_back(&m);
    ls_device_close(m.device);
}

static inline void run_backward(struct part_result *r, const struct problem *p,
                                const struct sheet *dy, const struct sheet *x,
                                const struct part *part, int threads)
{
    struct mirror m = {.device = open_device(threads)};
    const int64_t b = x->t.dim[0];
    const size_t rows = (size_t)(b * x->t.dim[1]) * sizeof(float);
    const struct ls_row_order order = nodes_add(r->dgamma, part, b);
    struct ls_tensor dx, dy_there, x_there;
    void *scratch;

    nodes_add(r->dbeta, part, b);
    cr_assert_eq(ls_device_alloc(&scratch, m.device, LS_TAG_WORKSPACE,
                                 ls_norm_backward_bytes(m.device, b * part->rows, x->t.dim[2])),
                 LS_OK);
    const struct ls_norm_backward call = {
        .dx = sheet_result(&dx, &m, &r->dx),
        .add = p->add,
        .dgamma = nodes_mirror(&m, r->dgamma),
        .dbeta = p->rms ? NULL : nodes_mirror(&m, r->dbeta),
        .dy = mirror_input(&dy_there, &m, &dy->t),
        .x = mirror_input(&x_there, &m, &x->t),
        .mean = p->rms ? NULL : mirror_operand(&m, r->mean, rows),
        .rstd = mirror_operand(&m, r->rstd, rows),
        .gamma = mirror_operand(&m, p->gamma.t.data, sheet_row_bytes(x)),
        .order = &order,
        .scratch = scratch,
    };

    ls_norm_backward(&m.device->queue, &call);
    cr_assert_eq(ls_queue_finish(NULL, &m.device->queue), LS_OK, "%s", ls_message());
    mirror_read_back(&m);
    ls_device_free(m.device, scratch);
    ls_device_close(m.device);
}

static inline void run_part(struct result *whole, struct part_result *r, const struct problem *p,
                            const struct part *part, int threads)
{
    struct sheet x = part_of_sheet(&p->x, part, 5), dy = part_of_sheet(&p->dy, part, 0);
    const int64_t b = x.t.dim[0], s = part->rows, all = p->x.t.dim[1];

    r->y = sheet_create(x.t.type, b, s, x.t.dim[2], 2);
    r->dx = p->add ? part_of_sheet(&p->old, part, 7) : sheet_create(x.t.type, b, s, x.t.dim[2], 7);
    r->mean = malloc((size_t)(b * s) * sizeof *r->mean + 1);
    r->rstd = malloc((size_t)(b * s) * sizeof *r->rstd + 1);
    run_forward(r, p, &x, threads);
    run_backward(r, p, &dy, &x, part, threads);
    sheet_expect_untouched_around(&r->y, "y");
    sheet_expect_untouched_around(&r->dx, "dx");
    part_into_sheet(&whole->y, part, &r->y);
    part_into_sheet(&whole->dx, part, &r->dx);
    for (int64_t i = 0; i < b; i++)
        for (int64_t j = 0; j < part->runs.count; j++)
            for (int64_t k = 0; k < part->run[j].count; k++) {
                const int64_t to = i * all + part->run[j].position + k;
                const int64_t from = i * s + part->run[j].row + k;

                if (!p->rms) whole->mean[to] = r->mean[from];
                whole->rstd[to] = r->rstd[from];
            }
    free(r->mean);
    free(r->rstd);
    free(r->y.memory);
    free(r->dx.memory);
    free(x.memory);
    free(dy.memory);
}

static inline float *merged(struct nodes *n, int64_t rows)
{
    float *const sum = malloc((size_t)n->e * sizeof *sum);

    memcpy(sum, nodes_merge(n, rows), (size_t)n->e * sizeof *sum);
    nodes_destroy(n);
    return sum;
}

/* Of all parts of a cut. */
static inline struct result run(const struct problem *p, int cut, int parts, int threads)
{
    const int64_t b = p->x.t.dim[0], s = p->x.t.dim[1], e = p->x.t.dim[2];
    struct part_result r = {.dgamma = nodes_create(e), .dbeta = nodes_create(e)};
    struct result whole = {.y = sheet_create(p->x.t.type, b, s, e, 0),
                           .dx = sheet_create(p->x.t.type, b, s, e, 0),
                           .mean = calloc((size_t)(b * s), sizeof(float)),
                           .rstd = calloc((size_t)(b * s), sizeof(float))};

    need_family(open_device(1)->ops->norm, "norms");
    for (int i = 0; i < parts; i++) {
        struct part part;

        part_init(&part, s, cut, i, parts);
        run_part(&whole, &r, p, &part, threads);
    }
    whole.dgamma = merged(r.dgamma, b * s);
    whole.dbeta = merged(r.dbeta, b * s);
    return whole;
}

#endif
