/* The answer of `longspan plan model`, but for what to compute again. */
#include "cli/format.h"
#include "cli/plan_model.h"
#include "plan/pieces.h"
#include "tensor/dtype.h"

void cli_model_report_model(const struct cli_report *report, const struct cli_model_options *o)
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

static void report_ranks(const struct cli_report *report, const struct cli_model_options *o)
{
    const struct ls_model_run *run = &o->run;

    cli_report_integer(report, "ranks", o->search ? o->ranks : run->t * run->c * run->p);
    if (o->search)
        cli_report_line(report, "ranks", "up to %s", cli_count(o->ranks).s);
    else
        cli_report_line(report, "ranks", "%s: %lld tensor%s x %lld context x %lld pipeline%s",
                        cli_count(run->t * run->c * run->p).s, (long long)run->t,
                        run->sp ? " (and sequence)" : "", (long long)run->c, (long long)run->p,
                        run->m > 1 ? ", interleaved" : "");
}

void cli_model_report_run(const struct cli_report *report, const struct cli_model_options *o)
{
    const struct ls_model_run *run = &o->run;
    const struct ls_pieces_text names = ls_pieces_name(run->pieces);
    const char *pieces = o->choose ? "auto" : names.s;

    report_ranks(report, o);
    cli_report_line(report, "batch", "%s of %s, %s", cli_counted(run->b, "sequence", "sequences").s,
                    cli_count(run->s).s, ls_dtype_name(run->type));
    cli_report_line(report, "recompute", "%s; core %s, %s", pieces,
                    run->core == LS_CORE_FUSED ? "fused" : "materialized",
                    run->dropout ? "dropout" : "no dropout");
    if (o->memory > 0)
        cli_report_line(report, "", "in up to %s a rank", cli_bytes((double)o->memory).s);
    if (o->memory > 0) cli_report_integer(report, "budget_bytes", o->memory);
    cli_report_integer(report, "batch", run->b);
    cli_report_integer(report, "seq", run->s);
    cli_report_string(report, "recompute", pieces);
}

void cli_model_report_rates(const struct cli_report *report, const struct cli_model_options *o)
{
    const struct ls_rates *rates = &o->rates;

    if (!cli_model_has_rates(o)) return;
    cli_report_line(report, "rates", "%s/s of products, %s/s of memory a rank, %s",
                    cli_flops(rates->flops).s, cli_bytes(rates->memory).s,
                    o->rate > 0 ? "as stated" : "measured here");
    if (rates->exchanged > 0)
        cli_report_line(report, "", "%s/s from other ranks", cli_bytes(rates->exchanged).s);
    cli_report_real(report, "flops_per_second", rates->flops);
    cli_report_real(report, "memory_bytes_per_second", rates->memory);
    if (rates->exchanged > 0) cli_report_real(report, "link_bytes_per_second", rates->exchanged);
}

void cli_model_report_layer(const struct cli_report *report, const struct cli_model_options *o)
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
        const bool gone = ls_kept_is_discarded(kept[i].kind, o->run.pieces);

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

void cli_model_report_bytes(const struct cli_report *report, const struct cli_model_options *o,
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

static void report_time(const struct cli_report *report, const struct cli_model_options *o,
                        const struct ls_layer_work *again)
{
    const struct ls_micro_batch time = ls_micro_batch(&o->model, &o->run, again, &o->rates);
    const struct ls_layer_work all = ls_layer_work_sum(&time.step, again);

    cli_report_line(report, "", "%s on a rank: products %s, memory %s, exchanges %s",
                    cli_seconds(time.seconds).s, cli_seconds(all.flops / o->rates.flops).s,
                    cli_seconds(all.memory / o->rates.memory).s,
                    o->rates.exchanged > 0 ? cli_seconds(all.exchanged / o->rates.exchanged).s
                                           : "not counted");
    cli_report_line(report, "", "%s of it to compute again",
                    cli_seconds(ls_layer_work_seconds(again, &o->rates)).s);
    cli_report_real(report, "seconds", time.seconds);
    cli_report_real(report, "recompute_seconds", ls_layer_work_seconds(again, &o->rates));
}

void cli_model_report_work(const struct cli_report *report, const struct cli_model_options *o,
                           const struct ls_layer_work *again)
{
    const struct ls_step_flops flops = ls_model_flops(&o->model, &o->run);
    const double more = again->flops * (double)(o->run.t * o->run.c * o->run.p);

    cli_report_say(report, "%s", "");
    cli_report_line(report, "micro-batch", "%s: forward %s, backward %s%s%s",
                    cli_flops(flops.forward + flops.backward + more).s, cli_flops(flops.forward).s,
                    cli_flops(flops.backward).s, more > 0 ? ", again " : "",
                    more > 0 ? cli_flops(more).s : "");
    cli_report_real(report, "forward_flops", flops.forward);
    cli_report_real(report, "backward_flops", flops.backward);
    cli_report_real(report, "recompute_flops", more);
    if (cli_model_has_rates(o)) report_time(report, o, again);
}
