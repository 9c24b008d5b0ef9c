#include <string.h>

#include "cli/command.h"
#include "cli/format.h"
#include "cli/report.h"
#include "cli/values.h"
#include "comm/comm.h"
#include "model/config.h"
#include "model/presets.h"
#include "plan/memory.h"
#include "plan/model_size.h"
#include "plan/pieces.h"
#include "tensor/dtype.h"

enum {
    KEY_PRESET = CLI_KEY_OWN,
    KEY_CONFIG,
    KEY_TP,
    KEY_CP,
    KEY_PP,
    KEY_INTERLEAVE,
    KEY_SP,
    KEY_BATCH,
    KEY_SEQ,
    KEY_CAUSAL,
    KEY_RECOMPUTE,
    KEY_CORE,
    KEY_DROPOUT,
    KEY_DTYPE,
    KEY_RATE,
};

struct model_options {
    struct cli_options shared;
    const struct ls_preset *preset;
    const char *config; /* NULL: none */
    struct ls_model_shape model;
    struct ls_model_run run; /* 0: as the preset has it */
    float dropout, rate;     /* rate: TFLOPS of a rank; 0: not said */
};

static ls_status set_core(struct ls_model_run *run, const char *value)
{
    static const char *const names[] = {"fused", "materialized"};
    int which;

    LS_TRY(cli_value_name(&which, "--core", value, names, 2));
    run->core = which == 0 ? LS_CORE_FUSED : LS_CORE_MATERIALIZED;
    return LS_OK;
}

static ls_status set_dropout(struct model_options *o, const char *value)
{
    LS_TRY(cli_value_float(&o->dropout, "--dropout", value));
    o->run.dropout = o->dropout > 0;
    if (o->dropout >= 0 && o->dropout < 1) return LS_OK;
    return ls_fail(LS_EVALUE, "--dropout: %s must be 0 to below 1", value);
}

static ls_status set_rate(struct model_options *o, const char *value)
{
    LS_TRY(cli_value_float(&o->rate, "--rate", value));
    if (o->rate > 0) return LS_OK;
    return ls_fail(LS_EVALUE, "--rate: %s must be more than 0", value);
}

static ls_status set_option(void *options, int key, const char *value)
{
    struct model_options *o = options;
    struct ls_model_run *run = &o->run;

    switch (key) {
    case KEY_PRESET:
        return ls_preset_find(&o->preset, value);
    case KEY_CONFIG:
        o->config = value;
        return LS_OK;
    case KEY_TP:
        return cli_value_integer(&run->t, "--tp", value, 1, CLI_MOST_RANKS);
    case KEY_CP:
        return cli_value_integer(&run->c, "--cp", value, 1, CLI_MOST_RANKS);
    case KEY_PP:
        return cli_value_integer(&run->p, "--pp", value, 1, CLI_MOST_RANKS);
    case KEY_INTERLEAVE:
        return cli_value_integer(&run->m, "--interleave", value, 1, CLI_MOST_RANKS);
    case KEY_BATCH:
        return cli_value_integer(&run->b, "--batch", value, 1, INT32_MAX);
    case KEY_SEQ:
        return cli_value_integer(&run->s, "--seq", value, 1, (int64_t)1 << 40);
    case KEY_SP:
        run->sp = true;
        return LS_OK;
    case KEY_CAUSAL:
        run->causal = true;
        return LS_OK;
    case KEY_RECOMPUTE:
        return ls_pieces_parse(&run->pieces, value);
    case KEY_CORE:
        return set_core(run, value);
    case KEY_DROPOUT:
        return set_dropout(o, value);
    case KEY_DTYPE:
        return cli_value_dtype(&run->type, "--dtype", value);
    default:
        return set_rate(o, value);
    }
}

#define RUN CLI_SECTION_COMPUTATION

static const struct cli_syntax syntax = {
    .doc =
        "What a transformer takes of each rank when it is trained: parameters, gradients, AdamW, "
        "activations by name as Korthikanti et al. 2022 count them, and operations. Presets: "
        "gpt-22b, gpt-175b, gpt-530b, gpt-1t, opt-175b, bloom-176b, mt-nlg-530b, llama2-7b, "
        "llama2-13b, llama2-70b, llama3-8b, llama3-70b, llama3-405b.",
    .takes = 0,
    .own =
        (const struct argp_option[]){
            {"preset", KEY_PRESET, "NAME", 0, "A published model, run as it was trained",
             CLI_SECTION_INPUT},
            {"config", KEY_CONFIG, "FILE", 0, "A config.json as Hugging Face keeps them",
             CLI_SECTION_INPUT},
            {"batch", KEY_BATCH, "B", 0, "Sequences of a micro-batch", CLI_SECTION_INPUT},
            {"seq", KEY_SEQ, "S", 0, "Length of a sequence", CLI_SECTION_INPUT},
            {"dtype", KEY_DTYPE, "TYPE", 0,
             "bf16 (default), f16 or f32: of weights and activations", CLI_SECTION_INPUT},
            {"tp", KEY_TP, "T", 0, "Tensor-parallel ranks", RUN},
            {"cp", KEY_CP, "C", 0, "Context-parallel ranks", RUN},
            {"pp", KEY_PP, "P", 0, "Stages of the pipeline", RUN},
            {"interleave", KEY_INTERLEAVE, "M", 0, "Parts of a stage", RUN},
            {"sp", KEY_SP, NULL, 0,
             "Sequence parallelism: outside of attention and MLP "
             "tensor-parallel ranks share the rows",
             RUN},
            {"causal", KEY_CAUSAL, NULL, 0, "A query sees no later key", RUN},
            {"recompute", KEY_RECOMPUTE, "PIECES", 0,
             "none (default), selective, full, or some of core, norm, activation, mlp, qkv, "
             "dropout",
             RUN},
            {"core", KEY_CORE, "CORE", 0,
             "fused (default), or materialized: attention that keeps its probabilities", RUN},
            {"dropout", KEY_DROPOUT, "P", 0, "0.1 unless said; 0 keeps no masks", RUN},
            {"rate", KEY_RATE, "TFLOPS", 0, "Of a rank: says how long a step computes", RUN},
            {0},
        },
    .set = set_option,
};

/* ---- what is planned for */

static void complete(int64_t *n, int64_t otherwise)
{
    if (*n == 0) *n = otherwise;
}

static ls_status complete_options(struct model_options *o)
{
    struct ls_model_run *run = &o->run;
    int64_t s = 0;

    if (!o->preset == !o->config)
        return ls_fail(LS_EVALUE, "a model is needed: one of --preset NAME and --config FILE");
    if (o->config) {
        LS_TRY(ls_config_load(&o->model, &s, o->config));
    } else {
        o->model = o->preset->model;
        s = o->preset->s;
        complete(&run->b, o->preset->run.b);
        complete(&run->t, o->preset->run.t);
        complete(&run->p, o->preset->run.p);
        complete(&run->m, run->p == o->preset->run.p ? o->preset->run.m : 1);
    }
    complete(&run->s, s);
    int64_t *const counts[] = {&run->b, &run->t, &run->c, &run->p, &run->m};
    for (int i = 0; i < 5; i++) complete(counts[i], 1);
    return LS_OK;
}

/* ---- what is printed */

static void report_model(const struct cli_report *report, const struct model_options *o)
{
    static const char *const activations[] = {"GELU", "GELU (erf)", "ReLU", "SwiGLU"};
    const struct ls_model_shape *m = &o->model;
    const char *name = o->preset ? o->preset->name : o->config;

    cli_report_string(report, "model", name);
    cli_report_line(report, "model", "%s%s%s%s", name, o->preset ? " (" : "",
                    o->preset ? o->preset->source : "", o->preset ? ")" : "");
    cli_report_line(report, "", "%s, width %s, %s of %lld, of keys and values %lld",
                    cli_counted(m->L, "layer", "layers").s, cli_count(m->h).s,
                    cli_counted(m->a, "head", "heads").s, (long long)m->d, (long long)m->a_kv);
    cli_report_line(report, "", "MLP %s, %s, %s, %s words", cli_count(m->f).s,
                    activations[m->activation], m->norm == LS_NORM_LAYER ? "LayerNorm" : "RMSNorm",
                    cli_count(m->v).s);
    cli_report_line(report, "parameters", "%s", cli_count(ls_model_parameters(m)).s);
    cli_report_integer(report, "parameters", ls_model_parameters(m));
}

static void report_run(const struct cli_report *report, const struct ls_model_run *run)
{
    cli_report_line(report, "ranks", "%s: %lld tensor%s x %lld context x %lld pipeline%s",
                    cli_count(run->t * run->c * run->p).s, (long long)run->t,
                    run->sp ? " (and sequence)" : "", (long long)run->c, (long long)run->p,
                    run->m > 1 ? ", interleaved" : "");
    cli_report_line(report, "batch", "%s of %s, %s", cli_counted(run->b, "sequence", "sequences").s,
                    cli_count(run->s).s, ls_dtype_name(run->type));
    cli_report_line(report, "recompute", "%s; core %s, %s", ls_pieces_name(run->pieces).s,
                    run->core == LS_CORE_FUSED ? "fused" : "materialized",
                    run->dropout ? "dropout" : "no dropout");
    cli_report_integer(report, "ranks", run->t * run->c * run->p);
    cli_report_integer(report, "batch", run->b);
    cli_report_integer(report, "seq", run->s);
    cli_report_string(report, "recompute", ls_pieces_name(run->pieces).s);
}

/* One layer, item by item. */
static void report_layer(const struct cli_report *report, const struct model_options *o)
{
    struct ls_kept kept[LS_KEPT_KINDS];
    const int n = ls_layer_keeps(kept, &o->model, &o->run);
    const struct ls_kept_bytes all = ls_layer_kept_bytes(&o->model, &o->run);
    json_t *list = json_array();

    cli_report_say(report, "%s", "");
    cli_report_line(report, "a layer", "%s kept: %s as the paper counts, and %s",
                    cli_bytes((double)(all.paper + all.own)).s, cli_bytes((double)all.paper).s,
                    cli_bytes((double)all.own).s);
    for (int i = 0; i < n; i++) {
        const struct ls_kept_about *about = ls_kept_about(kept[i].kind);
        const bool gone = about->pieces & o->run.pieces;

        cli_report_line(report, "", "%-22s %10s%s%s", about->name,
                        cli_bytes((double)kept[i].bytes).s, about->paper ? "" : "  not the paper's",
                        gone ? "  computed again" : "");
        json_array_append_new(list, json_pack("{ss sI sb sb}", "name", about->name, "bytes",
                                              (json_int_t)kept[i].bytes, "paper", about->paper,
                                              "kept", !gone));
    }
    cli_report_value(report, "layer", list);
    cli_report_integer(report, "layer_paper_bytes", all.paper);
    cli_report_integer(report, "layer_own_bytes", all.own);
}

static void report_part(const struct cli_report *report, const char *name, const char *field,
                        int64_t bytes, const char *remark)
{
    cli_report_line(report, "", "%-22s %10s  %s", name, cli_bytes((double)bytes).s, remark);
    cli_report_integer(report, field, bytes);
}

static void report_bytes(const struct cli_report *report, const struct model_options *o,
                         const struct ls_rank_bytes *bytes)
{
    char element[32];

    snprintf(element, sizeof element, "%d bytes a parameter", (int)ls_dtype_size(o->run.type));
    cli_report_say(report, "%s", "");
    cli_report_line(report, "a rank", "%s%s, besides workspace and messages",
                    cli_bytes((double)ls_rank_bytes_total(bytes)).s,
                    o->run.p > 1 ? " of the first stage" : "");
    report_part(report, "parameters", "parameter_bytes", bytes->parameters, element);
    report_part(report, "gradients", "gradient_bytes", bytes->gradients, "4");
    report_part(report, "optimizer", "optimizer_bytes", bytes->optimizer,
                "12: AdamW's moments, weights in f32");
    report_part(report, "activations of layers", "activation_bytes", bytes->layers, "");
    report_part(report, "and outside of them", "end_bytes", bytes->ends, "");
    report_part(report, "of one layer, again", "recompute_bytes", bytes->recompute, "");
    cli_report_integer(report, "bytes_per_rank", ls_rank_bytes_total(bytes));
}

static void report_work(const struct cli_report *report, const struct model_options *o)
{
    const struct ls_step_flops flops = ls_model_flops(&o->model, &o->run);
    const double all = flops.forward + flops.backward + flops.again;
    const double ranks = (double)(o->run.t * o->run.c * o->run.p);

    cli_report_say(report, "%s", "");
    cli_report_line(report, "micro-batch", "%s: forward %s, backward %s%s%s", cli_flops(all).s,
                    cli_flops(flops.forward).s, cli_flops(flops.backward).s,
                    flops.again > 0 ? ", again " : "",
                    flops.again > 0 ? cli_flops(flops.again).s : "");
    cli_report_real(report, "forward_flops", flops.forward);
    cli_report_real(report, "backward_flops", flops.backward);
    cli_report_real(report, "recompute_flops", flops.again);
    if (o->rate == 0) return;
    const double seconds = all / (ranks * (double)o->rate * 1e12);

    cli_report_line(report, "", "%s at %s TFLOPS a rank", cli_seconds(seconds).s,
                    cli_number(o->rate).s);
    cli_report_real(report, "seconds", seconds);
}

static ls_status report_all(const struct cli_report *report, const struct cli_world *world,
                            struct model_options *o)
{
    struct ls_rank_bytes bytes;
    ls_status status = complete_options(o);

    if (status == LS_OK) status = ls_model_bytes(&bytes, &o->model, &o->run);
    LS_TRY(ls_comm_agree(world->comm, status));
    report_model(report, o);
    report_run(report, &o->run);
    report_layer(report, o);
    report_bytes(report, o, &bytes);
    report_work(report, o);
    return LS_OK;
}

ls_status cli_plan_model(bool *held, struct cli_world *world, int argc, char **argv)
{
    struct model_options o = {.run = {.type = LS_BF16, .dropout = true}};
    struct cli_report report;
    bool done;
    ls_status status;

    (void)held;
    LS_TRY(cli_options_parse(&done, &o.shared, world, &syntax, argc, argv, &o));
    if (done) return LS_OK;
    LS_TRY_GOTO(status, cli_report_open(&report, world, &o.shared), fini);
    LS_TRY_GOTO(status, report_all(&report, world, &o), fini);
    status = cli_report_commit(&report, world);
fini:
    cli_report_fini(&report);
    return status;
}
