#include <float.h>
#include <string.h>

#include "base/profile.h"
#include "base/trace.h"
#include "cli/attend.h"
#include "comm/comm.h"
#include "plan/attention_size.h"

/* Share of the GEMM rate that the bar assumes before anything was measured. */
#define LIKELY_SHARE 0.7

static const struct ls_trace_kind forward_kind = {"forward", "attention", {"repeat"}};
static const struct ls_trace_kind backward_kind = {"backward", "attention", {"repeat"}};

static ls_status forward(struct cli_attend_run *run)
{
    const struct ls_tensor *t = run->qkv, *rows = run->quantized.rows;
    struct ls_attention_execution execution = LS_ATTENTION_EXECUTION;

    execution.key_mean = run->quantized.mean;
    if (rows[0].data)
        return ls_attention_forward(&run->o, &run->lse, run->plan, &t[0], &rows[0], &rows[1],
                                    &execution);
    if (run->problem.backward)
        return ls_attention_forward_residual(&run->o, &run->o_lo, &run->lse, run->plan, &t[0],
                                             &t[1], &t[2], NULL);
    return ls_attention_forward(&run->o, &run->lse, run->plan, &t[0], &t[1], &t[2], NULL);
}

struct ls_attention_saved cli_attend_saved(const struct cli_attend_run *run)
{
    const bool back = run->problem.backward;

    return (struct ls_attention_saved){.q = &run->qkv[0],
                                       .k = &run->qkv[1],
                                       .v = &run->qkv[2],
                                       .o = &run->o,
                                       .lse = &run->lse,
                                       .d_o = back ? &run->d_o : NULL,
                                       .o_lo = back ? &run->o_lo : NULL};
}

struct ls_attention_gradients cli_attend_gradients(struct cli_attend_run *run)
{
    return (struct ls_attention_gradients){
        .dq = &run->dq,
        .dk = &run->dk,
        .dv = &run->dv,
        .dsinks = run->dsinks.data ? &run->dsinks : NULL,
        .ddistance_bias = run->ddistance_bias.data ? &run->ddistance_bias : NULL,
        .dbias = run->dbias.data ? &run->dbias : NULL};
}

static ls_status backward(struct cli_attend_run *run)
{
    const struct ls_attention_saved saved = cli_attend_saved(run);
    const struct ls_attention_gradients out = cli_attend_gradients(run);

    return ls_attention_backward(&out, run->plan, &saved, NULL);
}

/* From a barrier until the slowest rank has what it computes. */
static ls_status timed(double *seconds, struct cli_attend_run *run,
                       ls_status (*compute)(struct cli_attend_run *),
                       const struct ls_trace_kind *kind, int64_t repeat)
{
    struct ls_comm *comm = run->world->comm;

    LS_TRY(ls_comm_barrier(comm));
    ls_timeline_start(run->timeline);
    const double start = ls_now();
    const ls_status status = compute(run);
    const double end = ls_now();

    if (ls_trace_on) ls_trace_add(kind, 0, start, end, (const int64_t[]){repeat, 0, 0});
    ls_timeline_stop(run->timeline);
    *seconds = end - start;
    LS_TRY(ls_comm_agree(comm, status));
    return ls_comm_reduce(seconds, comm, 1, LS_REDUCE_MAX);
}

static double gemm_total(const struct cli_attend_run *run)
{
    return run->gemm.best * run->options.shared.threads * run->world->size;
}

/* The i-th time; `expected` seconds for the progress bar. */
static ls_status compute_forward(struct cli_attend_run *run, int64_t i, double expected)
{
    struct cli_attend_result *r = &run->result;
    double seconds;

    cli_progress_begin_timed(run->progress, "computing", expected);
    const ls_status status = timed(&seconds, run, forward, &forward_kind, i);

    cli_progress_end(run->progress);
    LS_TRY(status);
    if (seconds >= r->seconds) return LS_OK;
    r->seconds = seconds;
    ls_attention_plan_describe(&r->report, run->plan);
    return LS_OK;
}

static ls_status compute_backward(struct cli_attend_run *run, int64_t i)
{
    struct cli_attend_result *r = &run->result;
    const double expected =
        i == 0 ? ls_backward_work(&run->problem.shape) * r->seconds : r->backward_seconds;
    struct ls_attention_report report;
    double seconds;

    cli_progress_begin_timed(run->progress, "computing gradients", expected);
    const ls_status status = timed(&seconds, run, backward, &backward_kind, i);

    cli_progress_end(run->progress);
    LS_TRY(status);
    if (seconds >= r->backward_seconds) return LS_OK;
    r->backward_seconds = seconds;
    ls_attention_plan_describe(&report, run->plan);
    r->backward = report.backward;
    return LS_OK;
}

static ls_status compute(struct cli_attend_run *run)
{
    struct cli_attend_result *r = &run->result;

    r->seconds = r->backward_seconds = DBL_MAX;
    for (int64_t i = 0; i < run->options.repeat; i++) {
        cli_progress_begin(NULL, "measuring");
        LS_TRY(cli_gemm_measure(&run->gemm, run->world)); /* side by side with what it is held to */
        const double likely = run->cost.flops / (1e9 * LIKELY_SHARE * gemm_total(run));

        LS_TRY(compute_forward(run, i, i == 0 ? likely : r->seconds));
        if (run->problem.backward) LS_TRY(compute_backward(run, i));
    }
    return LS_OK;
}

/* What this rank did backward becomes what all ranks did. */
static ls_status gather_backward(struct cli_attend_run *run)
{
    struct cli_attend_result *r = &run->result;
    double sums[] = {(double)r->backward.bytes_sent, (double)r->backward.tiles_computed};

    r->backward_exposed = r->backward.exposed_comm_seconds;
    LS_TRY(ls_comm_reduce(sums, run->world->comm, 2, LS_REDUCE_SUM));
    LS_TRY(ls_comm_reduce(&r->backward_exposed, run->world->comm, 1, LS_REDUCE_MAX));
    r->backward_bytes_sent = sums[0];
    r->backward_tiles = sums[1];
    return LS_OK;
}

/* What this rank saw becomes what all ranks saw. */
static ls_status gather_result(struct cli_attend_run *run)
{
    struct cli_attend_result *r = &run->result;
    struct ls_comm *comm = run->world->comm;
    double sums[] = {(double)r->report.forward.bytes_sent, (double)r->report.forward.tiles_computed,
                     r->report.forward.pack_seconds,       r->report.forward.tile_seconds,
                     r->report.forward.merge_seconds,      r->report.forward.finish_seconds};
    double most[3 + LS_TAG_COUNT] = {r->report.forward.exposed_comm_seconds,
                                     (double)ls_ledger_peak_total(&ls_host_ledger),
                                     (double)r->report.forward.tiles_computed};
    double least = (double)ls_ledger_peak_total(&ls_host_ledger);

    for (int i = 0; i < LS_TAG_COUNT; i++)
        most[3 + i] = (double)ls_ledger_peak(&ls_host_ledger, (ls_tag)i);
    LS_TRY(ls_comm_reduce(sums, comm, 6, LS_REDUCE_SUM));
    LS_TRY(ls_comm_reduce(most, comm, 3 + LS_TAG_COUNT, LS_REDUCE_MAX));
    LS_TRY(ls_comm_reduce(&least, comm, 1, LS_REDUCE_MIN));
    r->bytes_sent = sums[0];
    r->tiles = sums[1];
    memcpy(r->profile, sums + 2, sizeof(r->profile));
    r->exposed = most[0];
    r->ledger_most = most[1];
    r->ledger_least = least;
    r->tiles_most = most[2];
    memcpy(r->tag_most, most + 3, sizeof(r->tag_most));
    return run->problem.backward ? gather_backward(run) : LS_OK;
}

ls_status cli_attend_compute(struct cli_attend_run *run)
{
    LS_TRY(compute(run));
    return gather_result(run);
}
