#include "cli/bench_layer.h"

#include <stdlib.h>
#include <strings.h>

#include "cli/binding.h"
#include "cli/command.h"
#include "cli/memory.h"
#include "cli/values.h"
#include "comm/comm.h"
#include "plan/model_size.h"
#include "plan/pieces.h"

#define MOST_SIZE ((int64_t)1 << 32)
#define MOST_LAYERS 10000
#define MOST_REPEATS 1000000

/* ---- options: a row each */

typedef enum { FLAG, COUNT, NUMBER, NAME, METHOD, TEXT, TYPE } value_kind;

static const char *const norms[] = {"layer", "rms", NULL};
static const char *const activations[] = {"gelu", "gelu-erf", "relu", "swiglu", NULL};
static const char *const cores[] = {"fused", "materialized", NULL};
static const char *const layouts[] = {"auto", "contiguous", "zigzag", "striped", "balanced", NULL};
static const char *const masks[] = {"stored", "regenerated", NULL};

#define SHAPE CLI_SECTION_INPUT
#define WORK CLI_SECTION_COMPUTATION
#define RESULT CLI_SECTION_RESULTS
#define FIELD(name) offsetof(struct cli_layer_options, name)

static const struct row {
    const char *name, *arg;
    int section;
    value_kind kind;
    size_t field; /* of struct cli_layer_options */
    const char *doc;
    int64_t most;             /* of a COUNT, which is 1 at least */
    const char *const *names; /* of a NAME */
    int flags;                /* of struct argp_option */
} rows[] = {
    {"hidden", "H", SHAPE, COUNT, FIELD(hidden), .doc = "Width", .most = MOST_SIZE},
    {"heads", "A", SHAPE, COUNT, FIELD(heads), .doc = "Query heads", .most = MOST_SIZE},
    {"kv-heads", "K", SHAPE, COUNT, FIELD(kv_heads), .doc = "Key/value heads; default A",
     .most = MOST_SIZE},
    {"mlp", "N", SHAPE, COUNT, FIELD(mlp), .doc = "Width of the MLP; default 4 H",
     .most = MOST_SIZE},
    {"seq", "S", SHAPE, COUNT, FIELD(seq), .doc = "Length of a sequence", .most = MOST_SIZE},
    {"batch", "B", SHAPE, COUNT, FIELD(batch), .doc = "Sequences; default 1", .most = MOST_SIZE},
    {"layers", "L", SHAPE, COUNT, FIELD(layers),
     .doc = "Layers of the same weights, one after the other; default 1", .most = MOST_LAYERS},
    {"dtype", "TYPE", SHAPE, TYPE, FIELD(type), .doc = "bf16 (default) or f32"},
    {"weights", "FILE", SHAPE, TEXT, FIELD(weights),
     .doc = "A .safetensors file with the whole weights, and x and dy, which are random where it "
            "has none"},
    {"norm", "NORM", WORK, NAME, FIELD(norm), .doc = "layer (default) or rms", .names = norms},
    {"activation", "NAME", WORK, NAME, FIELD(activation),
     .doc = "gelu (default), gelu-erf, relu or swiglu", .names = activations},
    {"post-norm", NULL, WORK, FLAG, FIELD(post_norm), .doc = "Norms behind the blocks, not before"},
    {"parallel", NULL, WORK, FLAG, FIELD(parallel),
     .doc = "Attention and MLP side by side, behind one norm"},
    {"no-bias", NULL, WORK, FLAG, FIELD(no_bias), .doc = "Linears without biases"},
    {"causal", NULL, WORK, FLAG, FIELD(causal), .doc = "A query sees no later key"},
    {"rope", "THETA", WORK, NUMBER, FIELD(rope), .doc = "Rotary positions of this base"},
    {"dropout", "P", WORK, NUMBER, FIELD(dropout),
     .doc = "Behind both blocks and of attention's probabilities; default 0.1"},
    {"dropout-mask", "WHICH", WORK, NAME, FIELD(mask),
     .doc = "Masks behind the blocks are stored (default), a byte an element, or regenerated",
     .names = masks},
    {"tp", "T", WORK, COUNT, FIELD(tp), .doc = "Tensor-parallel ranks; default 1",
     .most = CLI_MOST_RANKS},
    {"cp", "C", WORK, COUNT, FIELD(cp),
     .doc = "Context-parallel ranks; default 1. There are T x C ranks", .most = CLI_MOST_RANKS},
    {"sp", NULL, WORK, FLAG, FIELD(sp),
     .doc = "Sequence parallelism: outside of attention and MLP tensor-parallel ranks share the "
            "rows"},
    {"recompute", "PIECES", WORK, TEXT, FIELD(recompute),
     .doc = "Computed again, not kept: none (default), selective, full, or some of core, norm, "
            "activation, mlp, qkv, dropout; of each layer, with slashes between them; auto: for "
            "each layer the cheapest that fit into --memory"},
    {"memory", "BYTES", WORK, TEXT, FIELD(memory),
     .doc = "With --recompute auto: what all that a rank allocates may take, such as 300MiB"},
    {"core", "CORE", WORK, NAME, FIELD(core),
     .doc = "Attention by tiles: fused (default), or materialized, of which all probabilities are "
            "kept",
     .names = cores},
    {"method", "NAME", WORK, METHOD, FIELD(method),
     .doc = "How ranks share fused attention (see longspan methods); default auto"},
    {"layout", "NAME", WORK, NAME, FIELD(layout),
     .doc = "Which positions a context-parallel rank holds: auto (default), contiguous, zigzag, "
            "striped or balanced",
     .names = layouts},
    {"strict", NULL, WORK, FLAG, FIELD(strict),
     .doc = "With the same T, the same bits for any C, threads, method, layout and pieces, with "
            "--sp and without"},
    {"repeat", "N", RESULT, COUNT, FIELD(repeat),
     .doc = "Compute N times, report the fastest; default 5", .most = MOST_REPEATS},
    {"out", "FILE", RESULT, TEXT, FIELD(out),
     .doc = "Write y, dx and all gradients to a .safetensors file", .flags = CLI_WRITES},
    {"verify", NULL, RESULT, FLAG, FIELD(verify),
     .doc = "Hold y and every gradient against the double-precision layer, which is slow"},
};

enum { ROWS = sizeof rows / sizeof *rows };

static ls_status set_name(int *out, const char *option, const char *value, const char *const *names)
{
    int n = 0;

    while (names[n]) n++;
    return cli_value_name(out, option, value, names, n);
}

static ls_status set_option(void *options, int key, const char *value)
{
    const struct row *row = &rows[key - CLI_KEY_OWN];
    void *field = (char *)options + row->field;
    char option[32];

    snprintf(option, sizeof option, "--%s", row->name);
    switch (row->kind) {
    case FLAG:
        *(bool *)field = true;
        return LS_OK;
    case COUNT:
        return cli_value_integer(field, option, value, 1, row->most);
    case NUMBER:
        return cli_value_float(field, option, value);
    case NAME:
        return set_name(field, option, value, row->names);
    case METHOD:
        return cli_value_method(field, option, value);
    case TYPE:
        return cli_value_dtype(field, option, value);
    default:
        *(const char **)field = value;
        return LS_OK;
    }
}

static ls_status parse(bool *done, struct cli_layer_options *o, const struct cli_world *world,
                       int argc, char **argv)
{
    struct argp_option own[ROWS + 1] = {{0}};
    const struct cli_syntax syntax = {
        .doc = "Time of a transformer layer, forward and backward, on T x C ranks, beside the GEMM "
               "rate of the same run; the activations that it keeps and the bytes that it sends, "
               "planned and measured.",
        .takes = CLI_TAKES_THREADS | CLI_TAKES_TRACE,
        .own = own,
        .set = set_option,
    };

    for (int i = 0; i < ROWS; i++) {
        const struct row *r = &rows[i];

        own[i] =
            (struct argp_option){r->name, CLI_KEY_OWN + i, r->arg, r->flags, r->doc, r->section};
    }
    *o = (struct cli_layer_options){
        .batch = 1, .layers = 1, .tp = 1, .cp = 1, .repeat = 5, .dropout = 0.1F, .type = LS_BF16};
    return cli_options_parse(done, &o->shared, world, &syntax, argc, argv, o);
}

/* ---- what they mean */

static ls_status check_sizes(const struct cli_layer_options *o, const struct cli_world *world)
{
    if (o->hidden == 0 || o->heads == 0 || o->seq == 0)
        return ls_fail(LS_EVALUE, "a layer needs --hidden, --heads and --seq");
    if (o->hidden % o->heads != 0)
        return ls_fail(LS_ESHAPE, "--hidden %lld cannot be shared evenly by --heads %lld",
                       (long long)o->hidden, (long long)o->heads);
    if (o->heads % o->kv_heads != 0)
        return ls_fail(LS_ESHAPE, "--heads %lld is not a multiple of --kv-heads %lld",
                       (long long)o->heads, (long long)o->kv_heads);
    if (o->tp * o->cp == world->size) return LS_OK;
    return ls_fail(
        LS_EVALUE,
        "--tp %lld x --cp %lld are %lld ranks, and there %s %d: start as many (mpirun -n "
        "%lld), or share them otherwise",
        (long long)o->tp, (long long)o->cp, (long long)(o->tp * o->cp),
        world->size == 1 ? "is" : "are", world->size, (long long)(o->tp * o->cp));
}

static struct ls_layer_options layer_options(const struct cli_layer_run *run)
{
    const struct cli_layer_options *o = &run->options;
    struct ls_layer_options layer = LS_LAYER_OPTIONS;

    layer.norm = (ls_norm_kind)o->norm;
    layer.activation = (ls_activation)o->activation;
    layer.post_norm = o->post_norm;
    layer.parallel = o->parallel;
    layer.no_bias = o->no_bias;
    layer.causal = o->causal;
    layer.rope_theta = o->rope;
    layer.dropout = o->dropout;
    layer.tp = (int)o->tp;
    layer.cp = (int)o->cp;
    layer.sp = o->sp;
    layer.strict = o->strict;
    layer.core = (ls_core_kind)o->core;
    layer.method = o->method;
    layer.layout = (ls_layout_kind)o->layout;
    return layer;
}

static ls_status read_options(bool *done, struct cli_layer_run *run, int argc, char **argv)
{
    struct cli_layer_options *o = &run->options;

    LS_TRY(parse(done, o, run->world, argc, argv));
    if (*done) return LS_OK;
    if (o->kv_heads == 0) o->kv_heads = o->heads;
    if (o->mlp == 0) o->mlp = 4 * o->hidden;
    LS_TRY(cli_world_complete(run->world));
    LS_TRY(check_sizes(o, run->world));
    LS_TRY(cli_layer_read_pieces(run));
    run->layer = layer_options(run);
    run->shape = (struct ls_layer_shape){.b = o->batch,
                                         .s = o->seq,
                                         .e = o->hidden,
                                         .h = o->heads,
                                         .h_kv = o->kv_heads,
                                         .d = o->hidden / o->heads,
                                         .f = o->mlp,
                                         .type = o->type};
    return LS_OK;
}

/* ---- stages */

/* What cannot be, and what cannot fit, before anything is touched. */
static ls_status check_run(const struct cli_layer_run *run)
{
    const struct ls_model_shape model = ls_layer_as_model(&run->shape, &run->layer);
    struct ls_model_run how = cli_layer_how(run, run->chooses ? LS_PIECE_LAYER : run->pieces[0]);
    struct ls_rank_bytes bytes;
    double layers = 0;

    LS_TRY(ls_model_bytes(&bytes, &model, &how));
    bytes.optimizer = bytes.layers = 0;
    for (int64_t i = 0; i < run->options.layers; i++) {
        if (!run->chooses) how.pieces = run->pieces[i];
        const struct ls_kept_bytes kept = ls_layer_kept_bytes(&model, &how);

        layers += (double)kept.paper + (double)kept.own;
    }
    return cli_memory_check(run->world, (double)ls_rank_bytes_total(&bytes) + layers);
}

static ls_status create_layers(struct cli_layer_run *run)
{
    LS_TRY(cli_gemm_init(&run->gemm, run->world, run->shape.type, run->options.shared.threads));
    run->layer.device = run->gemm.device;
    return ls_layer_plan_create(&run->plan, run->world->comm, &run->shape, &run->layer);
}

/* The pieces that want most memory to bring back. */
static unsigned most_again(const struct cli_layer_run *run)
{
    const struct ls_model_shape model = ls_layer_as_model(&run->shape, &run->layer);
    unsigned pieces = run->pieces[0];
    int64_t most = 0;

    for (int64_t i = 0; i < run->options.layers; i++) {
        const struct ls_model_run how = cli_layer_how(run, run->pieces[i]);
        const int64_t bytes = ls_layer_again_bytes(&model, &how);

        if (bytes <= most) continue;
        most = bytes;
        pieces = run->pieces[i];
    }
    return pieces;
}

static ls_status create_states(struct cli_layer_run *run)
{
    ls_status status = LS_OK;

    LS_TRY(cli_layer_choose_pieces(run));
    run->kept_before = ls_ledger_live(ls_device_ledger(run->gemm.device), LS_TAG_ACTIVATION);
    run->state = calloc((size_t)run->options.layers, sizeof *run->state);
    if (!run->state) status = ls_fail(LS_ENOMEM, "no memory for a list of layers");
    if (status == LS_OK) status = ls_layer_reserve(run->plan, most_again(run));
    for (int64_t i = 0; i < run->options.layers && status == LS_OK; i++)
        status = ls_layer_state_create(&run->state[i], run->plan, ls_pieces_name(run->pieces[i]).s);
    return ls_comm_agree(run->world->comm, status);
}

static ls_status prepare(struct cli_layer_run *run)
{
    const struct cli_options *shared = &run->options.shared;

    LS_TRY(cli_report_open(&run->report, run->world, shared));
    LS_TRY(check_run(run));
    LS_TRY(cli_layer_open_sources(run));
    LS_TRY(create_layers(run));
    LS_TRY(cli_layer_create_output(run));
    if (shared->trace)
        LS_TRY(
            ls_timeline_create(&run->timeline, run->world->comm, shared->trace, shared->threads));
    LS_TRY(cli_layer_create_tensors(run));
    return create_states(run);
}

static ls_status bench(struct cli_layer_run *run)
{
    LS_TRY(prepare(run));
    LS_TRY(cli_layer_compute(run));
    LS_TRY(cli_layer_write_output(run));
    if (run->timeline) LS_TRY(ls_timeline_commit(&run->events, &run->dropped, run->timeline));
    LS_TRY(cli_layer_report(run));
    if (run->options.verify) LS_TRY(cli_layer_verify(run));
    return cli_report_commit(&run->report, run->world);
}

static void fini(struct cli_layer_run *run)
{
    for (int64_t i = 0; run->state && i < run->options.layers; i++)
        ls_layer_state_destroy(run->state[i]);
    free(run->state);
    free(run->pieces);
    cli_layer_free_tensors(run);
    ls_layer_plan_destroy(run->plan);
    cli_gemm_fini(&run->gemm);
    ls_timeline_destroy(run->timeline);
    ls_output_destroy(run->output);
    cli_layer_close_sources(run);
    cli_report_fini(&run->report);
}

ls_status cli_bench_layer(bool *held, struct cli_world *world, int argc, char **argv)
{
    struct cli_layer_run run = {
        .world = world, .held = true, .resident_before = cli_memory_resident_peak()};
    bool done;

    ls_status status = read_options(&done, &run, argc, argv);

    if (status == LS_OK && done) return LS_OK;
    if (status == LS_OK) {
        cli_binding_hint(world, &run.options.shared);
        status = bench(&run);
    }

    fini(&run);
    *held = run.held;
    return status;
}
