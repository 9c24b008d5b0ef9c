#include <string.h>

#include "base/ledger.h"
#include "cli/binding.h"
#include "cli/command.h"
#include "cli/compare.h"
#include "cli/format.h"
#include "cli/mask_arrays.h"
#include "cli/memory.h"
#include "cli/quantized.h"
#include "cli/values.h"
#include "cli/verify_report.h"
#include "comm/comm.h"
#include "store/elements.h"
#include "tensor/file.h"

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
             "The result to judge: o, and lse, dq, dk, dv, dsinks, ddistance_bias and dbias as far "
             "as they are there, in a .safetensors file, or o alone in a .npy file",
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

/* What a file of results may hold. */
enum { O, LSE, DQ, DK, DV, DSINKS, DDISTANCE_BIAS, DBIAS, RESULTS };

static const char *const result_names[RESULTS] = {
    "o", "lse", "dq", "dk", "dv", "dsinks", "ddistance_bias", "dbias"};

struct check_run {
    struct cli_world *world;
    const struct check_options *options;
    struct ls_attention_options attention;
    struct cli_progress *progress;
    struct cli_inputs inputs;
    struct cli_mask_arrays arrays;
    struct ls_input source[RESULTS], d_o_source;
    bool has[RESULTS], has_gradients;
    struct ls_layout q_layout, k_layout;
    struct ls_tensor qkv[3], result[RESULTS], d_o;
    struct cli_quantized quantized;
    struct ls_judgement verdict;
};

static bool is_of_keys(int which)
{
    return which == DK || which == DV;
}

/* Numbers for each head, which every rank has. */
static bool is_of_heads(int which)
{
    return which == DSINKS || which == DDISTANCE_BIAS;
}

static int64_t width_of(const struct check_run *run, int which)
{
    const struct ls_attention_shape *n = &run->inputs.shape;

    if (which == DBIAS) return n->s_k;
    return which == LSE ? 1 : which == O || which == DV ? n->d_v : n->d;
}

/* Entries and heads that a result has rows of. */
static int64_t entries_of(const struct check_run *run, int which)
{
    return which == DBIAS && !run->attention.bias_per_entry ? 1 : run->inputs.shape.b;
}

static int64_t heads_of(const struct check_run *run, int which)
{
    if (which == DBIAS && !run->attention.bias_per_head) return 1;
    return is_of_keys(which) ? run->inputs.shape.h_kv : run->inputs.shape.h;
}

/* As the inputs are, but for those that are always alike. */
static ls_order order_of(const struct check_run *run, int which)
{
    return which == LSE || which == DBIAS ? LS_ORDER_BHSD : run->inputs.order;
}

/* The shape that a result must have. Returns its dimensions. */
static int dims_of(int64_t dim[LS_MAX_DIMS], const struct check_run *run, int which)
{
    const struct ls_attention_shape *n = &run->inputs.shape;
    const bool bshd = order_of(run, which) == LS_ORDER_BSHD;
    const int64_t s = is_of_keys(which) ? n->s_k : n->s_q, h = heads_of(run, which);

    dim[0] = is_of_heads(which) ? h : entries_of(run, which);
    dim[1] = is_of_heads(which) ? run->attention.distances : bshd ? s : h;
    dim[2] = bshd ? h : s;
    dim[3] = width_of(run, which);
    if (is_of_heads(which)) return which == DSINKS ? 1 : 2;
    return which == LSE ? 3 : 4;
}

static ls_status check_dims(struct check_run *run, int which)
{
    struct ls_input *source = &run->source[which];
    int64_t dim[LS_MAX_DIMS];
    const int ndim = dims_of(dim, run, which);

    if (which == DBIAS && heads_of(run, which) == 1) cli_input_add_batch(source, ndim - 1);
    if (!is_of_heads(which) && dim[0] == 1) cli_input_add_batch(source, ndim);
    if (source->ndim == ndim && memcmp(source->dim, dim, (size_t)ndim * sizeof(*dim)) == 0)
        return LS_OK;
    const bool of_values = which == O || which == DV;

    return ls_fail(LS_ESHAPE, "%s: shape is %s, the input asks for %s%s%s", source->label,
                   cli_dims(source->dim, source->ndim).s, cli_dims(dim, ndim).s,
                   of_values ? ", with the head dim of " : "",
                   of_values ? run->inputs.source[2].label : "");
}

static ls_status open_result(struct check_run *run)
{
    const struct cli_names *names = &run->options->shared.input.names;
    const char *path = run->options->result;

    LS_TRY(cli_names_open(&run->source[O], names, "o", run->world, path, true));
    run->has[O] = true;
    for (int i = LSE; i < RESULTS; i++) {
        run->has[i] = cli_names_expect(names, result_names[i], run->source[O].file);
        run->has_gradients |= run->has[i] && i >= DQ;
        if (run->has[i])
            LS_TRY(cli_names_open_beside(&run->source[i], names, result_names[i], &run->source[O]));
    }
    for (int i = DK; i < RESULTS; i++)
        if (run->has[i] && !run->has[LSE])
            return ls_fail(LS_EVALUE, "%s: holds no tensor 'lse', by which %s is judged", path,
                           result_names[i]);
    if (run->has[DSINKS] && !run->attention.sinks)
        return ls_fail(LS_EVALUE,
                       "%s: holds dsinks, which are judged only with the sinks: give --sinks",
                       path);
    if (run->has[DDISTANCE_BIAS] && !run->attention.distance_bias)
        return ls_fail(LS_EVALUE,
                       "%s: holds ddistance_bias, which is judged only with the biases: give "
                       "--distance-bias",
                       path);
    if (run->has[DBIAS] && !run->attention.bias)
        return ls_fail(LS_EVALUE,
                       "%s: holds dbias, which is judged only with the biases: give --bias", path);
    for (int i = 0; i < RESULTS; i++)
        if (run->has[i]) LS_TRY(check_dims(run, i));
    return LS_OK;
}

static double finite_unless_allowed(const struct check_run *run)
{
    return run->options->shared.input.allow_nonfinite ? LS_ANY_VALUE : LS_FINITE;
}

/* As one of queries or of keys; lse as one of elements of a single number. */
static ls_status load(struct ls_tensor *out, const struct check_run *run,
                      const struct ls_input *source, int which, ls_dtype type, double limit)
{
    const struct ls_layout *layout = is_of_keys(which) ? &run->k_layout : &run->q_layout;
    const ls_order order = order_of(run, which);
    const int64_t rows = ls_layout_part_rows(layout, run->world->rank);

    LS_TRY(ls_comm_agree(run->world->comm,
                         cli_tensor_create(out, type, order, entries_of(run, which), rows,
                                           heads_of(run, which), width_of(run, which))));
    return cli_input_load(out, run->world, source, order, layout, limit, run->progress);
}

/* All of it, on every rank. */
static ls_status load_numbers(struct check_run *run, int which)
{
    int64_t dim[LS_MAX_DIMS];
    const int ndim = dims_of(dim, run, which);
    const int64_t n = dim[0] * (ndim == 2 ? dim[1] : 1);
    void *data;

    LS_TRY(ls_alloc(&data, LS_TAG_ACTIVATION, (size_t)n * sizeof(float)));
    run->result[which] = ls_tensor_view(data, LS_F32, ndim, dim);
    return ls_input_read_floats(data, &run->source[which], 0, n);
}

/* NaN and infinity in a result are the verdict's business. */
static ls_status load_result(struct check_run *run)
{
    for (int i = 0; i < RESULTS; i++)
        if (run->has[i] && !is_of_heads(i))
            LS_TRY(load(&run->result[i], run, &run->source[i], i,
                        i == LSE ? LS_F32 : run->source[i].type, LS_ANY_VALUE));
    for (int i = DSINKS; i <= DDISTANCE_BIAS; i++)
        if (run->has[i]) LS_TRY(ls_comm_agree(run->world->comm, load_numbers(run, i)));
    if (!run->has_gradients) return LS_OK;
    return load(&run->d_o, run, &run->d_o_source, O, run->inputs.shape.type,
                finite_unless_allowed(run));
}

static ls_dtype contract_type(const struct check_run *run)
{
    const ls_dtype type = run->source[O].type;

    if (run->options->has_contract) return run->options->contract;
    return type == LS_F64 ? LS_F32 : type;
}

static ls_status judge(struct check_run *run)
{
    struct ls_tensor *const r = run->result, *const qkv = run->qkv;
    const struct ls_tensor *const kv =
        run->quantized.exact[0].data ? run->quantized.exact : &qkv[1];
    const int64_t lse_dim[] = {r[LSE].dim[0], r[LSE].dim[2], r[LSE].dim[1]};
    const struct ls_tensor lse = ls_tensor_view(r[LSE].data, LS_F32, 3, lse_dim);
    const int64_t dbias_dim[] = {r[DBIAS].dim[0], r[DBIAS].dim[2], r[DBIAS].dim[1],
                                 r[DBIAS].dim[3]};
    struct ls_tensor dbias = ls_tensor_view(r[DBIAS].data, r[DBIAS].type, 4, dbias_dim);
    const struct ls_attention_saved result = {.q = &qkv[0],
                                              .k = &kv[0],
                                              .v = &kv[1],
                                              .o = &r[O],
                                              .lse = run->has[LSE] ? &lse : NULL,
                                              .d_o = run->has_gradients ? &run->d_o : NULL};
    const struct ls_attention_gradients gradients = {
        .dq = run->has[DQ] ? &r[DQ] : NULL,
        .dk = run->has[DK] ? &r[DK] : NULL,
        .dv = run->has[DV] ? &r[DV] : NULL,
        .dsinks = run->has[DSINKS] ? &r[DSINKS] : NULL,
        .ddistance_bias = run->has[DDISTANCE_BIAS] ? &r[DDISTANCE_BIAS] : NULL,
        .dbias = run->has[DBIAS] ? &dbias : NULL};
    const struct ls_judge_task task = {.shape = &run->inputs.shape,
                                       .options = &run->attention,
                                       .q_layout = run->q_layout,
                                       .k_layout = run->k_layout,
                                       .result = &result,
                                       .gradients = &gradients,
                                       .contract = contract_type(run),
                                       .rows = run->options->rows};
    const struct ls_progress_callback callback = cli_progress_callback(run->progress);

    return ls_judge_attention(&run->verdict, run->world->comm, &task, &callback);
}

static ls_status check(struct check_run *run)
{
    const struct check_options *o = run->options;
    struct cli_world *world = run->world;

    LS_TRY(cli_inputs_open(&run->inputs, world, &o->shared.input, true));
    LS_TRY(cli_mask_load(&run->arrays, &run->attention, &o->shared.mask, &o->shared.input, world,
                         &run->inputs));
    run->q_layout = (struct ls_layout){
        .kind = LS_LAYOUT_CONTIGUOUS, .s = run->inputs.shape.s_q, .p = world->size};
    run->k_layout = (struct ls_layout){
        .kind = LS_LAYOUT_CONTIGUOUS, .s = run->inputs.shape.s_k, .p = world->size};
    LS_TRY(ls_comm_agree(world->comm, open_result(run)));
    if (run->has_gradients)
        LS_TRY(cli_inputs_open_do(&run->d_o_source, &run->inputs, world, &o->shared.input));
    LS_TRY(cli_memory_check(
        world, (run->has_gradients ? 2 : 1) * cli_tensor_bytes(&run->inputs.shape, &run->q_layout,
                                                               &run->k_layout, world->rank) +
                   cli_quantized_bytes(&run->inputs, &run->k_layout, world->rank) +
                   (run->has[DBIAS] ? cli_bias_gradient_bytes(&run->inputs.shape, &run->attention,
                                                              &run->q_layout, world->rank)
                                    : 0)));
    LS_TRY(cli_inputs_load(run->qkv, &run->inputs, world, &run->q_layout, &run->k_layout,
                           finite_unless_allowed(run), run->progress));
    LS_TRY(cli_quantized_load(&run->quantized, &run->inputs, world, run->qkv, &run->k_layout,
                              run->progress));
    if (run->inputs.brings_quantized)
        LS_TRY(cli_quantized_widen(&run->quantized, &run->inputs, world));
    LS_TRY(load_result(run));
    return judge(run);
}

static void check_fini(struct check_run *run)
{
    for (int i = 0; i < RESULTS; i++) {
        ls_free(run->result[i].data);
        ls_input_close(&run->source[i]);
    }
    ls_free(run->d_o.data);
    ls_input_close(&run->d_o_source);
    cli_quantized_free(&run->quantized);
    for (int i = 0; i < 3; i++) ls_free(run->qkv[i].data);
    cli_mask_free(&run->arrays);
    cli_inputs_close(&run->inputs);
    cli_progress_destroy(run->progress);
}

static void report_check(const struct cli_report *report, const struct check_run *run)
{
    const struct check_options *o = run->options;

    cli_report_task(report, &run->inputs.shape, &run->attention);
    cli_mask_report(report, &run->arrays);
    cli_report_line(report, "input", "%s", run->inputs.origin);
    cli_report_line(report, "result", "%s, o in %s", o->result, ls_dtype_name(run->source[O].type));
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
        return ls_fail(LS_EVALUE, "two results are compared without an input: only --contract, "
                                  "--names and the common options go with them");
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
                    : cli_compare(held, &report, world, o->pair, &o->shared.input.names,
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
