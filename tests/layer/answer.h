/* What a layer is to give, in double precision, and the verdict on what it gave. */
#ifndef TESTS_LAYER_ANSWER_H
#define TESTS_LAYER_ANSWER_H

#include "reference/layer.h"
#include "share.h"

/* A layer, by a name. */
struct form {
    const char *name;
    struct ls_layer_shape shape;
    struct ls_layer_options options;
};

/* ---- what is right */

/* Of the truth, or of the twin that rounds as t ranks do. */
struct answer {
    double *y, *dx, *gradient[PARAMETERS];
};

static inline struct ls_reference_parameters list_of(double *const p[PARAMETERS])
{
    return (struct ls_reference_parameters){p[0], p[1], p[2], p[3], p[4],  p[5],
                                            p[6], p[7], p[8], p[9], p[10], p[11]};
}

static inline double *draw_all(const struct form *form, int which, int64_t n)
{
    double *out = malloc((size_t)n * sizeof *out + 1);

    for (int64_t i = 0; i < n; i++) out[i] = drawn(&form->shape, &form->options, which, i);
    return out;
}

static inline ls_status solve(struct answer *out, const struct form *form, ls_dtype type, int t)
{
    const int64_t n = form->shape.b * form->shape.s * form->shape.e;
    struct ls_reference_layer layer = {form->shape, form->options, type, 11};
    struct ls_reference_layer_state *state = NULL;
    double *weight[PARAMETERS] = {NULL}, *x = draw_all(form, X, n), *dy = draw_all(form, DY, n);

    for (int i = 0; i < PARAMETERS; i++)
        if (ls_parameter_exists(i, &form->options))
            weight[i] = draw_all(form, i, count_of(&form->shape, &form->options, i));
    const struct ls_reference_parameters weights = list_of(weight);
    const struct ls_reference_parameters gradients = list_of(out->gradient);
    layer.options.tp = t;
    ls_status status = ls_reference_layer_forward(out->y, &state, &layer, &weights, x);
    if (status == LS_OK)
        status = ls_reference_layer_backward(out->dx, &gradients, state, &weights, dy);
    ls_reference_layer_state_destroy(state);
    for (int i = 0; i < PARAMETERS; i++) free(weight[i]);
    free(x);
    free(dy);
    return status;
}

static inline void share(double *values, int64_t n)
{
    MPI_Bcast(values, (int)n, MPI_DOUBLE, 0, MPI_COMM_WORLD);
}

/* Collective: the first rank finds it for all. */
static inline void create_answer(struct answer *out, const struct form *form, ls_dtype type, int t)
{
    const int64_t n = form->shape.b * form->shape.s * form->shape.e;
    int64_t count[PARAMETERS];

    out->y = calloc((size_t)n, sizeof *out->y);
    out->dx = calloc((size_t)n, sizeof *out->dx);
    for (int i = 0; i < PARAMETERS; i++) {
        const bool here = ls_parameter_exists(i, &form->options);

        count[i] = here ? count_of(&form->shape, &form->options, i) : 0;
        out->gradient[i] = here ? calloc((size_t)count[i], sizeof *out->gradient[i]) : NULL;
    }
    MPI_CHECK_OK(rank == 0 ? solve(out, form, type, t) : LS_OK);
    share(out->y, n);
    share(out->dx, n);
    for (int i = 0; i < PARAMETERS; i++) share(out->gradient[i], count[i]);
}

static inline void destroy_answer(struct answer *a)
{
    for (int i = 0; i < PARAMETERS; i++) free(a->gradient[i]);
    free(a->y);
    free(a->dx);
}

/* The truth, of type f64 and one rank, or a twin of t ranks; until the next of its kind is wanted.
 */
static inline const struct answer *find_answer(const struct form *form, ls_dtype type, int t)
{
    static struct found {
        struct answer answer;
        const struct form *of;
        int t;
    } kinds[2];
    struct found *found = &kinds[type != LS_F64];

    if (found->of == form && found->t == t) return &found->answer;
    destroy_answer(&found->answer);
    create_answer(&found->answer, form, type, t);
    found->of = form;
    found->t = t;
    return &found->answer;
}

/* ---- the verdict */

/* Squares of a tensor's error, of the twin's and of the truth. */
enum { ERROR, TWIN, TRUTH, SQUARES };

static inline void add_squares(double *sum, double got, double twin, double truth)
{
    sum[ERROR] += (got - truth) * (got - truth);
    sum[TWIN] += (twin - truth) * (twin - truth);
    sum[TRUTH] += truth * truth;
}

static inline void judge(double *sum, const struct form *form, const char *text, const char *name)
{
    MPI_CHECK_OK(ls_comm_reduce(sum, world, SQUARES, LS_REDUCE_SUM));
    const double error = sqrt(sum[ERROR] / sum[TRUTH]), twin = sqrt(sum[TWIN] / sum[TRUTH]);
    const double limit = form->shape.type == LS_F32 ? 2e-5 : fmin(1.2e-2, fmax(1e-6, 1.3 * twin));

    MPI_CHECK(error <= limit, "%s: %s: error %.3g, the twin's %.3g, limit %.3g", text, name, error,
              twin, limit);
}

static inline void judge_rows(const struct side *s, const struct form *form,
                              const struct ls_tensor *t, const double *twin, const double *truth,
                              const char *text, const char *name)
{
    double sum[SQUARES] = {0};
    char *host = host_copy(s, t);

    for (int64_t i = 0; i < numbers_of(t); i++) {
        const int64_t at = whole_row_index(s, i);

        add_squares(sum, ls_dtype_load(t->type, host + i * ls_dtype_size(t->type)), twin[at],
                    truth[at]);
    }
    judge(sum, form, text, name);
    free(host);
}

static inline void judge_gradient(const struct side *s, const struct form *form, int which,
                                  const struct answer *twin, const struct answer *truth,
                                  const char *text)
{
    double sum[SQUARES] = {0};
    char *host = host_copy(s, &s->gradient[which]);

    for (int64_t i = 0; i < numbers_of(&s->gradient[which]); i++) {
        const int64_t at = whole_index(&s->shape, &s->options, which, s->plan->grid.tensor, i);

        add_squares(sum, (double)((float *)host)[i] - 1, twin->gradient[which][at],
                    truth->gradient[which][at]);
    }
    judge(sum, form, text, ls_parameter_name(which));
    free(host);
}

#endif
