#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/ledger.h"
#include "cli/command.h"
#include "cli/compare.h"
#include "cli/format.h"
#include "cli/inputs.h"
#include "cli/memory.h"
#include "cli/report.h"
#include "cli/values.h"
#include "cli/verify.h"
#include "comm/comm.h"
#include "tensor/dtype.h"

enum { KEY_RESULT = CLI_KEY_OWN, KEY_CONTRACT, KEY_ROWS };

struct check_options {
    struct cli_output_options output;
    cli_progress_mode progress;
    int threads;
    struct cli_input_options input;
    struct ls_attention_options mask;
    const char *result;
    const char *pair[2];
    int pairs;
    bool has_contract;
    ls_dtype contract;
    int64_t rows; /* 0: all */
};

/* ---- options */

static error_t parse_own(int key, char *arg, struct check_options *o)
{
    switch (key) {
    case KEY_RESULT:
        o->result = arg;
        return 0;
    case KEY_CONTRACT:
        o->has_contract = true;
        return cli_options_error(cli_value_dtype(&o->contract, "--contract", arg));
    case KEY_ROWS:
        return cli_options_error(cli_value_integer(&o->rows, "--rows", arg, 1, INT64_MAX));
    case ARGP_KEY_ARG:
        if (o->pairs == 2) return cli_options_surplus(arg);
        o->pair[o->pairs++] = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_check(int key, char *arg, struct argp_state *state)
{
    struct check_options *o = state->input;

    if (key != ARGP_KEY_INIT) return parse_own(key, arg, o);
    state->child_inputs[0] = &o->input;
    state->child_inputs[1] = &o->input;
    state->child_inputs[2] = &o->mask;
    state->child_inputs[3] = &o->mask;
    state->child_inputs[4] = &o->threads;
    state->child_inputs[5] = &o->progress;
    state->child_inputs[6] = &o->output;
    return 0;
}

static const struct argp check_argp = {
    .options =
        (const struct argp_option[]){
            {.doc = "Input:", .group = 10},
            {.doc = "Result:", .group = 15},
            {.doc = "What was computed:", .group = 20},
            {.doc = "Common options:", .group = 40},
            {"result", KEY_RESULT, "FILE", 0,
             "The result to judge: o, and lse if it is there, in a .safetensors file, or o alone "
             "in a .npy file",
             15},
            {"contract", KEY_CONTRACT, "TYPE", 0,
             "Whose limits hold: f32, bf16 or f16; default those of o's own type", 15},
            {"rows", KEY_ROWS, "ROWS", 0, "Judge this many rows of each head; default all", 15},
            {0},
        },
    .parser = parse_check,
    .args_doc = "[A B]",
    .doc = "Judges any program's result by the double-precision oracle and the error contract "
           "(--input with --result), or compares two results A and B, whose limits are twice the "
           "contract's.",
    .children =
        (const struct argp_child[]){
            {.argp = &cli_input_argp},
            {.argp = &cli_nonfinite_argp},
            {.argp = &cli_causal_argp},
            {.argp = &cli_scale_argp},
            {.argp = &cli_threads_argp},
            {.argp = &cli_progress_argp},
            {.argp = &cli_output_argp},
            {0},
        },
};

/* ---- a result against the oracle */

struct check_run {
    struct cli_world *world;
    const struct check_options *options;
    struct cli_progress *progress;
    struct cli_inputs inputs;
    struct cli_source o_source, lse_source;
    bool has_lse;
    struct ls_layout q_layout, k_layout;
    struct ls_tensor qkv[3], o, lse;
    struct cli_verdict verdict;
};

static ls_status check_result_shape(const struct check_run *run)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const bool bshd = run->inputs.order == CLI_BSHD;
    const int64_t o_dim[] = {n->b, bshd ? n->s_q : n->h, bshd ? n->h : n->s_q, n->d};
    const int64_t lse_dim[] = {n->b, n->h, n->s_q};
    const struct ls_file_tensor *o = run->o_source.tensor, *lse = run->lse_source.tensor;

    if (o->ndim != 4 || memcmp(o->dim, o_dim, sizeof(o_dim)) != 0)
        return ls_fail(LS_ESHAPE,
                       "%s: shape is not the %" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64
                       " that the input asks for",
                       run->o_source.label, o_dim[0], o_dim[1], o_dim[2], o_dim[3]);
    if (run->has_lse && (lse->ndim != 3 || memcmp(lse->dim, lse_dim, sizeof(lse_dim)) != 0))
        return ls_fail(LS_ESHAPE,
                       "%s: shape is not the %" PRId64 ",%" PRId64 ",%" PRId64
                       " that the input asks for",
                       run->lse_source.label, lse_dim[0], lse_dim[1], lse_dim[2]);
    return LS_OK;
}

static ls_status open_result(struct check_run *run)
{
    const char *path = run->options->result;

    LS_TRY(cli_source_open(&run->o_source, path, "o", true));
    run->has_lse = ls_tensor_file_find(run->o_source.file, "lse") != NULL;
    if (run->has_lse) LS_TRY(cli_source_open(&run->lse_source, path, "lse", false));
    return check_result_shape(run);
}

/* NaN and infinity in a result are the verdict's business. */
static ls_status load_result(struct check_run *run)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const int rank = run->world->rank;
    const int64_t rows = ls_layout_part_rows(&run->q_layout, rank);

    LS_TRY(
        cli_tensor_create(&run->o, run->o_source.type, run->inputs.order, n->b, rows, n->h, n->d));
    LS_TRY(cli_source_load(&run->o, &run->o_source, run->inputs.order, &run->q_layout, rank, true,
                           run->progress));
    if (!run->has_lse) return LS_OK;
    LS_TRY(cli_tensor_create(&run->lse, LS_F32, CLI_BHSD, n->b, rows, n->h, 1));
    return cli_source_load(&run->lse, &run->lse_source, CLI_BHSD, &run->q_layout, rank, true,
                           run->progress);
}

static ls_dtype contract_type(const struct check_run *run)
{
    const ls_dtype type = run->o_source.type;

    if (run->options->has_contract) return run->options->contract;
    return type == LS_F64 ? LS_F32 : type;
}

static ls_status judge(struct check_run *run)
{
    const struct check_options *o = run->options;
    const struct ls_attention_shape *n = &run->inputs.shape;
    const struct cli_verify what = {
        .shape = *n,
        .causal = o->mask.causal,
        .scale = o->mask.has_scale ? (double)o->mask.scale : 1 / sqrt((double)n->d),
        .q_layout = run->q_layout,
        .k_layout = run->k_layout,
        .q = run->qkv[0],
        .k = run->qkv[1],
        .v = run->qkv[2],
        .o = run->o,
        .lse = run->has_lse ? run->lse.data : NULL,
        .contract = contract_type(run),
        .rows = o->rows,
        .threads = o->threads,
    };

    return cli_verify(&run->verdict, run->world, &what, run->progress);
}

static ls_status check(struct check_run *run)
{
    const struct check_options *o = run->options;
    struct cli_world *world = run->world;

    LS_TRY(cli_inputs_open(&run->inputs, world, &o->input, true));
    run->q_layout = (struct ls_layout){LS_LAYOUT_CONTIGUOUS, run->inputs.shape.s_q, world->size};
    run->k_layout = (struct ls_layout){LS_LAYOUT_CONTIGUOUS, run->inputs.shape.s_k, world->size};
    LS_TRY(ls_comm_agree(world->comm, open_result(run)));
    LS_TRY(cli_memory_check(
        world, cli_tensor_bytes(&run->inputs.shape, &run->q_layout, &run->k_layout, world->rank)));
    LS_TRY(cli_inputs_load(run->qkv, &run->inputs, world, &run->q_layout, &run->k_layout,
                           o->input.allow_nonfinite, run->progress));
    LS_TRY(ls_comm_agree(world->comm, load_result(run)));
    return judge(run);
}

static void check_fini(struct check_run *run)
{
    ls_free(run->lse.data);
    ls_free(run->o.data);
    for (int i = 0; i < 3; i++) ls_free(run->qkv[i].data);
    cli_source_close(&run->lse_source);
    cli_source_close(&run->o_source);
    cli_inputs_close(&run->inputs);
    cli_progress_destroy(run->progress);
}

static void report_check(const struct cli_report *report, const struct check_run *run)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const struct check_options *o = run->options;

    cli_report_line(report, "input", "%s, as %s", run->inputs.origin, ls_dtype_name(n->type));
    cli_report_line(report, "result", "%s, o in %s", o->result, ls_dtype_name(run->o_source.type));
    cli_report_line(report, "attention", "%s queries x %s keys, %s, heads %s, head dim %s",
                    cli_count(n->s_q).s, cli_count(n->s_k).s, o->mask.causal ? "causal" : "full",
                    cli_count(n->h).s, cli_count(n->d).s);
    cli_report_string(report, "contract", ls_dtype_name(run->verdict.contract));
    cli_report_integer(report, "ranks", run->world->size);
    cli_verify_report(report, &run->verdict);
}

static ls_status check_result(bool *held, const struct cli_report *report, struct cli_world *world,
                              const struct check_options *o)
{
    struct check_run run = {.world = world, .options = o};

    cli_progress_create(&run.progress, world, o->progress, o->output.quiet);
    const ls_status status = check(&run);

    if (status == LS_OK) {
        *held = run.verdict.verdict.ok;
        report_check(report, &run);
    }
    check_fini(&run);
    return status;
}

/* ---- all of it */

static ls_status check_pair_options(const struct check_options *o)
{
    const struct cli_input_options *in = &o->input;

    if (o->pairs != 2)
        return ls_fail(LS_EVALUE, "give --input and --result, or two results to compare");
    if (o->result || o->rows || o->mask.causal || o->mask.has_scale || cli_inputs_given(in) ||
        in->has_order || in->has_dtype || in->allow_nonfinite)
        return ls_fail(LS_EVALUE, "two results are compared without an input: only --contract "
                                  "and the common options go with them");
    return LS_OK;
}

static ls_status run_check(bool *held, struct cli_world *world, const struct check_options *o)
{
    struct cli_report report;
    const bool oracle = o->result && o->pairs == 0;
    ls_status status;

    if (!oracle) LS_TRY(check_pair_options(o));
    LS_TRY_GOTO(status, cli_report_open(&report, world, &o->output), fini);
    status = oracle ? check_result(held, &report, world, o)
                    : cli_compare(held, &report, world, o->pair[0], o->pair[1],
                                  o->has_contract ? &o->contract : NULL);
    if (status == LS_OK) status = cli_report_commit(&report, world);
fini:
    cli_report_fini(&report);
    return status;
}

ls_status cli_check(bool *held, struct cli_world *world, int argc, char **argv)
{
    const struct ls_attention_options mask = LS_ATTENTION_OPTIONS;
    struct check_options options = {.mask = mask};
    bool done;

    LS_TRY(cli_options_parse(&done, world, &check_argp, argc, argv, &options));
    return done ? LS_OK : run_check(held, world, &options);
}
