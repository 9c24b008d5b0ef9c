/* What a layer is to give, in double precision, and the verdict on what a rank's side of it gave.
 */
#ifndef TESTS_LAYER_ANSWER_H
#define TESTS_LAYER_ANSWER_H

#include "reference/layer.h"
#include "side.h"

/* ---- what is right */

static inline struct ls_reference_parameters parameters_of(const struct numbers *n)
{
    double *const *p = n->of;

    return (struct ls_reference_parameters){p[0], p[1], p[2], p[3], p[4],  p[5],
                                            p[6], p[7], p[8], p[9], p[10], p[11]};
}

static inline ls_status solve(const struct numbers *out, const struct form *form, ls_dtype type,
                              int t)
{
    struct ls_reference_layer layer = {form->shape, form->options, type, SEED};
    const struct numbers *given = find_given(form);
    const struct ls_reference_parameters weights = parameters_of(given);
    const struct ls_reference_parameters gradients = parameters_of(out);
    struct ls_reference_layer_state *state = NULL;

    layer.options.tp = t;
    ls_status status =
        ls_reference_layer_forward(out->of[Y], &state, &layer, &weights, given->of[X]);
    if (status == LS_OK)
        status =
            ls_reference_layer_backward(out->of[DX], &gradients, state, &weights, given->of[DY]);
    ls_reference_layer_state_destroy(state);
    return status;
}

/* Collective: the first rank finds it for all. type f64: the truth; else what t tensor-parallel
 * ranks round. */
static inline void create_answer(struct numbers *out, const struct form *form, ls_dtype type, int t)
{
    for (int i = 0; i < TENSORS; i++)
        out->of[i] =
            has_tensor(form, i) ? calloc((size_t)count_of(form, i), sizeof *out->of[i]) : NULL;
    MPI_CHECK_OK(rank == 0 ? solve(out, form, type, t) : LS_OK);
    for (int i = 0; i < TENSORS; i++)
        if (out->of[i])
            MPI_Bcast(out->of[i], (int)count_of(form, i), MPI_DOUBLE, 0, MPI_COMM_WORLD);
}

/* The truth, of type f64 and one rank, or a twin of t ranks; until the next of its kind is wanted.
 */
static inline const struct numbers *find_answer(const struct form *form, ls_dtype type, int t)
{
    static struct {
        const struct form *of;
        int t;
        struct numbers answer;
    } kinds[2], *found;

    found = &kinds[type != LS_F64];
    if (found->of == form && found->t == t) return &found->answer;
    free_numbers(&found->answer);
    create_answer(&found->answer, form, type, t);
    found->of = form;
    found->t = t;
    return &found->answer;
}

/* ---- the verdict */

/* Squares of a tensor's error, of the twin's and of the truth. */
enum { ERROR, TWIN, TRUTH, SQUARES };

static inline void measure(double sum[SQUARES], const struct side *s, int which,
                           const struct numbers *twin, const struct numbers *truth)
{
    const double start = which < PARAMETERS; /* clear_gradients */
    double *got = read_numbers(s->device, &s->got[which]);

    for (int64_t i = 0; i < numbers_of(&s->got[which]); i++) {
        const int64_t at = whole_index(s, which, i);
        const double right = truth->of[which][at], error = got[i] - start - right;
        const double of_twin = twin->of[which][at] - right;

        sum[ERROR] += error * error;
        sum[TWIN] += of_twin * of_twin;
        sum[TRUTH] += right * right;
    }
    free(got);
}

/* Collective: the error of all ranks' shares of a tensor, which has to be within its limit. The
 * first rank alone has been a grid of one. */
static inline double judge(const struct side *s, int which, const struct numbers *twin,
                           const struct numbers *truth)
{
    double sum[SQUARES] = {0};

    if (s->comm == world || rank == 0) measure(sum, s, which, twin, truth);
    MPI_CHECK_OK(ls_comm_reduce(sum, world, SQUARES, LS_REDUCE_SUM));
    const double error = sqrt(sum[ERROR] / sum[TRUTH]), of_twin = sqrt(sum[TWIN] / sum[TRUTH]);
    const double limit =
        s->form->shape.type == LS_F32 ? 2e-5 : fmin(1.2e-2, fmax(1e-6, 1.3 * of_twin));

    MPI_CHECK(error <= limit, "%s: %s: error %.3g, the twin's %.3g, limit %.3g", text_of(s),
              name_of(which), error, of_twin, limit);
    return error;
}

/* Collective. The squares of errors of all that backward gives, together: that of a vector of a few
 * numbers is half chance. */
static inline double judge_tensors(const struct side *s)
{
    const struct form *form = s->form;
    const struct numbers *truth = find_answer(form, LS_F64, 1), *twin = truth;
    double sum = 0;

    if (form->shape.type == LS_BF16) twin = find_answer(form, LS_BF16, s->options.tp);
    for (int i = 0; i < TENSORS; i++) {
        const double error = has_tensor(form, i) ? judge(s, i, twin, truth) : 0;

        if (i != Y) sum += error * error;
    }
    return sum;
}

/* Collective: the first rank computes the whole. */
static inline double judge_alone(const struct form *form)
{
    struct side s = side_of(form, size, false);

    s.options.tp = 1;
    MPI_CHECK_OK(ls_comm_create_self(&s.comm));
    open_side(&s);
    MPI_CHECK_OK(rank == 0 ? run_step(&s) : LS_OK);
    const double error = judge_tensors(&s);
    close_side(&s);
    ls_comm_destroy(s.comm);
    return error;
}

/* Nor does a grid err more than one rank does, by more than roundings of parts. */
static inline void judge_side(const struct side *s)
{
    static const struct form *judged;
    static double alone;
    const double most = s->form->shape.type == LS_F32 ? 1.2 : 1.3;

    if (size > 1 && judged != s->form) {
        alone = judge_alone(s->form);
        judged = s->form;
    }
    const double error = judge_tensors(s);
    if (size == 1) return;
    MPI_CHECK(error <= most * most * alone, "%s: errors are %.3g times those of one rank",
              text_of(s), sqrt(error / alone));
}

#endif
