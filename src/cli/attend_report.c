#include "cli/attend.h"
#include "cli/format.h"
#include "cli/memory.h"
#include "cli/verify_report.h"
#include "comm/comm.h"
#include "plan/attention_size.h"
#include "tensor/dtype.h"

static double gflops(const struct cli_attend_run *run)
{
    return run->cost.flops / run->result.seconds * 1e-9;
}

static void report_json(const struct cli_attend_run *run, double resident)
{
    const struct cli_report *report = &run->report;
    const struct cli_attend_result *r = &run->result;
    const struct ls_attention_shape *n = &run->problem.shape;
    const int ranks = run->world->size, threads = run->options.shared.threads;

    cli_report_string(report, "method", r->report.method);
    cli_report_string(report, "why", r->report.why);
    cli_report_string(report, "layout", ls_layout_name(r->report.layout));
    cli_report_integer(report, "ranks", ranks);
    cli_report_integer(report, "threads", threads);
    cli_report_string(report, "isa", r->report.isa);
    cli_report_string(report, "kernel", r->report.kernel);
    cli_report_value(report, "strict", json_boolean(r->report.strict));
    cli_report_string(report, "fingerprint", r->report.fingerprint);
    cli_report_string(report, "dtype", ls_dtype_name(n->type));
    cli_report_string(report, "kv_dtype", ls_dtype_name(ls_key_type(n)));
    cli_report_value(report, "shape",
                     json_pack("{sIsIsIsIsIsIsI}", "b", (json_int_t)n->b, "h", (json_int_t)n->h,
                               "h_kv", (json_int_t)n->h_kv, "s_q", (json_int_t)n->s_q, "s_k",
                               (json_int_t)n->s_k, "d", (json_int_t)n->d, "d_v",
                               (json_int_t)ls_value_dim(n)));
    cli_report_real(report, "scale", run->problem.scores.scale);
    cli_report_integer(report, "repeat", run->options.repeat);
    cli_report_real(report, "seconds", r->seconds);
    cli_report_real(report, "gflops", gflops(run));
    cli_report_real(report, "gflops_per_thread", gflops(run) / ranks / threads);
    cli_report_real(report, "gemm_gflops_per_thread", run->gemm.best);
    cli_report_string(report, "gemm_dtype", ls_dtype_name(run->gemm.type));
    cli_report_integer(report, "bytes_sent", (int64_t)r->bytes_sent);
    cli_report_real(report, "exposed_comm_seconds", r->exposed);
    cli_report_value(report, "profile",
                     json_pack("{sfsfsfsf}", "pack", r->profile[0], "tile", r->profile[1], "merge",
                               r->profile[2], "finish", r->profile[3]));
    cli_report_integer(report, "ledger_peak_bytes", (int64_t)r->ledger_most);
    cli_report_integer(report, "rss_peak_bytes", (int64_t)resident);
    cli_report_integer(report, "tile_q", r->report.tile_q);
    cli_report_integer(report, "tile_k", r->report.tile_k);
    cli_report_integer(report, "tiles_computed", (int64_t)r->tiles);
    cli_report_integer(report, "tiles_computed_most", (int64_t)r->tiles_most);
}

static double backward_gflops(const struct cli_attend_run *run)
{
    return ls_backward_work(&run->problem.shape) * run->cost.flops / run->result.backward_seconds *
           1e-9;
}

static void report_backward_json(const struct cli_attend_run *run)
{
    const struct cli_report *report = &run->report;
    const struct cli_attend_result *r = &run->result;
    const int workers = run->world->size * run->options.shared.threads;

    cli_report_real(report, "backward_seconds", r->backward_seconds);
    cli_report_real(report, "backward_gflops", backward_gflops(run));
    cli_report_real(report, "backward_gflops_per_thread", backward_gflops(run) / workers);
    cli_report_integer(report, "backward_bytes_sent", (int64_t)r->backward_bytes_sent);
    cli_report_real(report, "backward_exposed_comm_seconds", r->backward_exposed);
    cli_report_integer(report, "backward_tiles_computed", (int64_t)r->backward_tiles);
}

static void report_task(const struct cli_attend_run *run)
{
    const struct cli_report *report = &run->report;
    const struct ls_problem *p = &run->problem;

    cli_report_task(report, &p->shape, &run->options.shared.attention);
    cli_mask_report(report, &run->arrays);
    cli_report_line(report, "scale", "%.6g", (double)p->scores.scale);
    cli_report_line(report, "input", "%s", run->inputs.origin);
}

static void report_means(const struct cli_attend_run *run)
{
    const struct cli_report *report = &run->report;
    const struct ls_attention_report *r = &run->result.report;

    cli_report_line(report, "method", "%s: %s", r->method, r->why);
    cli_report_line(report, "layout", "%s over %s", ls_layout_name(r->layout),
                    cli_workers(run->world->size, run->options.shared.threads).s);
    cli_report_line(report, "kernel", "%s on %s, %s of %d x %d", r->kernel, r->isa,
                    cli_counted((int64_t)run->result.tiles, "tile", "tiles").s, r->tile_q,
                    r->tile_k);
    if (run->world->size > 1)
        cli_report_line(report, "", "%s on the rank with most",
                        cli_counted((int64_t)run->result.tiles_most, "tile", "tiles").s);
    if (r->strict) cli_report_line(report, "strict", "the same bits with %s", r->fingerprint);
}

static void report_speed(const struct cli_attend_run *run)
{
    const struct cli_report *report = &run->report;
    const int workers = run->world->size * run->options.shared.threads;
    const double rate = gflops(run), per_thread = rate / workers;
    const struct cli_gemm *gemm = &run->gemm;

    cli_report_line(report, "time", "%s%s%s", cli_seconds(run->result.seconds).s,
                    run->options.repeat > 1 ? ", the fastest of " : "",
                    run->options.repeat > 1 ? cli_count(run->options.repeat).s : "");
    cli_report_line(report, "speed", "%s GF/s, %s a thread", cli_number(rate).s,
                    cli_number(per_thread).s);
    cli_report_line(report, "", "%s %% of the %s GEMM rate, which is %s GF/s a thread",
                    cli_number(100 * per_thread / gemm->best).s, ls_dtype_name(gemm->type),
                    cli_number(gemm->best).s);
}

static void report_backward(const struct cli_attend_run *run)
{
    const struct cli_report *report = &run->report;
    const struct cli_attend_result *r = &run->result;
    const int workers = run->world->size * run->options.shared.threads;
    const double rate = backward_gflops(run), per_thread = rate / workers;

    cli_report_line(report, "backward", "%s, %s GF/s, %s a thread",
                    cli_seconds(r->backward_seconds).s, cli_number(rate).s,
                    cli_number(per_thread).s);
    cli_report_line(report, "", "%s %% of the %s GEMM rate; sent %s, %s not hidden",
                    cli_number(100 * per_thread / run->gemm.best).s, ls_dtype_name(run->gemm.type),
                    cli_bytes(r->backward_bytes_sent).s, cli_seconds(r->backward_exposed).s);
}

static void report_profile(const struct cli_attend_run *run)
{
    const double *seconds = run->result.profile;

    cli_report_line(&run->report, "threads",
                    "%s in tiles, %s packing, %s merging, %s finishing, all of them together",
                    cli_seconds(seconds[1]).s, cli_seconds(seconds[0]).s, cli_seconds(seconds[2]).s,
                    cli_seconds(seconds[3]).s);
}

static void report_resources(const struct cli_attend_run *run, double resident)
{
    const struct cli_report *report = &run->report;
    const struct cli_attend_result *r = &run->result;

    cli_report_line(report, "sent", "%s, %s of communication not hidden",
                    cli_bytes(r->bytes_sent).s, cli_seconds(r->exposed).s);
    cli_report_line(report, "memory", "ledger peak %s a rank (least %s), resident %s",
                    cli_bytes(r->ledger_most).s, cli_bytes(r->ledger_least).s,
                    cli_bytes(resident).s);
    for (int i = 0; i < LS_TAG_COUNT; i++)
        cli_report_line(report, "", "%-10s  %s", ls_tag_name((ls_tag)i),
                        cli_bytes(r->tag_most[i]).s);
    if (run->options.out) cli_report_line(report, "output", "%s", run->options.out);
}

static void report_trace(const struct cli_attend_run *run)
{
    const char *path = run->options.shared.trace;

    if (!path) return;
    cli_report_line(&run->report, "trace", "%s, %s", path,
                    cli_counted(run->events, "event", "events").s);
    if (run->dropped == 0 || !run->report.text) return;
    fprintf(stderr, "%s: %s: the last %s of the busiest threads found no room\n",
            run->world->program, path, cli_counted(run->dropped, "event", "events").s);
}

static void report_as_given(const struct cli_attend_run *run)
{
    const double rel = run->as_given.tensor[LS_JUDGED_O].rel;

    cli_report_real(&run->report, "rel_o_unquantized", rel);
    cli_report_line(&run->report, "quantized", "o is %.3g from that of k and v as they were", rel);
}

ls_status cli_attend_report(struct cli_attend_run *run)
{
    double resident = cli_memory_resident_peak();

    LS_TRY(ls_comm_reduce(&resident, run->world->comm, 1, LS_REDUCE_MAX));
    report_json(run, resident);
    if (run->problem.backward) report_backward_json(run);
    report_task(run);
    report_means(run);
    report_speed(run);
    if (run->problem.backward) report_backward(run);
    report_profile(run);
    report_resources(run, resident);
    report_trace(run);
    if (run->options.verify) cli_verify_report(&run->report, &run->verdict);
    if (run->as_given.rows > 0) report_as_given(run);
    return cli_report_commit(&run->report, run->world);
}
