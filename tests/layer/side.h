/* One rank's side of a layer: a plan, a state and this rank's share of all tensors, on any device.
 * Between side_of and open_side a test may choose communicator, device and options. */
#ifndef TESTS_LAYER_SIDE_H
#define TESTS_LAYER_SIDE_H

#include "layer/as_model.h"
#include "whole.h"

enum { SEED = 11 };

struct side {
    const struct form *form;
    struct ls_layer_options options; /* of the form, and of the grid */
    struct ls_comm *comm;
    struct ls_device *device;
    struct ls_layer_plan *plan;
    struct ls_layer_state *state;
    struct ls_tensor given[TENSORS], got[TENSORS];
    struct ls_layer_parameters weights, gradients;
    size_t before; /* live bytes */
};

/* All ranks, t of them tensor-parallel. */
static inline struct side side_of(const struct form *form, int t, bool sp)
{
    struct side s = {.form = form, .options = form->options, .comm = world};

    s.options.size = sizeof s.options;
    s.options.tp = t;
    s.options.cp = size / t;
    s.options.sp = sp;
    return s;
}

static inline const char *text_of(const struct side *s)
{
    static char text[160];
    const struct ls_layer_options *o = &s->options;

    snprintf(text, sizeof text, "%s, t %d c %d%s, %s %s, recompute %s", s->form->name, o->tp, o->cp,
             o->sp ? " sp" : "", ls_layout_name(o->layout), o->method ? o->method : "auto",
             o->recompute ? o->recompute : "none");
    return text;
}

/* ---- where number i of this rank's share of a tensor is in the whole */

static inline int64_t parameter_index(const struct side *s, int which, int64_t i)
{
    const struct ls_parameter_part part =
        ls_parameter_part(which, &s->form->shape, &s->options, s->options.tp, s->plan->grid.tensor);
    const int64_t column = part.columns.first + i % part.columns.count;
    int64_t row = i / part.columns.count;
    int run = 0;

    while (row >= part.rows[run].count) row -= part.rows[run++].count;
    return (part.rows[run].first + row) * part.dim[1] + column;
}

static inline int64_t row_index(const struct side *s, int64_t i)
{
    const int64_t rows = ls_layer_rows(s->plan), e = s->form->shape.e;

    return (i / e / rows * s->form->shape.s + ls_layer_position(s->plan, i / e % rows)) * e + i % e;
}

static inline int64_t whole_index(const struct side *s, int which, int64_t i)
{
    return which < PARAMETERS ? parameter_index(s, which, i) : row_index(s, i);
}

/* ---- its tensors */

/* Gradients have something already, to which is added. */
static inline void clear_gradients(struct side *s)
{
    for (int i = 0; i < PARAMETERS; i++) write_everywhere(s->device, &s->got[i], 1);
}

static inline void fill(const struct side *s, int which)
{
    const double *given = find_given(s->form)->of[which];
    const int64_t n = numbers_of(&s->given[which]);
    double *share = malloc((size_t)n * sizeof *share + 1);

    for (int64_t i = 0; i < n; i++) share[i] = given[whole_index(s, which, i)];
    write_numbers(s->device, &s->given[which], share);
    free(share);
}

static inline void open_tensor(struct side *s, int which)
{
    const ls_dtype type = s->form->shape.type;
    int64_t dim[3] = {s->form->shape.b, ls_layer_rows(s->plan), s->form->shape.e};
    int ndim = 3;

    if (which < PARAMETERS) {
        const struct ls_parameter_part part = ls_parameter_part(
            which, &s->form->shape, &s->options, s->options.tp, s->plan->grid.tensor);

        ndim = ls_parameter_share(dim, &part);
        *ls_parameter_in(&s->weights, which) = &s->given[which];
        *ls_parameter_in(&s->gradients, which) = &s->got[which];
    }
    s->given[which] = create_tensor(s->device, type, ndim, dim);
    s->got[which] = create_tensor(s->device, which < PARAMETERS ? LS_F32 : type, ndim, dim);
    fill(s, which);
    write_everywhere(s->device, &s->got[which], NAN);
}

/* ---- its life */

/* Collective. Whether the method of attention fits. */
static inline bool try_to_open(struct side *s)
{
    if (!s->device) MPI_CHECK_OK(ls_device_open(&s->device, "cpu", 0, 1 + rank % 2));
    s->before = ls_ledger_live_total(ls_device_ledger(s->device));
    s->options.device = s->device;
    const ls_status status = ls_layer_plan_create(&s->plan, s->comm, &s->form->shape, &s->options);
    MPI_CHECK(status == LS_OK || status == LS_EFIT, "%s: %s", text_of(s), ls_message());
    if (status == LS_EFIT) {
        ls_device_close(s->device);
        return false;
    }
    MPI_CHECK_OK(ls_layer_state_create(&s->state, s->plan, NULL));
    for (int i = 0; i < TENSORS; i++)
        if (has_tensor(s->form, i)) open_tensor(s, i);
    clear_gradients(s);
    return true;
}

static inline void open_side(struct side *s)
{
    MPI_CHECK(try_to_open(s), "%s: %s", text_of(s), ls_message());
}

static inline ls_status run_forward(struct side *s, uint64_t seed)
{
    return ls_layer_forward(&s->got[Y], s->plan, s->state, &s->weights, &s->given[X], seed);
}

static inline ls_status run_backward(struct side *s)
{
    return ls_layer_backward(&s->got[DX], &s->gradients, s->plan, s->state, &s->weights,
                             &s->given[DY]);
}

static inline ls_status run_step(struct side *s)
{
    LS_TRY(run_forward(s, SEED));
    return run_backward(s);
}

static inline void run_side(struct side *s)
{
    MPI_CHECK_OK(run_step(s));
}

/* The last that was opened first: devices of one kind count together. The device is closed, also
 * that of the caller. */
static inline void close_side(struct side *s)
{
    for (int i = 0; i < TENSORS; i++) {
        ls_device_free(s->device, s->given[i].data);
        ls_device_free(s->device, s->got[i].data);
    }
    ls_layer_state_destroy(s->state);
    ls_layer_plan_destroy(s->plan);
    MPI_CHECK(ls_ledger_live_total(ls_device_ledger(s->device)) == s->before, "%s: all is freed",
              text_of(s));
    ls_device_close(s->device);
}

/* What a step sends; of a fused core but for what attention does. */
static inline void check_sent(const struct side *s)
{
    const struct ls_layer_plan *plan = s->plan;
    const struct ls_model_shape model = ls_layer_as_model(&plan->shape, &plan->options);
    const struct ls_model_run run = ls_layer_plan_as_run(plan, plan->pieces);
    const struct ls_layer_place place = ls_layer_plan_place(plan);
    const struct ls_layer_traffic planned = ls_layer_traffic_of(&model, &run, &place);
    const bool fused = plan->options.core == LS_CORE_FUSED;
    const int64_t bytes =
        planned.rows + planned.weights + planned.vectors + (fused ? 0 : planned.keys);
    const int64_t sent = ls_layer_bytes_sent(plan) - plan->attention_bytes;

    MPI_CHECK(sent == bytes, "%s: sent %lld bytes, planned %lld", text_of(s), (long long)sent,
              (long long)bytes);
}

/* Of one grid. */
static inline bool has_same_results(const struct side *a, const struct side *b)
{
    bool same = true;

    for (int i = 0; i < TENSORS; i++)
        same = same && has_same_bits(a->device, &a->got[i], b->device, &b->got[i]);
    return same;
}

#endif
