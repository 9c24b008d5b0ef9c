#include <stdlib.h>

#include "cli/command.h"
#include "cli/plan_model.h"
#include "cli/rates.h"
#include "cli/values.h"
#include "comm/comm.h"
#include "model/config.h"
#include "plan/pieces.h"

#define GRIDS 10            /* that --search prints */
#define FLOPS_OF_A_BYTE 100 /* what a rank computes while it reads one, unless it is said */

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
    KEY_BANDWIDTH,
    KEY_LINK,
    KEY_MEASURE,
    KEY_MEMORY,
    KEY_SEARCH,
    KEY_RANKS,
};

static ls_status set_core(struct ls_model_run *run, const char *value)
{
    static const char *const names[] = {"fused", "materialized"};
    int which;

    LS_TRY(cli_value_name(&which, "--core", value, names, 2));
    run->core = which == 0 ? LS_CORE_FUSED : LS_CORE_MATERIALIZED;
    return LS_OK;
}

static ls_status set_dropout(struct cli_model_options *o, const char *value)
{
    LS_TRY(cli_value_float(&o->dropout, "--dropout", value));
    o->run.dropout = o->dropout > 0;
    if (o->dropout >= 0 && o->dropout < 1) return LS_OK;
    return ls_fail(LS_EVALUE, "--dropout: %s must be 0 to below 1", value);
}

static ls_status set_rate(float *out, const char *option, const char *value)
{
    LS_TRY(cli_value_float(out, option, value));
    if (*out > 0) return LS_OK;
    return ls_fail(LS_EVALUE, "%s: %s must be more than 0", option, value);
}

/* How fast ranks are, and what may be chosen for them. */
static ls_status set_choice(struct cli_model_options *o, int key, const char *value)
{
    switch (key) {
    case KEY_RATE:
        return set_rate(&o->rate, "--rate", value);
    case KEY_BANDWIDTH:
        return set_rate(&o->bandwidth, "--bandwidth", value);
    case KEY_LINK:
        return set_rate(&o->link, "--link", value);
    case KEY_MEASURE:
        o->measure = true;
        return LS_OK;
    case KEY_MEMORY:
        return cli_value_bytes(&o->memory, "--memory", value, 1, INT64_MAX / 2);
    case KEY_SEARCH:
        o->search = true;
        return LS_OK;
    default:
        return cli_value_integer(&o->ranks, "--ranks", value, 1, CLI_MOST_RANKS);
    }
}

static ls_status set_option(void *options, int key, const char *value)
{
    struct cli_model_options *o = options;
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
        return ls_pieces_parse_or_auto(&o->choose, &run->pieces, value);
    case KEY_CORE:
        return set_core(run, value);
    case KEY_DROPOUT:
        return set_dropout(o, value);
    case KEY_DTYPE:
        return cli_value_dtype(&run->type, "--dtype", value);
    default:
        return set_choice(o, key, value);
    }
}

#define RUN CLI_SECTION_COMPUTATION

static const struct cli_syntax syntax = {
    .doc =
        "What a transformer takes of each rank when it is trained: parameters, gradients, AdamW, "
        "activations by name as Korthikanti et al. 2022 count them, operations, and what computing "
        "pieces of a layer again frees and costs. Presets: "
        "gpt-22b, gpt-175b, gpt-530b, gpt-1t, opt-175b, bloom-176b, mt-nlg-530b, llama2-7b, "
        "llama2-13b, llama2-70b, llama3-8b, llama3-70b, llama3-405b.",
    .takes = CLI_TAKES_THREADS,
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
             "dropout; auto: for each layer the cheapest that fit into --memory",
             RUN},
            {"memory", KEY_MEMORY, "BYTES", 0,
             "Of a rank, such as 80GiB: what --recompute auto and --search may take", RUN},
            {"search", KEY_SEARCH, NULL, 0, "Find the fastest grids of ranks that fit", RUN},
            {"ranks", KEY_RANKS, "N", 0, "That --search may take; default T x C x P", RUN},
            {"core", KEY_CORE, "CORE", 0,
             "fused (default), or materialized: attention that keeps its probabilities", RUN},
            {"dropout", KEY_DROPOUT, "P", 0, "0.1 unless said; 0 keeps no masks", RUN},
            {"rate", KEY_RATE, "TFLOPS", 0, "Of products, on a rank: says how long a step takes",
             RUN},
            {"bandwidth", KEY_BANDWIDTH, "GB/S", 0,
             "Of a rank's memory; default one byte for every 100 operations", RUN},
            {"link", KEY_LINK, "GB/S", 0,
             "From other ranks to one; default: exchanges take no time", RUN},
            {"measure", KEY_MEASURE, NULL, 0,
             "Measure both on these ranks; auto and --search do where no --rate is said", RUN},
            {0},
        },
    .set = set_option,
};

/* ---- what is planned for */

static void complete(int64_t *n, int64_t otherwise)
{
    if (*n == 0) *n = otherwise;
}

static ls_status check_options(const struct cli_model_options *o)
{
    if (!o->preset == !o->config)
        return ls_fail(LS_EVALUE, "a model is needed: one of --preset NAME and --config FILE");
    if ((o->choose || o->search) && o->memory == 0)
        return ls_fail(LS_EVALUE, "%s needs --memory BYTES: what a rank may take",
                       o->choose ? "--recompute auto" : "--search");
    if (o->memory > 0 && !o->choose && !o->search)
        return ls_fail(LS_EVALUE,
                       "--memory is what --recompute auto and --search may take: add one "
                       "of them");
    if (o->ranks > 0 && !o->search)
        return ls_fail(LS_EVALUE,
                       "--ranks is what --search may take: add it, or say --tp, --cp and "
                       "--pp");
    if (o->measure && o->rate > 0)
        return ls_fail(LS_EVALUE, "--measure finds out what --rate says: leave out one of them");
    if (o->bandwidth > 0 && o->rate == 0)
        return ls_fail(LS_EVALUE, "--bandwidth goes with --rate TFLOPS");
    if (o->link > 0 && o->rate == 0 && !o->measure && !o->choose && !o->search)
        return ls_fail(LS_EVALUE, "--link goes with --rate TFLOPS or --measure");
    return LS_OK;
}

static ls_status complete_options(struct cli_model_options *o)
{
    struct ls_model_run *run = &o->run;
    int64_t s = 0;

    LS_TRY(check_options(o));
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
    complete(&o->ranks, run->t * run->c * run->p);
    return LS_OK;
}

/* ---- rates */

/* As stated, or measured where they are needed. Collective. */
static ls_status find_rates(struct cli_model_options *o, const struct cli_world *world)
{
    const double rate = (double)o->rate * 1e12, bandwidth = (double)o->bandwidth * 1e9;

    if (o->rate > 0)
        o->rates = (struct ls_rates){.flops = rate,
                                     .memory = bandwidth > 0 ? bandwidth : rate / FLOPS_OF_A_BYTE};
    else if (o->measure || o->choose || o->search)
        LS_TRY(cli_rates_machine(&o->rates, world, o->run.type, o->shared.threads));
    o->rates.exchanged = (double)o->link * 1e9;
    return LS_OK;
}

/* ---- answers: nothing is printed of what cannot be */

static void report_head(const struct cli_report *report, const struct cli_model_options *o)
{
    cli_model_report_model(report, o);
    cli_model_report_run(report, o);
    cli_model_report_rates(report, o);
}

/* Pieces as they were given, the same for every layer. */
static ls_status report_given(const struct cli_report *report, const struct cli_world *world,
                              const struct cli_model_options *o)
{
    const struct ls_layer_work layer = ls_layer_again(&o->model, &o->run);
    const struct ls_layer_work again = ls_layer_work_times(&layer, (double)(o->model.L / o->run.p));
    struct ls_rank_bytes bytes;

    LS_TRY(ls_comm_agree(world->comm, ls_model_bytes(&bytes, &o->model, &o->run)));
    report_head(report, o);
    cli_model_report_layer(report, o);
    cli_model_report_pieces(report, o);
    cli_model_report_bytes(report, o, &bytes);
    cli_model_report_work(report, o, &again);
    return LS_OK;
}

static ls_status report_chosen(const struct cli_report *report, const struct cli_world *world,
                               const struct cli_model_options *o)
{
    struct ls_recompute_problem problem;
    struct ls_recompute_choice choice;
    struct ls_model_run least = o->run;
    struct ls_rank_bytes bytes;
    ls_status status = ls_recompute_problem_init(&problem, &o->model, &o->run, &o->rates, false);

    if (status == LS_OK) status = ls_recompute_choose(&choice, &problem, o->memory);
    least.pieces = LS_PIECE_LAYER;
    if (status == LS_OK) status = ls_model_bytes(&bytes, &o->model, &least);
    LS_TRY(ls_comm_agree(world->comm, status));
    bytes.layers = choice.kept;
    bytes.recompute = choice.again;
    report_head(report, o);
    cli_model_report_layer(report, o);
    cli_model_report_pieces(report, o);
    cli_model_report_bytes(report, o, &bytes);
    cli_model_report_work(report, o, &choice.work);
    return ls_comm_agree(world->comm, cli_model_report_choice(report, &problem, &choice));
}

static ls_status report_search(const struct cli_report *report, const struct cli_world *world,
                               const struct cli_model_options *o)
{
    struct ls_grid_plan *grids = NULL;
    int count = 0;

    LS_TRY(ls_comm_agree(world->comm, ls_model_search(&grids, &count, GRIDS, &o->model, &o->run,
                                                      o->ranks, o->memory, &o->rates, o->choose)));
    report_head(report, o);
    cli_model_report_grids(report, o, grids, count);
    free(grids);
    return LS_OK;
}

static ls_status report_all(const struct cli_report *report, const struct cli_world *world,
                            struct cli_model_options *o)
{
    LS_TRY(ls_comm_agree(world->comm, complete_options(o)));
    LS_TRY(find_rates(o, world));
    if (o->search) return report_search(report, world, o);
    return o->choose ? report_chosen(report, world, o) : report_given(report, world, o);
}

ls_status cli_plan_model(bool *held, struct cli_world *world, int argc, char **argv)
{
    struct cli_model_options o = {.run = {.type = LS_BF16, .dropout = true}};
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
