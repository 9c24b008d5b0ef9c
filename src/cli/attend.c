#include "cli/attend.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "attention/choice.h"
#include "cli/binding.h"
#include "cli/command.h"
#include "cli/memory.h"
#include "cli/values.h"
#include "comm/comm.h"

#define VERIFIED_ROWS 256
#define MOST_REPEATS 1000000

/* ---- options */

enum { KEY_METHOD = CLI_KEY_OWN, KEY_REPEAT, KEY_OUT, KEY_VERIFY, KEY_BACKWARD };

static const struct argp_option own_options[] = {
    {"method", KEY_METHOD, "NAME", 0,
     "How the ranks work together (see longspan methods); default auto, the one that fits and "
     "sends the least",
     CLI_SECTION_COMPUTATION},
    {"backward", KEY_BACKWARD, NULL, 0,
     "Compute gradients as well, those of sinks and biases too, from do of the input or standard "
     "normal numbers",
     CLI_SECTION_COMPUTATION},
    {"repeat", KEY_REPEAT, "N", 0, "Compute N times and report the fastest", CLI_SECTION_RESULTS},
    {"out", KEY_OUT, "FILE", CLI_WRITES,
     "Write o, lse and the gradients to a .safetensors file, in global order (-: to standard "
     "output)",
     CLI_SECTION_RESULTS},
    {"verify", KEY_VERIFY, "ROWS", OPTION_ARG_OPTIONAL,
     "Hold ROWS rows of each head (256) against the double-precision oracle", CLI_SECTION_RESULTS},
    {0},
};

/* A name that ends like that of another format would promise it. */
static ls_status set_out(struct cli_attend_options *o, const char *value)
{
    const char *end = strrchr(value, '.');

    if (end && (strcasecmp(end, ".npy") == 0 || strcasecmp(end, ".npz") == 0))
        return ls_fail(LS_EVALUE,
                       "--out %s: several tensors are written, to a .safetensors file: name one",
                       value);
    o->out = value;
    return LS_OK;
}

static ls_status set_option(void *options, int key, const char *value)
{
    struct cli_attend_options *o = options;

    switch (key) {
    case KEY_METHOD:
        return cli_value_method(&o->shared.attention.method, "--method", value);
    case KEY_REPEAT:
        return cli_value_integer(&o->repeat, "--repeat", value, 1, MOST_REPEATS);
    case KEY_OUT:
        return set_out(o, value);
    case KEY_BACKWARD:
        o->shared.attention.backward = true;
        return LS_OK;
    default:
        o->verify = true;
        return value ? cli_value_integer(&o->rows, "--verify", value, 1, INT64_MAX) : LS_OK;
    }
}

static ls_status read_options(bool *done, struct cli_attend_options *o,
                              const struct cli_world *world, int argc, char **argv,
                              const struct cli_attend_defaults *defaults)
{
    const struct cli_syntax syntax = {
        .doc = defaults->doc,
        .takes = CLI_TAKES_INPUT | CLI_TAKES_ELEMENTS | CLI_TAKES_MASK | CLI_TAKES_SCALE |
                 CLI_TAKES_LAYOUT | CLI_TAKES_STRICT | CLI_TAKES_THREADS | CLI_TAKES_PROGRESS |
                 CLI_TAKES_TRACE,
        .own = own_options,
        .set = set_option,
    };

    *o = (struct cli_attend_options){.repeat = defaults->repeat, .rows = VERIFIED_ROWS};
    LS_TRY(cli_options_parse(done, &o->shared, world, &syntax, argc, argv, o));
    if (!cli_inputs_given(&o->shared.input) && defaults->random)
        return cli_random_set(&o->shared.input.random, defaults->random);
    return LS_OK;
}

/* ---- stages before the computation */

static ls_status choose_method(struct cli_attend_run *run)
{
    struct ls_attention_options *o = &run->options.shared.attention;
    struct ls_choice choice;
    const char *misfit;

    LS_TRY(ls_choose(&choice, &misfit, &run->inputs.shape, o, run->world->size,
                     ls_comm_node_run(run->world->comm)));
    if (misfit) return ls_fail(LS_EFIT, "method %s: %s", o->method, misfit);
    run->method = choice.method;
    run->problem = choice.problem;
    return LS_OK;
}

/* The tensors alone, whatever the method: the cost of an absurd shape is no number. */
static ls_status check_tensors(const struct cli_attend_run *run)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const struct ls_layout q = {.kind = LS_LAYOUT_CONTIGUOUS, .s = n->s_q, .p = run->world->size};
    const struct ls_layout k = {.kind = LS_LAYOUT_CONTIGUOUS, .s = n->s_k, .p = run->world->size};

    return cli_memory_check(run->world,
                            cli_tensor_bytes(n, &q, &k, run->world->rank) +
                                cli_quantized_bytes(&run->inputs, &k, run->world->rank));
}

static ls_status check_memory(struct cli_attend_run *run)
{
    const struct ls_problem *p = &run->problem;

    const int rank = run->world->rank;
    double tensors = cli_tensor_bytes(&p->shape, &p->q_layout, &p->k_layout, rank) +
                     cli_quantized_bytes(&run->inputs, &p->k_layout, rank);

    if (p->backward)
        tensors +=
            cli_gradient_bytes(&p->shape, (p->scores.sinks != NULL) + p->scores.distances,
                               &p->q_layout, &p->k_layout, rank) +
            cli_bias_gradient_bytes(&p->shape, &run->options.shared.attention, &p->q_layout, rank);
    LS_TRY(ls_comm_agree(run->world->comm, ls_method_cost(&run->cost, run->method, p)));
    return cli_memory_check(run->world, tensors + (double)run->cost.workspace_bytes +
                                            (double)run->cost.comm_bytes +
                                            (double)run->cost.gradient_bytes);
}

/* What v and do must be below, so that no sum of theirs leaves f32 where its result does not: p v
 * over keys before it is divided, p <= 1 and over 1 - dropout; backward, p do over queries, and
 * do.v - delta over elements. */
static double value_limit(const struct cli_attend_run *run)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const double most = (double)FLT_MAX * (1 - (double)run->options.shared.attention.dropout);
    const double keys = (double)n->s_k, queries = (double)n->s_q * (double)(n->h / n->h_kv);

    if (run->options.shared.input.allow_nonfinite) return LS_ANY_VALUE;
    if (!run->problem.backward) return most / keys;
    return fmin(most / fmax(keys, queries), sqrt(most / (2 * (double)n->d_v)));
}

/* Numbers for each head, which every rank has. */
static ls_status create_numbers(struct ls_tensor *out, int ndim, int64_t h, int64_t n)
{
    void *data;

    LS_TRY(ls_alloc(&data, LS_TAG_ACTIVATION, (size_t)(h * n) * sizeof(float)));
    *out = ls_tensor_view(data, LS_F32, ndim, (const int64_t[]){h, n});
    return LS_OK;
}

/* [b or 1, h or 1, rows, s_k]. */
static ls_status create_biases(struct cli_attend_run *run, int64_t rows)
{
    const struct ls_attention_options *o = &run->options.shared.attention;
    const struct ls_attention_shape *n = &run->inputs.shape;
    const int64_t dim[] = {o->bias_per_entry ? n->b : 1, o->bias_per_head ? n->h : 1, rows, n->s_k};
    void *data;

    if (!o->bias) return LS_OK;
    LS_TRY(ls_alloc(&data, LS_TAG_ACTIVATION,
                    (size_t)(dim[0] * dim[1] * dim[2] * dim[3]) * sizeof(float)));
    run->dbias = ls_tensor_view(data, LS_F32, 4, dim);
    return LS_OK;
}

static ls_status create_gradients(struct cli_attend_run *run)
{
    const struct ls_attention_options *o = &run->options.shared.attention;
    const struct ls_attention_shape *n = &run->inputs.shape;
    const int rank = run->world->rank;
    const int64_t q_rows = ls_layout_part_rows(&run->problem.q_layout, rank);
    const int64_t k_rows = ls_layout_part_rows(&run->problem.k_layout, rank);
    const struct {
        struct ls_tensor *tensor;
        int64_t rows, h, d;
    } all[] = {{&run->d_o, q_rows, n->h, n->d_v},
               {&run->o_lo, q_rows, n->h, n->d_v},
               {&run->dq, q_rows, n->h, n->d},
               {&run->dk, k_rows, n->h_kv, n->d},
               {&run->dv, k_rows, n->h_kv, n->d_v}};

    for (int i = 0; i < 5; i++)
        LS_TRY(cli_tensor_create(all[i].tensor, n->type, run->inputs.order, n->b, all[i].rows,
                                 all[i].h, all[i].d));
    if (o->sinks) LS_TRY(create_numbers(&run->dsinks, 1, n->h, 1));
    if (o->distance_bias) LS_TRY(create_numbers(&run->ddistance_bias, 2, n->h, o->distances));
    return create_biases(run, q_rows);
}

static ls_status create_results(struct cli_attend_run *run)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const int64_t rows = ls_layout_part_rows(&run->problem.q_layout, run->world->rank);
    const int64_t lse_dim[] = {n->b, n->h, rows};
    void *lse;

    LS_TRY(cli_tensor_create(&run->o, n->type, run->inputs.order, n->b, rows, n->h, n->d_v));
    LS_TRY(ls_alloc(&lse, LS_TAG_ACTIVATION, (size_t)(n->b * n->h * rows) * sizeof(float)));
    run->lse = ls_tensor_view(lse, LS_F32, 3, lse_dim);
    return run->problem.backward ? create_gradients(run) : LS_OK;
}

static ls_status prepare(struct cli_attend_run *run)
{
    struct cli_attend_options *o = &run->options;
    struct cli_world *world = run->world;

    LS_TRY(cli_report_open(&run->report, world, &o->shared));
    LS_TRY(cli_inputs_open(&run->inputs, world, &o->shared.input, false));
    LS_TRY(cli_mask_load(&run->arrays, &o->shared.attention, &o->shared.mask, &o->shared.input,
                         world, &run->inputs));
    if (o->shared.attention.backward)
        LS_TRY(cli_inputs_open_do(&run->d_o_source, &run->inputs, world, &o->shared.input));
    LS_TRY(check_tensors(run));
    LS_TRY(ls_comm_agree(world->comm, choose_method(run)));
    LS_TRY(check_memory(run));
    LS_TRY(cli_output_create(&run->output, world, o->out, &run->inputs, &o->shared.attention));
    if (o->shared.trace)
        LS_TRY(ls_timeline_create(&run->timeline, world->comm, o->shared.trace, o->shared.threads));
    LS_TRY(cli_inputs_load(run->qkv, &run->inputs, world, &run->problem.q_layout,
                           &run->problem.k_layout, value_limit(run), run->progress));
    LS_TRY(cli_quantized_load(&run->quantized, &run->inputs, world, run->qkv,
                              &run->problem.k_layout, run->progress));
    LS_TRY(ls_comm_agree(world->comm, create_results(run)));
    if (run->problem.backward)
        LS_TRY(cli_input_load(&run->d_o, world, &run->d_o_source, run->inputs.order,
                              &run->problem.q_layout, value_limit(run), run->progress));
    ls_ledger_reset_peaks(&ls_host_ledger); /* they are to be those of the computation */
    LS_TRY(cli_gemm_init(&run->gemm, world, run->inputs.shape.type, o->shared.threads));
    LS_TRY(ls_attention_plan_create(&run->plan, world->comm, &run->inputs.shape,
                                    &o->shared.attention));
    return cli_quantized_make(&run->quantized, &run->inputs, world, run->plan, run->qkv);
}

/* ---- after it */

/* k, v: what the result is of. */
static ls_status judge(struct ls_judgement *verdict, struct cli_attend_run *run,
                       const struct ls_tensor *k, const struct ls_tensor *v)
{
    struct ls_attention_saved result = cli_attend_saved(run);
    const struct ls_attention_gradients gradients = cli_attend_gradients(run);
    const struct ls_judge_task task = {
        .shape = &run->problem.shape,
        .options = &run->options.shared.attention,
        .q_layout = run->problem.q_layout,
        .k_layout = run->problem.k_layout,
        .result = &result,
        .gradients = run->problem.backward ? &gradients : NULL,
        .contract = run->problem.shape.type,
        .rows = run->options.rows,
    };
    const struct ls_progress_callback callback = cli_progress_callback(run->progress);

    result.k = k;
    result.v = v;
    return ls_judge_attention(verdict, run->world->comm, &task, &callback);
}

/* What quantizing takes from the result is no fault of the computation, and told apart. */
static ls_status verify(struct cli_attend_run *run)
{
    const struct ls_tensor *k = &run->qkv[1], *v = &run->qkv[2];
    const struct cli_quantized *q = &run->quantized;

    if (!q->rows[0].data) return judge(&run->verdict, run, k, v);
    LS_TRY(cli_quantized_widen(&run->quantized, &run->inputs, run->world));
    LS_TRY(judge(&run->verdict, run, &q->exact[0], &q->exact[1]));
    return run->inputs.brings_quantized ? LS_OK : judge(&run->as_given, run, k, v);
}

static ls_status write_results(struct cli_attend_run *run)
{
    const int64_t *dim = run->dbias.dim;
    const struct ls_tensor dbias =
        ls_order_view(run->dbias.data, LS_F32, LS_ORDER_BHSD, dim[0], dim[2], dim[1], dim[3]);
    const struct ls_tensor *const parts[CLI_OUT_MOST] = {
        &run->o, &run->lse, &run->dq, &run->dk, &run->dv, &run->dsinks, &run->ddistance_bias,
        &dbias};

    return cli_output_commit(run->output, &run->options.shared.attention, &run->problem.q_layout,
                             &run->problem.k_layout, parts, run->progress);
}

/* ---- all of it */

static ls_status attend(struct cli_attend_run *run)
{
    LS_TRY(prepare(run));
    LS_TRY(cli_attend_compute(run));
    if (run->options.verify) LS_TRY(verify(run));
    LS_TRY(write_results(run));
    cli_progress_begin(NULL, "writing");
    if (run->timeline) LS_TRY(ls_timeline_commit(&run->events, &run->dropped, run->timeline));
    return cli_attend_report(run);
}

static void attend_fini(struct cli_attend_run *run)
{
    ls_attention_plan_destroy(run->plan);
    cli_gemm_fini(&run->gemm);
    ls_problem_fini(&run->problem);
    ls_free(run->dbias.data);
    ls_free(run->ddistance_bias.data);
    ls_free(run->dsinks.data);
    ls_free(run->dv.data);
    ls_free(run->dk.data);
    ls_free(run->dq.data);
    ls_free(run->o_lo.data);
    ls_free(run->d_o.data);
    ls_free(run->lse.data);
    ls_free(run->o.data);
    cli_quantized_free(&run->quantized);
    for (int i = 0; i < 3; i++) ls_free(run->qkv[i].data);
    ls_timeline_destroy(run->timeline);
    ls_output_destroy(run->output);
    ls_input_close(&run->d_o_source);
    cli_mask_free(&run->arrays);
    cli_inputs_close(&run->inputs);
    cli_report_fini(&run->report);
    cli_progress_destroy(run->progress);
}

ls_status cli_attend_with(bool *held, struct cli_world *world, int argc, char **argv,
                          const struct cli_attend_defaults *defaults)
{
    struct cli_attend_run run = {.world = world};
    bool done;

    LS_TRY(read_options(&done, &run.options, world, argc, argv, defaults));
    if (done) return LS_OK;
    LS_TRY(cli_world_complete(world));
    cli_binding_hint(world, &run.options.shared);
    cli_progress_create(&run.progress, world, run.options.shared.progress,
                        run.options.shared.quiet);
    const ls_status status = attend(&run);

    attend_fini(&run);
    *held = !run.options.verify || run.verdict.ok;
    return status;
}

ls_status cli_attend(bool *held, struct cli_world *world, int argc, char **argv)
{
    static const struct cli_attend_defaults defaults = {
        .doc = "Computes exact attention of q over k and v, on one process or, started by mpirun "
               "or srun, over several.",
        .repeat = 1,
    };

    return cli_attend_with(held, world, argc, argv, &defaults);
}
