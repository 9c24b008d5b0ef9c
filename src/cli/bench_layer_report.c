#include <stdlib.h>

#include "attention/plan.h"
#include "cli/bench_layer.h"
#include "cli/format.h"
#include "comm/comm.h"
#include "plan/model_size.h"
#include "tensor/dtype.h"

/* What a rank was to do, and did. */
struct pair {
    struct cli_layer_bytes planned, measured;
};

/* Of all ranks; not the same on some rank: false. */
struct total {
    struct pair most; /* of each number that of the rank where it is largest */
    int64_t weights, vectors;
    int64_t sent_planned, sent_measured;
    bool as_planned;
};

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static struct total total_of(const struct pair *ranks, int size)
{
    struct total t = {.sent_planned = ranks[0].planned.attention, .as_planned = true};

    for (int i = 0; i < size; i++) {
        const struct cli_layer_bytes *p = &ranks[i].planned, *m = &ranks[i].measured;

        t.sent_planned += p->sent;
        t.sent_measured += m->sent + m->attention;
        t.weights += p->weights;
        t.vectors += p->vectors;
        t.as_planned &= p->kept == m->kept && p->peak == m->peak && p->sent == m->sent;
        t.most.planned.kept = larger(t.most.planned.kept, p->kept);
        t.most.planned.peak = larger(t.most.planned.peak, p->peak);
        t.most.measured.kept = larger(t.most.measured.kept, m->kept);
        t.most.measured.peak = larger(t.most.measured.peak, m->peak);
        t.most.measured.ledger = larger(t.most.measured.ledger, m->ledger);
        t.most.measured.resident = larger(t.most.measured.resident, m->resident);
    }
    t.as_planned &= t.sent_planned == t.sent_measured;
    return t;
}

/* ---- speed */

static double flops_of(const struct cli_layer_run *run)
{
    const struct ls_model_shape model = ls_layer_as_model(&run->shape, &run->layer);
    double sum = 0;

    for (int64_t i = 0; i < run->options.layers; i++) {
        const struct ls_model_run how = cli_layer_how(run, run->pieces[i]);
        const struct ls_step_flops flops = ls_model_flops(&model, &how);

        sum += flops.forward + flops.backward + flops.again;
    }
    return sum;
}

static void report_speed(const struct cli_layer_run *run)
{
    const struct cli_report *report = &run->report;
    const int workers = run->world->size * run->options.shared.threads;
    const double gflops = 1e-9 * flops_of(run) / run->seconds, each = gflops / workers;
    const double tokens = (double)(run->shape.b * run->shape.s) / run->seconds;

    cli_report_line(report, "time", "%s: forward %s, backward %s, the fastest of %s",
                    cli_seconds(run->seconds).s, cli_seconds(run->forward_seconds).s,
                    cli_seconds(run->backward_seconds).s, cli_count(run->options.repeat).s);
    cli_report_line(report, "speed", "%s tokens/s, %s GF/s, %s a thread", cli_number(tokens).s,
                    cli_number(gflops).s, cli_number(each).s);
    cli_report_line(report, "", "%s %% of the %s GEMM rate, which is %s GF/s a thread",
                    cli_number(100 * each / run->gemm.best).s, ls_dtype_name(run->gemm.type),
                    cli_number(run->gemm.best).s);
    cli_report_real(report, "seconds", run->seconds);
    cli_report_real(report, "forward_seconds", run->forward_seconds);
    cli_report_real(report, "backward_seconds", run->backward_seconds);
    cli_report_real(report, "tokens_per_second", tokens);
    cli_report_real(report, "gflops", gflops);
    cli_report_real(report, "gflops_per_thread", each);
    cli_report_real(report, "gemm_gflops_per_thread", run->gemm.best);
    cli_report_real(report, "ratio", each / run->gemm.best);
}

/* ---- what is computed */

static void report_layer(const struct cli_layer_run *run, const char *recompute)
{
    const struct cli_report *report = &run->report;
    const struct cli_layer_options *o = &run->options;
    const struct ls_layer_shape *n = &run->shape;
    const char *core = run->layer.core == LS_CORE_FUSED ? "fused" : "materialized";

    cli_report_line(report, "layer", "%s of %s tokens, width %s, %s of %lld, %lld of k and v, %s",
                    cli_counted(n->b, "sequence", "sequences").s, cli_count(n->s).s,
                    cli_count(n->e).s, cli_counted(n->h, "head", "heads").s, (long long)n->d,
                    (long long)n->h_kv, ls_dtype_name(n->type));
    cli_report_line(report, "", "%s, MLP %s, %s core, dropout %g%s, recompute %s",
                    cli_counted(o->layers, "layer", "layers").s, cli_count(n->f).s, core,
                    (double)o->dropout, o->causal ? ", causal" : "", recompute);
    cli_report_line(report, "ranks", "%d tensor%s x %d context, %s", run->layer.tp,
                    run->layer.sp ? " (and sequence)" : "", run->layer.cp,
                    cli_workers(run->world->size, o->shared.threads).s);
    if (o->strict) {
        cli_report_line(report, "strict", "the same bits with %s", run->plan->fingerprint);
        cli_report_string(report, "fingerprint", run->plan->fingerprint);
    }
    cli_report_value(report, "strict", json_boolean(o->strict));
    cli_report_string(report, "dtype", ls_dtype_name(n->type));
    cli_report_string(report, "core", core);
    cli_report_string(report, "recompute", recompute);
    if (run->chooses) {
        cli_report_line(report, "chosen", "for %s of a rank, bringing back %s",
                        cli_bytes((double)run->memory).s, cli_seconds(run->again_seconds).s);
        cli_report_integer(report, "memory", run->memory);
        cli_report_real(report, "again_seconds_planned", run->again_seconds);
    }
    cli_report_integer(report, "layers", o->layers);
    cli_report_integer(report, "tp", run->layer.tp);
    cli_report_integer(report, "cp", run->layer.cp);
    cli_report_integer(report, "ranks", run->world->size);
    cli_report_integer(report, "threads", o->shared.threads);
}

/* ---- bytes */

static void report_pair(const struct cli_report *report, const char *label, const char *field,
                        int64_t planned, int64_t measured)
{
    char name[64];

    cli_report_line(report, label, "%s planned, %s measured", cli_bytes((double)planned).s,
                    cli_bytes((double)measured).s);
    snprintf(name, sizeof name, "%s_planned", field);
    cli_report_integer(report, name, planned);
    snprintf(name, sizeof name, "%s_measured", field);
    cli_report_integer(report, name, measured);
}

static json_t *rank_json(const struct pair *rank)
{
    const struct cli_layer_bytes *p = &rank->planned, *m = &rank->measured;

    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "kept_planned",
                     (json_int_t)p->kept, "kept_measured", (json_int_t)m->kept, "peak_planned",
                     (json_int_t)p->peak, "peak_measured", (json_int_t)m->peak, "sent_planned",
                     (json_int_t)p->sent, "sent_measured", (json_int_t)m->sent, "sent_for_weights",
                     (json_int_t)p->weights, "sent_for_vectors", (json_int_t)p->vectors,
                     "sent_by_attention", (json_int_t)m->attention, "ledger_peak",
                     (json_int_t)m->ledger, "resident_grown", (json_int_t)m->resident);
}

static void report_bytes(const struct cli_layer_run *run, const struct pair *ranks)
{
    const struct cli_report *report = &run->report;
    const struct total t = total_of(ranks, run->world->size);
    json_t *list = json_array();

    report_pair(report, "kept", "activation_kept", t.most.planned.kept, t.most.measured.kept);
    report_pair(report, "peak", "activation_peak", t.most.planned.peak, t.most.measured.peak);
    report_pair(report, "sent", "bytes_sent", t.sent_planned, t.sent_measured);
    cli_report_line(report, "", "gradients of weights %s, of norms and biases %s, attention %s",
                    cli_bytes((double)t.weights).s, cli_bytes((double)t.vectors).s,
                    cli_bytes((double)ranks[0].planned.attention).s);
    cli_report_line(report, "", "%s on every rank",
                    t.as_planned ? "planned is measured, to the byte," : "NOT the same");
    cli_report_line(report, "memory", "ledger peak %s a rank, resident grew by %s",
                    cli_bytes((double)t.most.measured.ledger).s,
                    cli_bytes((double)t.most.measured.resident).s);
    cli_report_value(report, "as_planned", json_boolean(t.as_planned));
    for (int i = 0; i < run->world->size; i++) json_array_append_new(list, rank_json(&ranks[i]));
    cli_report_value(report, "of_ranks", list);
}

/* ---- all of it */

static void report_files(const struct cli_layer_run *run)
{
    const struct cli_report *report = &run->report;
    const struct cli_layer_options *o = &run->options;

    if (o->weights) cli_report_line(report, "weights", "%s", o->weights);
    if (o->out) cli_report_line(report, "output", "%s", o->out);
    if (o->shared.trace)
        cli_report_line(report, "trace", "%s, %s", o->shared.trace,
                        cli_counted(run->events, "event", "events").s);
}

ls_status cli_layer_report(struct cli_layer_run *run)
{
    struct ls_comm *comm = run->world->comm;
    const struct pair own = {run->planned, run->measured};
    struct pair *ranks = calloc((size_t)run->world->size, sizeof *ranks);
    char *recompute = NULL;
    ls_status status = ranks ? cli_layer_name_pieces(&recompute, run)
                             : ls_fail(LS_ENOMEM, "no memory for a report");

    status = ls_comm_agree(comm, status);
    if (status == LS_OK) status = ls_comm_gather(ranks, comm, &own, sizeof own);
    if (status == LS_OK) {
        report_layer(run, recompute);
        report_speed(run);
        report_bytes(run, ranks);
        report_files(run);
    }
    free(recompute);
    free(ranks);
    return status;
}
