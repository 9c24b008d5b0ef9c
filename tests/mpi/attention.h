/* One attention over several ranks, as its tests want it. Every rank draws the whole input by seed
 * and global index, hands over its rows by the plan's layout, and judges its own rows of the result
 * by the oracle over the whole input; the verdict is everybody's. */
#ifndef TESTS_MPI_ATTENTION_H
#define TESTS_MPI_ATTENTION_H

#include "../tensor/quantized.h"
#include "attention/methods/table.h"
#include "harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/plan.h"
#include "base/random.h"
#include "reference/contract.h"
#include "tensor/dtype.h"

struct job {
    struct ls_attention_shape shape;
    struct ls_attention_options options;
    const struct ls_attention_execution *execution; /* of every one; NULL: what the plan has */
    bool strided; /* parts lie as [b, h, s, d], lse with gaps between its rows */
    int sample;   /* one row in so many is judged, besides the edges of leaves; 0: all */
    struct ls_tensor whole[3];       /* q, k, v: [b, s, h, d] of all ranks, contiguous */
    const float *mean;               /* [b, h_kv, d] taken out of quantized keys; NULL: nothing */
    struct ls_reference_row **exact; /* [b, h, s_q], if remembered: NULL or the oracle's row */
    struct ls_comm *comm;
    struct ls_attention_plan *plan;
    int64_t own_first[3];             /* where this rank's own rows begin, if options.has_rows */
    struct ls_tensor part[3], o, lse; /* of this rank */
};

/* The smallest part of p ranks that a node can be and several fill. */
static inline int smallest_node(int p)
{
    int n = 2;

    while (n < p && p % n != 0) n++;
    return p > 1 ? n : 1;
}

/* Asks for method i of the table; false, and leaves the choice as it was, if that cannot do the job
 * on p ranks. All ranks share a node here, so tests choose its size. */
static inline bool job_take_method(struct job *job, int i, int p)
{
    const struct ls_method *method = ls_method_at(i);
    struct ls_problem problem = {.p = p};

    if (job->options.node_size == 0) job->options.node_size = smallest_node(p);
    const bool fits =
        ls_problem_init(&problem, &job->shape, &job->options, p, method->layout) == LS_OK &&
        !ls_method_misfit(method, &problem);

    ls_problem_fini(&problem);
    if (fits) job->options.method = method->name;
    return fits;
}

/* ---- tensors of a test; an empty one has no memory at all */

static inline void *row_of(const struct ls_tensor *t, int64_t b, int64_t row, int64_t head)
{
    return (char *)t->data +
           (b * t->stride[0] + row * t->stride[1] + head * t->stride[2]) * ls_dtype_size(t->type);
}

static inline size_t row_bytes(const struct ls_tensor *t)
{
    return (size_t)t->dim[3] * (size_t)ls_dtype_size(t->type);
}

static inline void tensor_create(struct ls_tensor *out, ls_dtype type, const int64_t dim[4],
                                 bool heads_first)
{
    const size_t bytes = (size_t)(dim[0] * dim[1] * dim[2] * dim[3]) * (size_t)ls_dtype_size(type);

    *out = ls_tensor_view(bytes > 0 ? malloc(bytes) : NULL, type, 4, dim);
    if (!heads_first) return;
    out->stride[1] = dim[3];
    out->stride[2] = dim[1] * dim[3];
}

static inline void lse_create(struct ls_tensor *out, int64_t b, int64_t h, int64_t rows, bool gaps)
{
    const int64_t dim[] = {b, h, rows}, stride = rows + (gaps ? 5 : 0);

    *out = ls_tensor_view(rows > 0 ? malloc((size_t)(b * h * stride) * sizeof(float)) : NULL,
                          LS_F32, 3, dim);
    out->stride[1] = stride;
    out->stride[0] = h * stride;
}

static inline float *lse_of(const struct ls_tensor *lse, int64_t b, int64_t head)
{
    return (float *)lse->data + b * lse->stride[0] + head * lse->stride[1];
}

/* ---- the whole input */

/* Standard normal numbers, the very ones of `longspan attend --random`. */
static inline void job_draw(struct job *job, uint64_t seed)
{
    for (int i = 0; i < 3; i++) {
        struct ls_tensor *t = &job->whole[i];
        const int64_t n = t->dim[0] * t->stride[0];

        if (is_quantized(t)) {
            draw_quantized(t, seed, (uint32_t)i);
            continue;
        }
        float *values = malloc((size_t)n * sizeof(float) + 1);

        ls_random_normal(values, seed, (uint32_t)i, 0, n);
        ls_dtype_convert(t->data, t->type, values, LS_F32, n);
        free(values);
    }
}

/* Every element of q (0), k (1) or v (2) becomes factor x itself + addend. */
static inline void job_transform(struct job *job, int which, double factor, double addend)
{
    struct ls_tensor *t = &job->whole[which];
    const int64_t n = t->dim[0] * t->stride[0];

    for (int64_t i = 0; i < n; i++) {
        void *element = (char *)t->data + i * ls_dtype_size(t->type);

        ls_dtype_store(t->type, element, factor * ls_dtype_load(t->type, element) + addend);
    }
}

/* Elements of a row of a head of q (0), k (1) or v (2), and their type. */
static inline int64_t job_dim(const struct job *job, int which)
{
    const struct ls_attention_shape *s = &job->shape;

    return which == 0 ? s->d : which == 1 ? ls_key_width(s) : ls_value_width(s);
}

static inline ls_dtype job_type(const struct job *job, int which)
{
    return which == 0 ? job->shape.type : ls_key_type(&job->shape);
}

static inline void job_create_whole(struct job *job, uint64_t seed)
{
    const struct ls_attention_shape *s = &job->shape;

    for (int i = 0; i < 3; i++) {
        const int64_t dim[] = {s->b, i == 0 ? s->s_q : s->s_k, i == 0 ? s->h : s->h_kv,
                               job_dim(job, i)};

        tensor_create(&job->whole[i], job_type(job, i), dim, false);
    }
    job_draw(job, seed);
}

/* Many ways will be held to one whole input, mask and scores: the oracle's rows are made once. */
static inline void job_remember_exact(struct job *job)
{
    const struct ls_attention_shape *s = &job->shape;

    job->exact = calloc((size_t)(s->b * s->h * s->s_q) + 1, sizeof *job->exact);
}

static inline void job_destroy_whole(struct job *job)
{
    const struct ls_attention_shape *s = &job->shape;

    for (int64_t i = 0; job->exact && i < s->b * s->h * s->s_q; i++) free(job->exact[i]);
    free(job->exact);
    for (int i = 0; i < 3; i++) free(job->whole[i].data);
}

/* ---- the plan and this rank's parts */

static inline struct ls_layout job_layout(const struct job *job, int which)
{
    return which == 0 ? ls_attention_plan_query_layout(job->plan)
                      : ls_attention_plan_key_layout(job->plan);
}

/* Rank in the job's own communicator. */
static inline int job_rank(const struct job *job)
{
    return ls_comm_rank(job->comm);
}

/* Rows of q, k or v that this rank has, and where in the sequence they stand. */
static inline int64_t job_rows(const struct job *job, int which)
{
    const struct ls_layout layout = job_layout(job, which);

    if (job->options.has_rows) return which == 0 ? job->options.q_rows : job->options.k_rows;
    return ls_layout_part_rows(&layout, job_rank(job));
}

static inline int64_t job_position(const struct job *job, int which, int64_t row)
{
    const struct ls_layout layout = job_layout(job, which);

    if (job->options.has_rows) return job->own_first[which] + row;
    return ls_layout_position(&layout, job_rank(job), row);
}

/* Collective. A plan and room for this rank's parts; job->whole must stand. */
static inline void job_create_plan(struct job *job, struct ls_comm *comm)
{
    const struct ls_attention_shape *s = &job->shape;

    job->comm = comm;
    MPI_CHECK_OK(ls_attention_plan_create(&job->plan, comm, s, &job->options));
    for (int i = 0; i < 3; i++) {
        const int64_t rows = job_rows(job, i);
        const int64_t dim[] = {s->b, rows, i == 0 ? s->h : s->h_kv, job_dim(job, i)};
        const int64_t o_dim[] = {s->b, rows, s->h, ls_value_dim(s)};

        tensor_create(&job->part[i], job_type(job, i), dim, job->strided);
        if (i > 0) continue;
        tensor_create(&job->o, s->type, o_dim, job->strided);
        lse_create(&job->lse, s->b, s->h, rows, job->strided);
    }
}

static inline void job_destroy_plan(struct job *job)
{
    for (int i = 0; i < 3; i++) free(job->part[i].data);
    free(job->o.data);
    free(job->lse.data);
    ls_attention_plan_destroy(job->plan);
}

static inline void job_create(struct job *job, struct ls_comm *comm, uint64_t seed)
{
    job_create_whole(job, seed);
    job_create_plan(job, comm);
}

static inline void job_destroy(struct job *job)
{
    job_destroy_plan(job);
    job_destroy_whole(job);
}

/* ---- execution */

/* part = this rank's rows of a tensor like q (which: 0), k or v. */
static inline void take_part(struct ls_tensor *part, const struct job *job, int which,
                             const struct ls_tensor *whole)
{
    for (int64_t b = 0; b < part->dim[0]; b++)
        for (int64_t row = 0; row < part->dim[1]; row++)
            for (int64_t head = 0; head < part->dim[2]; head++)
                memcpy(row_of(part, b, row, head),
                       row_of(whole, b, job_position(job, which, row), head), row_bytes(whole));
}

/* This rank's rows of the whole input, and results that are no results yet: all bits set. */
static inline void job_load(struct job *job)
{
    for (int i = 0; i < 3; i++) take_part(&job->part[i], job, i, &job->whole[i]);
    if (job->o.dim[1] == 0) return;
    memset(job->o.data, 0xff,
           (size_t)(job->o.dim[0] * job->o.stride[0]) * (size_t)ls_dtype_size(job->o.type));
    memset(job->lse.data, 0xff, (size_t)(job->lse.dim[0] * job->lse.stride[0]) * sizeof(float));
}

static inline ls_status job_forward(struct job *job)
{
    struct ls_attention_execution with_mean = LS_ATTENTION_EXECUTION;

    if (job->execution) with_mean = *job->execution;
    with_mean.key_mean = job->mean;
    return ls_attention_forward(&job->o, &job->lse, job->plan, &job->part[0], &job->part[1],
                                &job->part[2], job->mean ? &with_mean : job->execution);
}

/* Collective. */
static inline void job_run(struct job *job)
{
    job_load(job);
    MPI_CHECK_OK(job_forward(job));
}

/* What the job is, for messages. */
static inline const char *job_text(const struct job *job)
{
    static char text[220];
    const struct ls_attention_shape *s = &job->shape;

    snprintf(text, sizeof(text),
             "b %ld h %ld/%ld s %ld/%ld d %ld/%ld %s/%s%s%s%s%s, %s, %s, %d threads", (long)s->b,
             (long)s->h, (long)s->h_kv, (long)s->s_q, (long)s->s_k, (long)s->d,
             (long)ls_value_dim(s), ls_dtype_name(s->type), ls_dtype_name(ls_key_type(s)),
             job->mean ? " mean" : "", job->options.causal ? " causal" : "",
             job->options.strict ? " strict" : "", job->options.has_rows ? " own rows" : "",
             job->options.method ? job->options.method : "auto",
             ls_layout_name(job->options.layout), job->options.threads);
    return text;
}

/* ---- the verdict */

/* out [s, d] = one head of t [b, s, h, d], of which the mean [b, h, d] was taken out, or NULL. */
static inline void widen_head(double *out, const struct ls_tensor *t, int64_t b, int64_t head,
                              const float *mean)
{
    const int64_t d = quantized_dim(t);

    for (int64_t i = 0; i < t->dim[1]; i++)
        widen_row(out + i * d, t, row_of(t, b, i, head),
                  mean ? mean + (b * t->dim[2] + head) * d : NULL);
}

static inline bool is_judged(const struct job *job, int64_t position)
{
    const int64_t in_leaf = position % LS_LEAF;

    return job->sample == 0 || in_leaf == 0 || in_leaf == LS_LEAF - 1 ||
           position == job->shape.s_q - 1 ||
           ls_random_below(0, 0, (uint64_t)position, (uint64_t)job->sample) == 0;
}

/* The oracle's row of a query; k [s_k, d], v [s_k, d_v]. `here` has room for it if it is not
 * remembered. */
static inline const struct ls_reference_row *exact_row(struct ls_reference_row *here,
                                                       const struct job *job,
                                                       const struct ls_reference_query *query,
                                                       const double *k, const double *v)
{
    const struct ls_attention_shape *s = &job->shape;
    const int64_t at = (query->batch * s->h + query->head) * s->s_q + query->position;

    if (job->exact && job->exact[at]) return job->exact[at];
    if (job->exact) here = job->exact[at] = malloc(sizeof *here);
    ls_reference_row_init(here);
    ls_reference_row_add(here, query, k, v, 0, s->s_k, (int)s->d, (int)ls_value_dim(s));
    ls_reference_row_add_sink(here, query, (int)ls_value_dim(s));
    return here;
}

/* This rank's rows of one head; k [s_k, d], v [s_k, d_v]. */
static inline void judge_head(struct ls_errors *errors, const struct job *job, int64_t b,
                              int64_t head, const double *k, const double *v)
{
    const struct ls_attention_shape *s = &job->shape;
    const struct ls_problem *problem = &job->plan->problem;
    const int64_t d_v = ls_value_dim(s);
    double q[LS_MAX_HEAD_DIM], o[LS_MAX_HEAD_DIM];
    struct ls_reference_row here;

    for (int64_t row = 0; row < job->o.dim[1]; row++) {
        const int64_t position = job_position(job, 0, row);
        const struct ls_reference_query query = {
            q, ls_masks_of(&problem->masks, b, head), &problem->scores, b, head, position};

        if (!is_judged(job, position)) continue;
        ls_dtype_convert(q, LS_F64, row_of(&job->whole[0], b, position, head), s->type, s->d);
        ls_dtype_convert(o, LS_F64, row_of(&job->o, b, row, head), s->type, d_v);
        ls_errors_add_row(errors, s->type, o, lse_of(&job->lse, b, head)[row],
                          exact_row(&here, job, &query, k, v), (int)s->d, (int)d_v,
                          (const int64_t[]){b, position, head});
    }
}

/* Collective: of the rows of all ranks of the job's communicator. */
static inline struct ls_errors job_errors(const struct job *job)
{
    const struct ls_attention_shape *s = &job->shape;
    const int p = ls_comm_size(job->comm);
    double *k = malloc((size_t)(s->s_k * (s->d + ls_value_dim(s)) + 1) * sizeof(double));
    double *v = k + s->s_k * s->d;
    struct ls_errors mine, all, *each = malloc((size_t)p * sizeof(*each));

    ls_errors_init(&mine);
    for (int64_t b = 0; b < s->b; b++) {
        for (int64_t head = 0; head < s->h; head++) {
            widen_head(k, &job->whole[1], b, head / (s->h / s->h_kv), job->mean);
            widen_head(v, &job->whole[2], b, head / (s->h / s->h_kv), NULL);
            judge_head(&mine, job, b, head, k, v);
        }
    }
    MPI_CHECK_OK(ls_comm_gather(each, job->comm, &mine, sizeof(mine)));
    ls_errors_init(&all);
    for (int r = 0; r < p; r++) ls_errors_merge(&all, &each[r]);
    free(each);
    free(k);
    return all;
}

/* Collective. The result, if it has rows, keeps the contract; `what` names the case. */
static inline void job_check(const struct job *job, const char *what)
{
    const struct ls_errors errors = job_errors(job);
    const int64_t *at = errors.worst;
    struct ls_verdict v;

    ls_errors_judge(&v, &errors, job->shape.type, 1);
    MPI_CHECK(v.ok || job->shape.s_q == 0,
              "%s: %s: rel %.3g (limit %.3g), units %.3g at batch %ld, position %ld, head %ld, "
              "lse %.3g (limit %.3g)",
              what, job_text(job), v.rel_o, v.rel_o_limit, v.max_units, (long)at[0], (long)at[1],
              (long)at[2], v.max_lse, v.lse_limit);
}

/* Whether a row of two results, each by its local number, has the same bits. */
static inline bool rows_equal(const struct job *a, int64_t row_a, const struct job *b,
                              int64_t row_b)
{
    for (int64_t i = 0; i < a->shape.b; i++) {
        for (int64_t head = 0; head < a->shape.h; head++) {
            if (memcmp(row_of(&a->o, i, row_a, head), row_of(&b->o, i, row_b, head),
                       row_bytes(&a->o)) != 0 ||
                memcmp(lse_of(&a->lse, i, head) + row_a, lse_of(&b->lse, i, head) + row_b,
                       sizeof(float)) != 0)
                return false;
        }
    }
    return true;
}

/* Creates and runs the job on this rank alone, with two threads; its input stays. */
static inline void job_run_alone(struct job *job, struct ls_comm *self, uint64_t seed)
{
    job->options.method = "local";
    job->options.layout = LS_LAYOUT_CONTIGUOUS;
    job->options.threads = 2;
    job_create(job, self, seed);
    job_run(job);
}

static inline bool is_zero(const char *bytes, size_t n)
{
    while (n > 0 && bytes[n - 1] == 0) n--;
    return n == 0;
}

/* Whether a row is that of a query that sees nothing, not even a sink. */
static inline bool row_is_empty(const struct job *job, int64_t row)
{
    for (int64_t i = 0; i < job->shape.b; i++)
        for (int64_t head = 0; head < job->shape.h; head++)
            if (!is_zero(row_of(&job->o, i, row, head), row_bytes(&job->o)) ||
                lse_of(&job->lse, i, head)[row] != -INFINITY)
                return false;
    return true;
}

/* Whether this rank's rows have the bits of one rank's; those that this has not are empty. */
static inline bool same_bits(const struct job *job, const struct job *alone)
{
    for (int64_t row = 0; row < job->o.dim[1]; row++) {
        const int64_t position = job_position(job, 0, row);

        if (position < alone->shape.s_q ? !rows_equal(job, row, alone, position)
                                        : !row_is_empty(job, row))
            return false;
    }
    return true;
}

/* First row of this rank's that differs in its bits between two results of one layout, or -1. */
static inline int64_t first_difference(const struct job *a, const struct job *b)
{
    for (int64_t row = 0; row < a->o.dim[1]; row++)
        if (!rows_equal(a, row, b, row)) return row;
    return -1;
}

#endif
