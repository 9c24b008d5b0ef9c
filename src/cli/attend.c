#include "cli/attend.h"

#include <float.h>
#include <string.h>

#include "base/profile.h"
#include "cli/attend_run.h"
#include "cli/command.h"
#include "cli/memory.h"
#include "cli/values.h"
#include "comm/comm.h"

#define VERIFIED_ROWS 256
#define MOST_REPEATS 1000000

/* Share of the GEMM rate that the bar assumes before anything was measured. */
#define LIKELY_SHARE 0.7

enum { KEY_REPEAT = CLI_KEY_OWN, KEY_OUT, KEY_VERIFY };

/* ---- options */

static error_t parse_attend(int key, char *arg, struct argp_state *state)
{
    struct cli_attend_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->input;
        state->child_inputs[1] = &o->input;
        state->child_inputs[2] = &o->attention;
        state->child_inputs[3] = &o->attention;
        state->child_inputs[4] = &o->attention;
        state->child_inputs[5] = &o->threads;
        state->child_inputs[6] = &o->progress;
        state->child_inputs[7] = &o->output;
        return 0;
    case CLI_KEY_METHOD:
        o->attention.method = arg;
        return 0;
    case KEY_REPEAT:
        return cli_options_error(cli_value_integer(&o->repeat, "--repeat", arg, 1, MOST_REPEATS));
    case KEY_OUT:
        o->out = arg;
        return 0;
    case KEY_VERIFY:
        o->verify = true;
        if (!arg) return 0;
        return cli_options_error(cli_value_integer(&o->rows, "--verify", arg, 1, INT64_MAX));
    case ARGP_KEY_ARG:
        return cli_options_surplus(arg);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option attend_options[] = {
    {.doc = "Input:", .group = 10},
    {.doc = "What and how:", .group = 20},
    {.doc = "Results:", .group = 30},
    {.doc = "Common options:", .group = 40},
    {"method", CLI_KEY_METHOD, "NAME", 0,
     "How the ranks work together (see longspan methods); default the one that fits and sends the "
     "least",
     20},
    {"repeat", KEY_REPEAT, "N", 0, "Compute N times and report the fastest", 30},
    {"out", KEY_OUT, "FILE", 0, "Write o and lse to a .safetensors file, in global order", 30},
    {"verify", KEY_VERIFY, "ROWS", OPTION_ARG_OPTIONAL,
     "Hold ROWS rows of each head (256) against the double-precision oracle", 30},
    {0},
};

static const struct argp_child attend_children[] = {
    {.argp = &cli_input_argp},    {.argp = &cli_nonfinite_argp}, {.argp = &cli_causal_argp},
    {.argp = &cli_scale_argp},    {.argp = &cli_layout_argp},    {.argp = &cli_threads_argp},
    {.argp = &cli_progress_argp}, {.argp = &cli_output_argp},    {0},
};

static ls_status read_options(bool *done, struct cli_attend_options *o,
                              const struct cli_world *world, int argc, char **argv,
                              const struct cli_attend_defaults *defaults)
{
    const struct argp argp = {.options = attend_options,
                              .parser = parse_attend,
                              .doc = defaults->doc,
                              .children = attend_children};
    const struct ls_attention_options attention = LS_ATTENTION_OPTIONS;

    *o = (struct cli_attend_options){
        .attention = attention, .repeat = defaults->repeat, .rows = VERIFIED_ROWS};
    LS_TRY(cli_options_parse(done, world, &argp, argc, argv, o));
    if (!cli_inputs_given(&o->input) && defaults->random)
        LS_TRY(cli_inputs_set_random(&o->input, defaults->random));
    o->attention.threads = o->threads;
    return LS_OK;
}

/* ---- stages before the computation */

static ls_status choose_method(struct cli_attend_run *run)
{
    const struct ls_attention_options *o = &run->options.attention;
    const int p = run->world->size;
    const char *why; /* the plan will say it */

    if (o->method)
        LS_TRY(ls_method_find(&run->method, o->method));
    else
        LS_TRY(ls_method_choose(&run->method, &why, &run->inputs.shape, o, p));
    LS_TRY(ls_problem_init(&run->problem, &run->inputs.shape, o, p, run->method));
    const char *reason = run->method->fits(&run->problem);

    if (reason) return ls_fail(LS_EFIT, "method %s: %s", run->method->name, reason);
    return LS_OK;
}

/* The tensors alone, whatever the method: the cost of an absurd shape is no number. */
static ls_status check_tensors(const struct cli_attend_run *run)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const struct ls_layout q = {LS_LAYOUT_CONTIGUOUS, n->s_q, run->world->size};
    const struct ls_layout k = {LS_LAYOUT_CONTIGUOUS, n->s_k, run->world->size};

    return cli_memory_check(run->world, cli_tensor_bytes(n, &q, &k, run->world->rank));
}

static ls_status check_memory(struct cli_attend_run *run)
{
    const struct ls_problem *p = &run->problem;

    run->method->cost(&run->cost, p);
    return cli_memory_check(
        run->world, cli_tensor_bytes(&p->shape, &p->q_layout, &p->k_layout, run->world->rank) +
                        (double)run->cost.workspace_bytes + (double)run->cost.comm_bytes);
}

static ls_status create_results(struct cli_attend_run *run)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const int64_t rows = ls_layout_part_rows(&run->problem.q_layout, run->world->rank);
    const int64_t lse_dim[] = {n->b, n->h, rows};
    void *lse;

    LS_TRY(cli_tensor_create(&run->o, n->type, run->inputs.order, n->b, rows, n->h, n->d));
    LS_TRY(ls_alloc(&lse, LS_TAG_ACTIVATION, (size_t)(n->b * n->h * rows) * sizeof(float)));
    run->lse = ls_tensor_view(lse, LS_F32, 3, lse_dim);
    return LS_OK;
}

static ls_status prepare(struct cli_attend_run *run)
{
    const struct cli_attend_options *o = &run->options;
    struct cli_world *world = run->world;

    LS_TRY(cli_report_open(&run->report, world, &o->output));
    LS_TRY(cli_inputs_open(&run->inputs, world, &o->input, false));
    LS_TRY(check_tensors(run));
    LS_TRY(choose_method(run));
    LS_TRY(check_memory(run));
    LS_TRY(cli_output_create(&run->output, world, o->out, &run->inputs));
    LS_TRY(cli_inputs_load(run->qkv, &run->inputs, world, &run->problem.q_layout,
                           &run->problem.k_layout, o->input.allow_nonfinite, run->progress));
    LS_TRY(ls_comm_agree(world->comm, create_results(run)));
    ls_ledger_reset_peaks(); /* they are to be those of the computation */
    LS_TRY(cli_gemm_create(&run->gemm, world, run->inputs.shape.type, o->threads));
    return ls_attention_plan_create(&run->plan, world->comm, &run->inputs.shape, &o->attention);
}

/* ---- the computation */

/* From a barrier until the slowest rank has o and lse. */
static ls_status time_forward(double *seconds, struct cli_attend_run *run)
{
    struct ls_comm *comm = run->world->comm;

    LS_TRY(ls_comm_barrier(comm));
    const double start = ls_now();

    const ls_status status = ls_attention_forward(&run->o, &run->lse, run->plan, &run->qkv[0],
                                                  &run->qkv[1], &run->qkv[2]);
    *seconds = ls_now() - start;
    LS_TRY(ls_comm_agree(comm, status));
    return ls_comm_reduce(seconds, comm, 1, LS_REDUCE_MAX);
}

static double gemm_total(const struct cli_attend_run *run)
{
    return run->result.gemm * run->options.threads * run->world->size;
}

static ls_status compute(struct cli_attend_run *run)
{
    struct cli_attend_result *r = &run->result;
    double seconds, expected = 0;

    r->seconds = DBL_MAX;
    for (int64_t i = 0; i < run->options.repeat; i++) {
        LS_TRY(cli_gemm_measure(&r->gemm, run->gemm)); /* side by side with what it is held to */
        expected = i == 0 ? run->cost.flops / (1e9 * LIKELY_SHARE * gemm_total(run)) : r->seconds;
        cli_progress_begin_timed(run->progress, "computing", expected);
        const ls_status status = time_forward(&seconds, run);

        cli_progress_end(run->progress);
        LS_TRY(status);
        if (seconds >= r->seconds) continue;
        r->seconds = seconds;
        ls_attention_plan_describe(&r->report, run->plan);
    }
    return LS_OK;
}

/* What this rank saw becomes what all ranks saw. */
static ls_status gather_result(struct cli_attend_run *run)
{
    struct cli_attend_result *r = &run->result;
    struct ls_comm *comm = run->world->comm;
    double sums[] = {(double)r->report.bytes_sent, (double)r->report.tiles_computed};
    double most[2 + LS_TAG_COUNT] = {r->report.exposed_comm_seconds,
                                     (double)ls_ledger_peak_total()};
    double least = (double)ls_ledger_peak_total();

    for (int i = 0; i < LS_TAG_COUNT; i++) most[2 + i] = (double)ls_ledger_peak((ls_tag)i);
    LS_TRY(ls_comm_reduce(sums, comm, 2, LS_REDUCE_SUM));
    LS_TRY(ls_comm_reduce(most, comm, 2 + LS_TAG_COUNT, LS_REDUCE_MAX));
    LS_TRY(ls_comm_reduce(&least, comm, 1, LS_REDUCE_MIN));
    r->bytes_sent = sums[0];
    r->tiles = sums[1];
    r->exposed = most[0];
    r->ledger_most = most[1];
    r->ledger_least = least;
    memcpy(r->tag_most, most + 2, sizeof(r->tag_most));
    r->gemm_type = cli_gemm_type(run->gemm);
    return LS_OK;
}

static ls_status verify(struct cli_attend_run *run)
{
    const struct cli_attend_options *o = &run->options;
    const struct cli_verify what = {
        .shape = run->problem.shape,
        .causal = o->attention.causal,
        .scale = run->problem.scale,
        .q_layout = run->problem.q_layout,
        .k_layout = run->problem.k_layout,
        .q = run->qkv[0],
        .k = run->qkv[1],
        .v = run->qkv[2],
        .o = run->o,
        .lse = run->lse.data,
        .contract = run->problem.shape.type,
        .rows = o->rows,
        .threads = o->threads,
    };

    return cli_verify(&run->verdict, run->world, &what, run->progress);
}

/* ---- all of it */

static ls_status attend(struct cli_attend_run *run)
{
    LS_TRY(prepare(run));
    LS_TRY(compute(run));
    LS_TRY(gather_result(run));
    if (run->options.verify) LS_TRY(verify(run));
    LS_TRY(cli_output_commit(&run->output, run->world, &run->problem.q_layout, &run->o, &run->lse));
    return cli_attend_report(run);
}

static void attend_fini(struct cli_attend_run *run)
{
    ls_attention_plan_destroy(run->plan);
    cli_gemm_destroy(run->gemm);
    ls_free(run->lse.data);
    ls_free(run->o.data);
    for (int i = 0; i < 3; i++) ls_free(run->qkv[i].data);
    cli_output_fini(&run->output);
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
    cli_progress_create(&run.progress, world, run.options.progress, run.options.output.quiet);
    const ls_status status = attend(&run);

    attend_fini(&run);
    *held = !run.options.verify || run.verdict.verdict.ok;
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
