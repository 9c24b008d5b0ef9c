/* --verify: results against the layer in double precision, and in bf16 against a twin of it that
 * rounds where the layer stores. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench_layer.h"
#include "cli/format.h"
#include "comm/comm.h"
#include "reference/layer.h"
#include "tensor/dtype.h"

/* Relative errors that a layer may have; of several layers so many times as much. */
#define F32_LIMIT 2e-5
#define BF16_LIMIT 1.2e-2
#define TWIN_FACTOR 1.3
#define DEVIATIONS 2
#define SUM_ERROR 1e-6 /* of sums in f32, which the twin does not have */

/* y, dx and the gradients of the whole. */
enum { Y, DX, GRADIENTS, TENSORS = GRADIENTS + LS_LAYER_PARAMETERS };

struct whole {
    struct cli_layer_run *run;
    int64_t n; /* elements of x */
    double *weight[LS_LAYER_PARAMETERS], *x, *dy;
    double *truth[TENSORS], *twin[TENSORS];
};

static struct ls_reference_parameters parameters_of(double *const list[LS_LAYER_PARAMETERS])
{
    return (struct ls_reference_parameters){
        .norm1 = list[LS_PARAMETER_NORM1],
        .norm1_bias = list[LS_PARAMETER_NORM1_BIAS],
        .qkv = list[LS_PARAMETER_QKV],
        .qkv_bias = list[LS_PARAMETER_QKV_BIAS],
        .out = list[LS_PARAMETER_OUT],
        .out_bias = list[LS_PARAMETER_OUT_BIAS],
        .norm2 = list[LS_PARAMETER_NORM2],
        .norm2_bias = list[LS_PARAMETER_NORM2_BIAS],
        .up = list[LS_PARAMETER_UP],
        .up_bias = list[LS_PARAMETER_UP_BIAS],
        .down = list[LS_PARAMETER_DOWN],
        .down_bias = list[LS_PARAMETER_DOWN_BIAS],
    };
}

/* ---- the whole */

static int64_t parameter_elements(const struct cli_layer_run *run, int parameter)
{
    const struct ls_parameter_part part =
        ls_parameter_part(parameter, &run->shape, &run->layer, 1, 0);

    return part.dim[0] * part.dim[1];
}

static ls_status create_zeros(double **out, int64_t n)
{
    *out = calloc((size_t)n + 1, sizeof **out);
    return *out ? LS_OK : ls_fail(LS_ENOMEM, "no memory to verify by %lld numbers", (long long)n);
}

static ls_status read_whole(double **out, const struct cli_layer_run *run,
                            const struct ls_input *source, int parameter, int64_t n)
{
    LS_TRY(create_zeros(out, n));
    return cli_layer_read(*out, run, source, parameter, 0, n);
}

static ls_status create_answers(double *answer[TENSORS], const struct whole *w)
{
    LS_TRY(create_zeros(&answer[Y], w->n));
    LS_TRY(create_zeros(&answer[DX], w->n));
    for (int i = 0; i < LS_LAYER_PARAMETERS; i++)
        if (ls_parameter_exists(i, &w->run->layer))
            LS_TRY(create_zeros(&answer[GRADIENTS + i], parameter_elements(w->run, i)));
    return LS_OK;
}

static ls_status create_whole(struct whole *w)
{
    const struct cli_layer_run *run = w->run;

    for (int i = 0; i < LS_LAYER_PARAMETERS; i++)
        if (ls_parameter_exists(i, &run->layer))
            LS_TRY(read_whole(&w->weight[i], run, &run->source[i], i, parameter_elements(run, i)));
    LS_TRY(read_whole(&w->x, run, &run->x_source, -1, w->n));
    LS_TRY(read_whole(&w->dy, run, &run->dy_source, -1, w->n));
    LS_TRY(create_answers(w->truth, w));
    return run->shape.type == LS_F32 ? LS_OK : create_answers(w->twin, w);
}

static void destroy_whole(struct whole *w)
{
    for (int i = 0; i < LS_LAYER_PARAMETERS; i++) free(w->weight[i]);
    for (int i = 0; i < TENSORS; i++) {
        free(w->truth[i]);
        free(w->twin[i]);
    }
    free(w->x);
    free(w->dy);
}

/* ---- what is right */

/* All layers forward, of x, and backward, of dy; scratch [n]. */
static ls_status run_layers(double *const answer[TENSORS], struct ls_reference_layer_state **state,
                            double *scratch, const struct whole *w, ls_dtype type)
{
    const struct ls_reference_parameters weights = parameters_of(w->weight);
    const struct ls_reference_parameters gradients = parameters_of(answer + GRADIENTS);
    struct ls_reference_layer layer = {w->run->shape, w->run->layer, type, 0};
    const size_t bytes = (size_t)w->n * sizeof(double);
    const int64_t layers = w->run->options.layers;

    memcpy(answer[Y], w->x, bytes);
    for (int64_t i = 0; i < layers; i++) {
        layer.seed = (uint64_t)i;
        memcpy(scratch, answer[Y], bytes);
        LS_TRY(ls_reference_layer_forward(answer[Y], &state[i], &layer, &weights, scratch));
        cli_world_beat(w->run->world);
    }
    memcpy(answer[DX], w->dy, bytes);
    for (int64_t i = layers - 1; i >= 0; i--) {
        memcpy(scratch, answer[DX], bytes);
        LS_TRY(ls_reference_layer_backward(answer[DX], &gradients, state[i], &weights, scratch));
        cli_world_beat(w->run->world);
    }
    return LS_OK;
}

static ls_status solve(double *const answer[TENSORS], const struct whole *w, ls_dtype type)
{
    const int64_t layers = w->run->options.layers;
    struct ls_reference_layer_state **state = calloc((size_t)layers, sizeof *state);
    double *scratch = malloc((size_t)w->n * sizeof *scratch);
    ls_status status = state && scratch ? LS_OK : ls_fail(LS_ENOMEM, "no memory to verify");

    if (status == LS_OK) status = run_layers(answer, state, scratch, w, type);
    for (int64_t i = 0; state && i < layers; i++) ls_reference_layer_state_destroy(state[i]);
    free(scratch);
    free(state);
    return status;
}

/* ---- how far it is */

/* Squares of a tensor's error, of the twin's and of the truth; and how many elements these are. */
struct squares {
    double error, twin, truth, elements;
};

static void add_run(struct squares *s, const struct whole *w, int which, const struct ls_tensor *t,
                    const struct ls_run *r)
{
    const int64_t size = ls_dtype_size(t->type);
    const double *truth = w->truth[which] + r->global;
    const double *twin = w->twin[which] ? w->twin[which] + r->global : truth;

    for (int64_t i = 0; i < r->n; i++) {
        char stored[sizeof(double)];

        ls_device_read(w->run->gemm.device, stored, (char *)t->data + (r->local + i) * size,
                       (size_t)size);
        s->error += pow(ls_dtype_load(t->type, stored) - truth[i], 2);
        s->twin += pow(twin[i] - truth[i], 2);
        s->truth += truth[i] * truth[i];
    }
    s->elements += (double)r->n;
}

static const struct ls_tensor *result(const struct whole *w, int which)
{
    if (which == Y) return cli_layer_y(w->run);
    if (which == DX) return cli_layer_dx(w->run);
    return &w->run->tensors.gradient[which - GRADIENTS];
}

/* Of all ranks' parts. */
static ls_status compare(struct squares *out, const struct whole *w, int which)
{
    struct cli_layer_part part = {.run = NULL};
    double all[4] = {0};
    ls_status status = which < GRADIENTS ? cli_layer_rows_of(&part, w->run)
                                         : cli_layer_part_of(&part, w->run, which - GRADIENTS);

    *out = (struct squares){0};
    for (int64_t i = 0; i < part.count && status == LS_OK; i++)
        add_run(out, w, which, result(w, which), &part.run[i]);
    free(part.run);
    LS_TRY(ls_comm_agree(w->run->world->comm, status));
    all[0] = out->error;
    all[1] = out->twin;
    all[2] = out->truth;
    all[3] = out->elements;
    LS_TRY(ls_comm_reduce(all, w->run->world->comm, 4, LS_REDUCE_SUM));
    *out = (struct squares){all[0], all[1], all[2], all[3]};
    return LS_OK;
}

/* In bf16 the slope of ReLU is another one wherever rounding moves its input over 0: how often that
 * is, only the twin knows. Both errors are chance: of n elements each, their ratio deviates by
 * 1/sqrt(n). */
static double limit_of(const struct whole *w, double twin, double elements)
{
    const double layers = (double)w->run->options.layers;
    const bool jumps = w->run->layer.activation == LS_ACTIVATION_RELU;
    const double most = jumps ? INFINITY : BF16_LIMIT * layers;

    if (w->run->shape.type == LS_F32) return F32_LIMIT * layers;
    return fmin(most, fmax(SUM_ERROR, TWIN_FACTOR * (1 + DEVIATIONS / sqrt(elements)) * twin));
}

static ls_status judge(json_t *list, const struct whole *w, int which, const char *name)
{
    const struct cli_report *report = &w->run->report;
    struct squares s;

    LS_TRY(compare(&s, w, which));
    const double error = sqrt(s.error / s.truth), twin = sqrt(s.twin / s.truth);
    const double limit = limit_of(w, twin, s.elements);
    const bool ok = s.truth == 0 ? s.error == 0 : error <= limit;

    w->run->held &= ok;
    cli_report_line(report, which == Y ? "errors" : "", "%-14s %.2e, limit %.2e%s", name, error,
                    limit, ok ? "" : "  FAILED");
    json_array_append_new(list,
                          json_pack("{s:s, s:o, s:o, s:b}", "name", name, "error",
                                    cli_json_real(error), "limit", cli_json_real(limit), "ok", ok));
    return LS_OK;
}

static ls_status judge_all(const struct whole *w)
{
    const struct cli_layer_run *run = w->run;
    json_t *list = json_array();
    char name[64];

    cli_report_value(&run->report, "verify", list);
    LS_TRY(judge(list, w, Y, "y"));
    LS_TRY(judge(list, w, DX, "dx"));
    for (int i = 0; i < LS_LAYER_PARAMETERS; i++) {
        if (!ls_parameter_exists(i, &run->layer)) continue;
        snprintf(name, sizeof name, "d%s", ls_parameter_name(i));
        LS_TRY(judge(list, w, GRADIENTS + i, name));
    }
    cli_report_value(&run->report, "ok", json_boolean(run->held));
    cli_report_say(&run->report, "verified: %s", run->held ? "ok" : "FAILED");
    return LS_OK;
}

ls_status cli_layer_verify(struct cli_layer_run *run)
{
    const struct ls_layer_shape *n = &run->shape;
    struct whole w = {.run = run, .n = n->b * n->s * n->e};
    ls_status status = create_whole(&w);

    if (status == LS_OK) status = solve(w.truth, &w, LS_F64);
    if (status == LS_OK && w.twin[Y]) status = solve(w.twin, &w, n->type);
    status = ls_comm_agree(run->world->comm, status);
    if (status == LS_OK) status = judge_all(&w);
    destroy_whole(&w);
    return status;
}
