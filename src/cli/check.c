#include <string.h>

#include "attention/options.h"
#include "base/ledger.h"
#include "cli/binding.h"
#include "cli/command.h"
#include "cli/compare.h"
#include "cli/format.h"
#include "cli/memory.h"
#include "cli/values.h"
#include "cli/verify.h"
#include "comm/comm.h"
#include "tensor/dtype.h"

/* ---- options */

enum { KEY_RESULT = CLI_KEY_OWN, KEY_CONTRACT, KEY_ROWS };

struct check_options {
    struct cli_options shared;
    const char *result;
    const char *pair[2];
    int pairs;
    bool has_contract;
    ls_dtype contract;
    int64_t rows; /* 0: all */
};

static ls_status set_option(void *options, int key, const char *value)
{
    struct check_options *o = options;

    switch (key) {
    case KEY_RESULT:
        o->result = value;
        return LS_OK;
    case KEY_CONTRACT:
        o->has_contract = true;
        return cli_value_dtype(&o->contract, "--contract", value);
    case KEY_ROWS:
        return cli_value_integer(&o->rows, "--rows", value, 1, INT64_MAX);
    default:
        if (o->pairs == 2) return cli_options_surplus(value);
        o->pair[o->pairs++] = value;
        return LS_OK;
    }
}

static const struct cli_syntax check_syntax = {
    .doc = "Judges any program's result by the double-precision oracle and the error contract "
           "(--input with --result), or compares two results A and B, whose limits are twice the "
           "contract's.",
    .arguments = "[A B]",
    .takes = CLI_TAKES_INPUT | CLI_TAKES_ELEMENTS | CLI_TAKES_MASK | CLI_TAKES_SCALE |
             CLI_TAKES_THREADS | CLI_TAKES_PROGRESS,
    .own =
        (const struct argp_option[]){
            {"result", KEY_RESULT, "FILE", 0,
             "The result to judge: o, and lse, dq, dk and dv as far as they are there, in a "
             ".safetensors file, or o alone in a .npy file",
             CLI_SECTION_RESULTS},
            {"contract", KEY_CONTRACT, "TYPE", 0,
             "Whose limits hold: f32, bf16 or f16; default those of o's own type, of A and B those "
             "of each tensor's",
             CLI_SECTION_RESULTS},
            {"rows", KEY_ROWS, "ROWS", 0, "Judge this many rows of each head; default all",
             CLI_SECTION_RESULTS},
            {0},
        },
    .set = set_option,
};

/* ---- a result against the oracle */

struct check_run {
    struct cli_world *world;
    const struct check_options *options;
    struct ls_attention_options attention;
    struct cli_progress *progress;
    struct cli_inputs inputs;
    struct cli_mask_arrays arrays;
    struct cli_source o_source, lse_source;
    bool has_lse, has_gradients;
    struct cli_source d_o_source, gradient_source[CLI_GRADIENTS];
    struct cli_verify_gradients gradients;
    struct ls_layout q_layout, k_layout;
    struct ls_tensor qkv[3], o, lse;
    struct cli_verdict verdict;
};

static ls_status check_dims(const struct cli_source *source, const int64_t *dim, int ndim)
{
    const struct ls_file_tensor *t = source->tensor;

    if (t->ndim == ndim && memcmp(t->dim, dim, (size_t)ndim * sizeof(*dim)) == 0) return LS_OK;
    return ls_fail(LS_ESHAPE, "%s: shape is %s, the input asks for %s", source->label,
                   cli_dims(t->dim, t->ndim).s, cli_dims(dim, ndim).s);
}

static ls_status check_result_shape(const struct check_run *run)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const bool bshd = run->inputs.order == CLI_BSHD;
    const int64_t o_dim[] = {n->b, bshd ? n->s_q : n->h, bshd ? n->h : n->s_q, n->d};
    const int64_t lse_dim[] = {n->b, n->h, n->s_q};

    const int64_t k_dim[] = {n->b, bshd ? n->s_k : n->h_kv, bshd ? n->h_kv : n->s_k, n->d};

    LS_TRY(check_dims(&run->o_source, o_dim, 4));
    for (int i = 0; i < CLI_GRADIENTS; i++)
        if (run->gradients.has[i])
            LS_TRY(check_dims(&run->gradient_source[i], i == CLI_DQ ? o_dim : k_dim, 4));
    return run->has_lse ? check_dims(&run->lse_source, lse_dim, 3) : LS_OK;
}

static ls_status open_gradients(struct check_run *run, const char *path)
{
    static const char *const names[CLI_GRADIENTS] = {"dq", "dk", "dv"};
    struct cli_verify_gradients *g = &run->gradients;

    for (int i = 0; i < CLI_GRADIENTS; i++) {
        g->has[i] = ls_tensor_file_find(run->o_source.file, names[i]) != NULL;
        run->has_gradients |= g->has[i];
        if (g->has[i]) LS_TRY(cli_source_open(&run->gradient_source[i], path, names[i], false));
    }
    if ((g->has[CLI_DK] || g->has[CLI_DV]) && !run->has_lse)
        return ls_fail(LS_EVALUE, "%s: holds no tensor 'lse', by which dk and dv are judged", path);
    return LS_OK;
}

static ls_status open_result(struct check_run *run)
{
    const char *path = run->options->result;

    LS_TRY(cli_source_open(&run->o_source, path, "o", true));
    run->has_lse = ls_tensor_file_find(run->o_source.file, "lse") != NULL;
    if (run->has_lse) LS_TRY(cli_source_open(&run->lse_source, path, "lse", false));
    LS_TRY(open_gradients(run, path));
    return check_result_shape(run);
}

static double finite_unless_allowed(const struct check_run *run)
{
    return run->options->shared.input.allow_nonfinite ? CLI_ANY_VALUE : CLI_FINITE;
}

/* One of queries, or of keys. */
static ls_status load_like(struct ls_tensor *out, const struct check_run *run,
                           const struct cli_source *source, bool of_keys, ls_dtype type,
                           double limit)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const struct ls_layout *layout = of_keys ? &run->k_layout : &run->q_layout;
    const int rank = run->world->rank;

    LS_TRY(cli_tensor_create(out, type, run->inputs.order, n->b, ls_layout_part_rows(layout, rank),
                             of_keys ? n->h_kv : n->h, n->d));
    return cli_source_load(out, source, run->inputs.order, layout, rank, limit, run->progress);
}

static ls_status load_gradients(struct check_run *run)
{
    struct cli_verify_gradients *g = &run->gradients;

    LS_TRY(load_like(&g->d_o, run, &run->d_o_source, false, run->inputs.shape.type,
                     finite_unless_allowed(run)));
    for (int i = 0; i < CLI_GRADIENTS; i++) {
        const struct cli_source *source = &run->gradient_source[i];

        if (g->has[i])
            LS_TRY(load_like(&g->of[i], run, source, i != CLI_DQ, source->type, CLI_ANY_VALUE));
    }
    return LS_OK;
}

/* NaN and infinity in a result are the verdict's business. */
static ls_status load_result(struct check_run *run)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const int rank = run->world->rank;
    const int64_t rows = ls_layout_part_rows(&run->q_layout, rank);

    LS_TRY(load_like(&run->o, run, &run->o_source, false, run->o_source.type, CLI_ANY_VALUE));
    if (run->has_gradients) LS_TRY(load_gradients(run));
    if (!run->has_lse) return LS_OK;
    LS_TRY(cli_tensor_create(&run->lse, LS_F32, CLI_BHSD, n->b, rows, n->h, 1));
    return cli_source_load(&run->lse, &run->lse_source, CLI_BHSD, &run->q_layout, rank,
                           CLI_ANY_VALUE, run->progress);
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
    struct cli_verify what = {
        .shape = run->inputs.shape,
        .q_layout = run->q_layout,
        .k_layout = run->k_layout,
        .q = run->qkv[0],
        .k = run->qkv[1],
        .v = run->qkv[2],
        .o = run->o,
        .lse = run->has_lse ? run->lse.data : NULL,
        .contract = contract_type(run),
        .rows = o->rows,
        .threads = o->shared.threads,
        .gradients = run->has_gradients ? &run->gradients : NULL,
    };

    LS_TRY(ls_options_mask(&what.mask, &what.shape, &run->attention));
    LS_TRY(ls_options_scores(&what.scores, &what.shape, &run->attention));
    return cli_verify(&run->verdict, run->world, &what, run->progress);
}

static ls_status check(struct check_run *run)
{
    const struct check_options *o = run->options;
    struct cli_world *world = run->world;

    LS_TRY(cli_inputs_open(&run->inputs, world, &o->shared.input, true));
    LS_TRY(
        cli_mask_load(&run->arrays, &run->attention, &o->shared.mask, world, &run->inputs.shape));
    run->q_layout = (struct ls_layout){
        .kind = LS_LAYOUT_CONTIGUOUS, .s = run->inputs.shape.s_q, .p = world->size};
    run->k_layout = (struct ls_layout){
        .kind = LS_LAYOUT_CONTIGUOUS, .s = run->inputs.shape.s_k, .p = world->size};
    LS_TRY(ls_comm_agree(world->comm, open_result(run)));
    if (run->has_gradients)
        LS_TRY(cli_inputs_open_do(&run->d_o_source, &run->inputs, world, &o->shared.input));
    LS_TRY(cli_memory_check(world, (run->has_gradients ? 2 : 1) *
                                       cli_tensor_bytes(&run->inputs.shape, &run->q_layout,
                                                        &run->k_layout, world->rank)));
    LS_TRY(cli_inputs_load(run->qkv, &run->inputs, world, &run->q_layout, &run->k_layout,
                           finite_unless_allowed(run), run->progress));
    LS_TRY(ls_comm_agree(world->comm, load_result(run)));
    return judge(run);
}

static void check_fini(struct check_run *run)
{
    for (int i = 0; i < CLI_GRADIENTS; i++) {
        ls_free(run->gradients.of[i].data);
        cli_source_close(&run->gradient_source[i]);
    }
    ls_free(run->gradients.d_o.data);
    cli_source_close(&run->d_o_source);
    ls_free(run->lse.data);
    ls_free(run->o.data);
    for (int i = 0; i < 3; i++) ls_free(run->qkv[i].data);
    cli_source_close(&run->lse_source);
    cli_source_close(&run->o_source);
    cli_mask_free(&run->arrays);
    cli_inputs_close(&run->inputs);
    cli_progress_destroy(run->progress);
}

static void report_check(const struct cli_report *report, const struct check_run *run)
{
    const struct check_options *o = run->options;

    cli_report_task(report, &run->inputs.shape, &run->attention);
    cli_report_line(report, "input", "%s", run->inputs.origin);
    cli_report_line(report, "result", "%s, o in %s", o->result, ls_dtype_name(run->o_source.type));
    cli_report_string(report, "contract", ls_dtype_name(run->verdict.contract));
    cli_report_integer(report, "ranks", run->world->size);
    cli_verify_report(report, &run->verdict);
}

static ls_status check_result(bool *held, const struct cli_report *report, struct cli_world *world,
                              const struct check_options *o)
{
    struct check_run run = {.world = world, .options = o, .attention = o->shared.attention};

    cli_progress_create(&run.progress, world, o->shared.progress, o->shared.quiet);
    const ls_status status = check(&run);

    if (status == LS_OK) {
        *held = run.verdict.ok;
        report_check(report, &run);
    }
    check_fini(&run);
    return status;
}

/* ---- all of it */

static ls_status check_pair_options(const struct check_options *o)
{
    const struct cli_input_options *in = &o->shared.input;
    const struct ls_attention_options *mask = &o->shared.attention;

    if (o->pairs != 2)
        return ls_fail(LS_EVALUE, "give --input and --result, or two results to compare");
    if (o->result || o->rows || cli_mask_given(&o->shared.mask, mask) || mask->has_scale ||
        cli_inputs_given(in) || in->has_order || in->has_dtype || in->allow_nonfinite)
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
    LS_TRY_GOTO(status, cli_report_open(&report, world, &o->shared), fini);
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
    struct check_options options = {.result = NULL};
    bool done;

    LS_TRY(cli_options_parse(&done, &options.shared, world, &check_syntax, argc, argv, &options));
    if (done) return LS_OK;
    LS_TRY(cli_world_complete(world));
    cli_binding_hint(world, &options.shared);
    return run_check(held, world, &options);
}
