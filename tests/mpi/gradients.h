/* A job and its gradients. Every rank draws the whole of d_o and dlse by seed; the exact gradients
 * are the oracle's, of the whole input, which the first rank makes for all. */
#ifndef TESTS_MPI_GRADIENTS_H
#define TESTS_MPI_GRADIENTS_H

#include "attention.h"

#include <math.h>

#include "reference/whole.h"

enum { DQ, DK, DV, GRADIENTS };

struct descent {
    struct job job;
    bool residual;               /* forward gives o_lo, backward takes it */
    struct ls_tensor whole_d_o;  /* [b, s_q, h, d_v] */
    struct ls_tensor whole_dlse; /* [b, h, s_q]; no data: there is none */
    double *exact[GRADIENTS];    /* as q, k and v */
    double *exact_dsinks;        /* [h] */
    double *exact_ddistance;     /* [h, distances], as is ddistance, of this rank */
    float *ddistance;
    double *exact_dbias;                  /* [b or 1, h or 1, s_q, s_k] of biases of pairs */
    struct ls_tensor dbias;               /* of this rank; no data: there are none */
    struct ls_tensor d_o, dlse, o_lo;     /* of this rank */
    struct ls_tensor gradient[GRADIENTS]; /* of this rank */
    float dsinks[64];                     /* [h] */
};

/* ---- the exact gradients */

static inline int64_t elements(const struct ls_tensor *t)
{
    return t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}

static inline struct ls_attention_saved descent_saved(const struct descent *g)
{
    return (struct ls_attention_saved){.q = &g->job.whole[0],
                                       .k = &g->job.whole[1],
                                       .v = &g->job.whole[2],
                                       .d_o = &g->whole_d_o,
                                       .o_lo = g->residual ? &g->o_lo : NULL,
                                       .dlse = g->whole_dlse.data ? &g->whole_dlse : NULL};
}

static inline void broadcast_exact(double *values, int64_t n)
{
    MPI_Bcast(values, (int)n, MPI_DOUBLE, 0, MPI_COMM_WORLD);
}

static inline int64_t descent_distance_count(const struct descent *g)
{
    return g->job.options.distance_bias ? g->job.shape.h * g->job.options.distances : 0;
}

static inline struct ls_tensor descent_distances(const struct descent *g, ls_dtype type, void *data)
{
    const int64_t dim[] = {g->job.shape.h, g->job.options.distances};

    return ls_tensor_view(data, type, 2, dim);
}

/* Biases of pairs of so many queries, of entries and heads that have their own. */
static inline struct ls_tensor descent_biases(const struct descent *g, ls_dtype type, int64_t s_q,
                                              void *data)
{
    const struct ls_attention_shape *s = &g->job.shape;
    const int64_t dim[] = {g->job.options.bias_per_entry ? s->b : 1,
                           g->job.options.bias_per_head ? s->h : 1, s_q, s->s_k};

    return ls_tensor_view(data, type, 4, dim);
}

/* NULL where there are none. */
static inline struct ls_tensor *biases_if_any(const struct descent *g, struct ls_tensor *dbias)
{
    return g->job.options.bias ? dbias : NULL;
}

/* Collective. The exact gradients of the whole problem. */
static inline void descent_solve(struct descent *g)
{
    const struct ls_attention_shape *s = &g->job.shape;
    const struct ls_attention_saved saved = descent_saved(g);
    struct ls_tensor exact[GRADIENTS], dsinks = ls_tensor_view(g->exact_dsinks, LS_F64, 1, &s->h);
    struct ls_tensor ddistance = descent_distances(g, LS_F64, g->exact_ddistance);
    struct ls_tensor dbias = descent_biases(g, LS_F64, s->s_q, g->exact_dbias);
    struct ls_problem problem;
    ls_status status = LS_OK;

    cr_assert_eq(ls_problem_init(&problem, s, &g->job.options, size, NULL), LS_OK);
    for (int i = 0; i < GRADIENTS; i++)
        exact[i] = ls_tensor_view(g->exact[i], LS_F64, 4, g->job.whole[i].dim);
    if (rank == 0)
        status = ls_reference_attention_backward(
            &(struct ls_attention_gradients){.dq = &exact[DQ],
                                             .dk = &exact[DK],
                                             .dv = &exact[DV],
                                             .dsinks = g->job.options.sinks ? &dsinks : NULL,
                                             .ddistance_bias =
                                                 g->job.options.distance_bias ? &ddistance : NULL,
                                             .dbias = biases_if_any(g, &dbias)},
            &saved, &problem.masks, &problem.scores);
    MPI_CHECK_OK(status);
    for (int i = 0; i < GRADIENTS; i++) broadcast_exact(g->exact[i], elements(&exact[i]));
    broadcast_exact(g->exact_dsinks, s->h);
    broadcast_exact(g->exact_ddistance, descent_distance_count(g));
    if (g->job.options.bias) broadcast_exact(g->exact_dbias, elements(&dbias));
    ls_problem_fini(&problem);
}

/* The same for a job that is for backward as well. */
static inline bool descent_take_method(struct descent *g, int i)
{
    g->job.options.backward = true;
    return job_take_method(&g->job, i, size);
}

/* Rows of this rank's own: an even cut of the queries, of the keys one that grows. */
static inline void job_take_even_rows(struct job *job)
{
    const int64_t q = job->shape.s_q, k = job->shape.s_k, n = (int64_t)size * (size + 1) / 2;

    job->options.has_rows = true;
    job->own_first[0] = q * rank / size;
    job->own_first[1] = job->own_first[2] = k * (rank * (rank + 1) / 2) / n;
    job->options.q_rows = q * (rank + 1) / size - job->own_first[0];
    job->options.k_rows = k * ((rank + 1) * (rank + 2) / 2) / n - job->own_first[1];
}

/* ---- the whole input */

static inline void descent_create_whole(struct descent *g, uint64_t seed)
{
    const struct ls_attention_shape *s = &g->job.shape;
    const int64_t dim[] = {s->b, s->s_q, s->h, ls_value_dim(s)};
    const int64_t n = dim[0] * dim[1] * dim[2] * dim[3];
    float *values = malloc((size_t)n * sizeof *values + 1);

    job_create_whole(&g->job, seed);
    tensor_create(&g->whole_d_o, s->type, dim, false);
    ls_random_normal(values, seed, 3, 0, n);
    ls_dtype_convert(g->whole_d_o.data, s->type, values, LS_F32, n);
    free(values);
    for (int i = 0; i < GRADIENTS; i++)
        g->exact[i] = calloc((size_t)elements(&g->job.whole[i]) + 1, sizeof(double));
    g->exact_dsinks = calloc((size_t)s->h, sizeof(double));
    g->exact_ddistance = calloc((size_t)descent_distance_count(g) + 1, sizeof(double));
    const struct ls_tensor biases = descent_biases(g, LS_F64, s->s_q, NULL);

    if (g->job.options.bias) g->exact_dbias = calloc((size_t)elements(&biases) + 1, sizeof(double));
}

static inline void descent_draw_dlse(struct descent *g, uint64_t seed)
{
    const struct ls_attention_shape *s = &g->job.shape;

    lse_create(&g->whole_dlse, s->b, s->h, s->s_q, false);
    ls_random_normal(g->whole_dlse.data, seed, 4, 0, s->b * s->h * s->s_q);
}

static inline void descent_destroy_whole(struct descent *g)
{
    for (int i = 0; i < GRADIENTS; i++) free(g->exact[i]);
    free(g->exact_dsinks);
    free(g->exact_ddistance);
    free(g->exact_dbias);
    free(g->whole_dlse.data);
    free(g->whole_d_o.data);
    job_destroy_whole(&g->job);
}

/* ---- the plan and this rank's parts */

/* Collective. */
static inline void descent_create_plan(struct descent *g, struct ls_comm *comm)
{
    const struct ls_attention_shape *s = &g->job.shape;
    const int64_t *dim[GRADIENTS];

    g->job.options.backward = true;
    job_create_plan(&g->job, comm);
    for (int i = 0; i < GRADIENTS; i++) {
        dim[i] = g->job.part[i].dim;
        tensor_create(&g->gradient[i], s->type, dim[i], g->job.strided);
    }
    g->ddistance = malloc((size_t)descent_distance_count(g) * sizeof *g->ddistance + 1);
    g->dbias = descent_biases(g, LS_F32, g->job.part[0].dim[1], NULL);
    if (g->job.options.bias) tensor_create(&g->dbias, LS_F32, g->dbias.dim, g->job.strided);
    tensor_create(&g->d_o, s->type, g->job.o.dim, g->job.strided);
    tensor_create(&g->o_lo, s->type, g->job.o.dim, g->job.strided);
    if (g->whole_dlse.data) lse_create(&g->dlse, s->b, s->h, g->job.part[0].dim[1], g->job.strided);
}

static inline void descent_destroy_plan(struct descent *g)
{
    for (int i = 0; i < GRADIENTS; i++) free(g->gradient[i].data);
    free(g->ddistance);
    free(g->dbias.data);
    free(g->d_o.data);
    free(g->o_lo.data);
    if (g->whole_dlse.data) free(g->dlse.data);
    job_destroy_plan(&g->job);
}

static inline void fill_with_ones(struct ls_tensor *t)
{
    if (elements(t) > 0)
        memset(t->data, 0xff, (size_t)(t->dim[0] * t->stride[0]) * (size_t)ls_dtype_size(t->type));
}

/* This rank's rows of the input, and gradients that are none yet. */
static inline void descent_load(struct descent *g)
{
    job_load(&g->job);
    take_part(&g->d_o, &g->job, 0, &g->whole_d_o);
    for (int i = 0; i < GRADIENTS; i++) fill_with_ones(&g->gradient[i]);
    if (g->dbias.data) fill_with_ones(&g->dbias);
    if (!g->whole_dlse.data) return;
    for (int64_t b = 0; b < g->dlse.dim[0]; b++)
        for (int64_t h = 0; h < g->dlse.dim[1]; h++)
            for (int64_t i = 0; i < g->dlse.dim[2]; i++)
                lse_of(&g->dlse, b, h)[i] =
                    lse_of(&g->whole_dlse, b, h)[job_position(&g->job, 0, i)];
}

static inline ls_status descent_forward(struct descent *g)
{
    return ls_attention_forward_residual(&g->job.o, g->residual ? &g->o_lo : NULL, &g->job.lse,
                                         g->job.plan, &g->job.part[0], &g->job.part[1],
                                         &g->job.part[2], g->job.execution);
}

static inline ls_status descent_backward(struct descent *g)
{
    const int64_t h = g->job.shape.h;
    struct ls_tensor dsinks = ls_tensor_view(g->dsinks, LS_F32, 1, &h);
    struct ls_tensor ddistance = descent_distances(g, LS_F32, g->ddistance);

    return ls_attention_backward(
        &(struct ls_attention_gradients){.dq = &g->gradient[DQ],
                                         .dk = &g->gradient[DK],
                                         .dv = &g->gradient[DV],
                                         .dsinks = g->job.options.sinks ? &dsinks : NULL,
                                         .ddistance_bias =
                                             g->job.options.distance_bias ? &ddistance : NULL,
                                         .dbias = biases_if_any(g, &g->dbias)},
        g->job.plan,
        &(struct ls_attention_saved){.q = &g->job.part[0],
                                     .k = &g->job.part[1],
                                     .v = &g->job.part[2],
                                     .o = &g->job.o,
                                     .lse = &g->job.lse,
                                     .d_o = &g->d_o,
                                     .o_lo = g->residual ? &g->o_lo : NULL,
                                     .dlse = g->whole_dlse.data ? &g->dlse : NULL},
        g->job.execution);
}

/* Collective. */
static inline void descent_run(struct descent *g)
{
    descent_load(g);
    MPI_CHECK_OK(descent_forward(g));
    MPI_CHECK_OK(descent_backward(g));
}

/* ---- the verdict */

static const char *const gradient_names[LS_GRADIENTS] = {
    "dq", "dk", "dv", "dsinks", "ddistance_bias", "dbias"};

/* Squares of the error and of the exact gradient, of this rank's rows. */
static inline void add_squares(double sums[2], const struct descent *g, int which)
{
    const struct ls_tensor *t = &g->gradient[which];
    const int64_t d = t->dim[3], s = g->job.whole[which].dim[1];
    double row[LS_MAX_HEAD_DIM];

    for (int64_t b = 0; b < t->dim[0]; b++) {
        for (int64_t i = 0; i < t->dim[1]; i++) {
            const int64_t at = job_position(&g->job, which, i);

            for (int64_t h = 0; h < t->dim[2]; h++) {
                const double *exact = g->exact[which] + ((b * s + at) * t->dim[2] + h) * d;

                ls_dtype_convert(row, LS_F64, row_of(t, b, i, h), t->type, d);
                for (int64_t e = 0; e < d; e++) {
                    sums[0] += (row[e] - exact[e]) * (row[e] - exact[e]);
                    sums[1] += exact[e] * exact[e];
                }
            }
        }
    }
}

/* Collective. The relative error of one gradient over all ranks; absolute where it is 0. */
static inline double descent_error(const struct descent *g, int which)
{
    double sums[2] = {0, 0};

    add_squares(sums, g, which);
    MPI_CHECK_OK(ls_comm_reduce(sums, g->job.comm, 2, LS_REDUCE_SUM));
    return sqrt(sums[1] > 0 ? sums[0] / sums[1] : sums[0]);
}

static inline double gradient_limit(ls_dtype type)
{
    return type == LS_F32 ? 4e-6 : type == LS_BF16 ? 4e-3 : 8e-4;
}

/* Collective. A gradient of all ranks, in double, on each of them; the caller frees its data. */
static inline struct ls_tensor descent_gather(const struct descent *g, int which)
{
    const struct ls_tensor *t = &g->gradient[which];
    struct ls_tensor whole;

    tensor_create(&whole, LS_F64, g->job.whole[which].dim, false);
    if (whole.data) memset(whole.data, 0, (size_t)elements(&whole) * sizeof(double));
    for (int64_t b = 0; b < t->dim[0]; b++)
        for (int64_t i = 0; i < t->dim[1]; i++)
            for (int64_t h = 0; h < t->dim[2]; h++)
                ls_dtype_convert(row_of(&whole, b, job_position(&g->job, which, i), h), LS_F64,
                                 row_of(t, b, i, h), t->type, t->dim[3]);
    MPI_Allreduce(MPI_IN_PLACE, whole.data, (int)elements(&whole), MPI_DOUBLE, MPI_SUM,
                  MPI_COMM_WORLD);
    return whole;
}

static inline float *bias_row(const struct ls_tensor *t, int64_t entry, int64_t head, int64_t i)
{
    return (float *)t->data + entry * t->stride[0] + head * t->stride[1] + i * t->stride[2];
}

/* Collective. dbias of all ranks on each of them; the caller frees its data. */
static inline struct ls_tensor gather_biases(const struct descent *g)
{
    struct ls_tensor whole = descent_biases(g, LS_F32, g->job.shape.s_q, NULL);
    const int64_t *dim = g->dbias.dim;

    if (!g->job.options.bias) return whole;
    whole.data = calloc((size_t)elements(&whole) + 1, sizeof(float));
    for (int64_t n = 0; n < dim[0] * dim[1] * dim[2]; n++) {
        const int64_t b = n / dim[2] / dim[1], h = n / dim[2] % dim[1], i = n % dim[2];

        memcpy(bias_row(&whole, b, h, job_position(&g->job, 0, i)), bias_row(&g->dbias, b, h, i),
               (size_t)dim[3] * sizeof(float));
    }
    MPI_Allreduce(MPI_IN_PLACE, whole.data, (int)elements(&whole), MPI_FLOAT, MPI_SUM,
                  MPI_COMM_WORLD);
    return whole;
}

/* Collective. The first rank holds the gradients against the oracle, whatever mask and scores. */
static inline void descent_judge(const struct descent *g, const char *what)
{
    struct ls_tensor whole[GRADIENTS];
    struct ls_tensor dsinks = ls_tensor_view((void *)g->dsinks, LS_F32, 1, &g->job.shape.h);
    struct ls_tensor ddistance = descent_distances(g, LS_F32, g->ddistance);
    struct ls_tensor dbias = gather_biases(g);
    struct ls_gradient_verdict verdict[LS_GRADIENTS] = {0};
    const struct ls_problem *problem = &g->job.plan->problem;
    const bool sinks = problem->scores.sinks;
    const struct ls_attention_saved saved = descent_saved(g);
    ls_status status = LS_OK;

    for (int i = 0; i < GRADIENTS; i++) whole[i] = descent_gather(g, i);
    if (rank == 0)
        status = ls_reference_judge_gradients(
            verdict,
            &(struct ls_attention_gradients){.dq = &whole[DQ],
                                             .dk = &whole[DK],
                                             .dv = &whole[DV],
                                             .dsinks = sinks ? &dsinks : NULL,
                                             .ddistance_bias =
                                                 problem->scores.distance_bias ? &ddistance : NULL,
                                             .dbias = biases_if_any(g, &dbias)},
            g->job.shape.type, &saved, &problem->masks, &problem->scores);
    MPI_CHECK_OK(status);
    for (int i = 0; i < LS_GRADIENTS; i++)
        MPI_CHECK(rank != 0 || verdict[i].ok, "%s: %s: %s: rel %.3g (limit %.3g), units %.3g", what,
                  job_text(&g->job), gradient_names[i], verdict[i].rel, verdict[i].rel_limit,
                  verdict[i].max_units);
    for (int i = 0; i < GRADIENTS; i++) free(whole[i].data);
    free(dbias.data);
}

/* What this rank has of the gradient of biases, as all ranks do. */
static inline void check_distances(const struct descent *g, double limit, const char *what)
{
    double diff2 = 0, norm2 = 0;

    for (int64_t i = 0; i < descent_distance_count(g); i++) {
        const double error = (double)g->ddistance[i] - g->exact_ddistance[i];

        diff2 += error * error;
        norm2 += g->exact_ddistance[i] * g->exact_ddistance[i];
    }
    MPI_CHECK(diff2 <= limit * limit * norm2, "%s: %s: ddistance_bias: %.3g of %.3g", what,
              job_text(&g->job), sqrt(diff2), sqrt(norm2));
}

/* Collective. Rows of this rank; what nobody sees is 0. */
static inline void check_biases(const struct descent *g, double limit, const char *what)
{
    const int64_t *dim = g->dbias.dim, s_q = g->job.shape.s_q;
    double sums[2] = {0, 0};

    for (int64_t n = 0; g->job.options.bias && n < dim[0] * dim[1] * dim[2]; n++) {
        const int64_t matrix = n / dim[2], i = n % dim[2];
        const float *row = bias_row(&g->dbias, matrix / dim[1], matrix % dim[1], i);
        const double *exact =
            g->exact_dbias + (matrix * s_q + job_position(&g->job, 0, i)) * dim[3];

        for (int64_t j = 0; j < dim[3]; j++) {
            const double error = (double)row[j] - exact[j];

            sums[0] +=
                exact[j] == 0 && error != 0 && fabs(error) > 1e-30 ? INFINITY : error * error;
            sums[1] += exact[j] * exact[j];
        }
    }
    MPI_CHECK_OK(ls_comm_reduce(sums, g->job.comm, 2, LS_REDUCE_SUM));
    MPI_CHECK(sums[0] <= limit * limit * sums[1], "%s: %s: dbias: %.3g of %.3g", what,
              job_text(&g->job), sqrt(sums[0]), sqrt(sums[1]));
}

/* Collective. The gradients keep the contract; `what` names the case. */
static inline void descent_check(const struct descent *g, const char *what)
{
    const double limit = gradient_limit(g->job.shape.type);

    for (int i = 0; i < GRADIENTS; i++) {
        const double error = descent_error(g, i);

        MPI_CHECK(error <= limit, "%s: %s: %s: rel %.3g (limit %.3g)", what, job_text(&g->job),
                  gradient_names[i], error, limit);
    }
    check_distances(g, limit, what);
    check_biases(g, limit, what);
}

/* Whether this rank's part of a gradient has the bits of one rank's; rows that this has not are 0.
 */
static inline bool same_gradient(const struct descent *g, const struct descent *alone, int which)
{
    const struct ls_tensor *t = &g->gradient[which], *of = &alone->gradient[which];

    for (int64_t b = 0; b < t->dim[0]; b++)
        for (int64_t i = 0; i < t->dim[1]; i++)
            for (int64_t h = 0; h < t->dim[2]; h++) {
                const int64_t at = job_position(&g->job, which, i);

                if (at < of->dim[1]
                        ? memcmp(row_of(t, b, i, h), row_of(of, b, at, h), row_bytes(t)) != 0
                        : !is_zero(row_of(t, b, i, h), row_bytes(t)))
                    return false;
            }
    return true;
}

/* The same of biases of pairs: rows and keys that it has not are 0. */
static inline bool same_biases(const struct descent *g, const struct descent *alone)
{
    const struct ls_tensor *t = &g->dbias, *of = &alone->dbias;

    if (!g->job.options.bias) return true;
    for (int64_t n = 0; n < t->dim[0] * t->dim[1] * t->dim[2]; n++) {
        const int64_t b = n / t->dim[2] / t->dim[1], h = n / t->dim[2] % t->dim[1];
        const int64_t at = job_position(&g->job, 0, n % t->dim[2]);
        const int64_t keys = at < of->dim[2] ? of->dim[3] : 0;
        const float *row = bias_row(t, b, h, n % t->dim[2]);

        if ((keys > 0 && memcmp(row, bias_row(of, b, h, at), (size_t)keys * sizeof *row) != 0) ||
            !is_zero((const char *)(row + keys), (size_t)(t->dim[3] - keys) * sizeof *row))
            return false;
    }
    return true;
}

#endif
