#include <float.h>
#include <math.h>

#include "base/trace.h"
#include "cli/bench_layer.h"
#include "cli/memory.h"
#include "comm/comm.h"
#include "device/rows.h"

static const struct ls_trace_kind forward_kind = {"forward", "layer", {"layer"}};
static const struct ls_trace_kind backward_kind = {"backward", "layer", {"layer"}};

/* Layer i writes one of two tensors in turn, and reads the other one or what came first. */
static ls_status forward(struct cli_layer_run *run)
{
    struct cli_layer_tensors *t = &run->tensors;

    for (int64_t i = 0; i < run->options.layers; i++) {
        const struct ls_tensor *in = i == 0 ? &t->x : &t->between[(i + 1) % 2];
        const double begin = ls_now();

        LS_TRY(ls_layer_forward(&t->between[i % 2], run->plan, run->state[i], &t->weights, in,
                                (uint64_t)i));
        ls_trace_note(&forward_kind, begin, i);
    }
    return LS_OK;
}

static ls_status backward(struct cli_layer_run *run)
{
    struct cli_layer_tensors *t = &run->tensors;
    const int64_t last = run->options.layers - 1;

    for (int64_t i = last; i >= 0; i--) {
        const struct ls_tensor *in = i == last ? &t->dy : &t->d_between[(i + 1) % 2];
        const double begin = ls_now();

        LS_TRY(ls_layer_backward(&t->d_between[i % 2], &t->gradients, run->plan, run->state[i],
                                 &t->weights, in));
        ls_trace_note(&backward_kind, begin, i);
    }
    return LS_OK;
}

const struct ls_tensor *cli_layer_y(const struct cli_layer_run *run)
{
    return &run->tensors.between[(run->options.layers - 1) % 2];
}

const struct ls_tensor *cli_layer_dx(const struct cli_layer_run *run)
{
    return &run->tensors.d_between[0];
}

/* ---- one repeat */

static ls_status clear_gradients(struct cli_layer_run *run)
{
    struct ls_queue *queue = &run->gemm.device->queue;

    for (int i = 0; i < LS_LAYER_PARAMETERS; i++)
        if (run->tensors.gradient[i].data) ls_zero(queue, &run->tensors.gradient[i]);
    return ls_comm_agree(run->world->comm, ls_queue_finish(NULL, queue));
}

/* Seconds until the slowest rank has what it computes. */
static ls_status timed(double *seconds, struct cli_layer_run *run,
                       ls_status (*compute)(struct cli_layer_run *))
{
    LS_TRY(ls_comm_barrier(run->world->comm));
    const double begin = ls_now();

    LS_TRY(compute(run));
    *seconds = ls_now() - begin;
    return ls_comm_reduce(seconds, run->world->comm, 1, LS_REDUCE_MAX);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void take_peaks(struct cli_layer_run *run, const struct ls_ledger *ledger)
{
    struct cli_layer_bytes *measured = &run->measured;
    const size_t activation = ls_ledger_peak(ledger, LS_TAG_ACTIVATION) - run->kept_before;

    measured->peak =
        larger(measured->peak, (int64_t)(activation + ls_ledger_peak(ledger, LS_TAG_RECOMPUTE)));
    measured->ledger = larger(measured->ledger, (int64_t)ls_ledger_peak_total(ledger));
}

static ls_status repeat(struct cli_layer_run *run)
{
    const struct ls_layer_plan *plan = run->plan;
    struct ls_ledger *ledger = ls_device_ledger(run->gemm.device);
    struct cli_layer_bytes *measured = &run->measured;
    const int64_t sent = plan->traffic.bytes_sent, attention = plan->attention_bytes;
    double there, back;

    ls_ledger_reset_peaks(ledger); /* the rate of products was measured with more */
    LS_TRY(clear_gradients(run));
    ls_timeline_start(run->timeline);
    LS_TRY(timed(&there, run, forward));
    measured->kept = (int64_t)(ls_ledger_live(ledger, LS_TAG_ACTIVATION) - run->kept_before);
    LS_TRY(timed(&back, run, backward));
    ls_timeline_stop(run->timeline);
    take_peaks(run, ledger);
    measured->sent = plan->traffic.bytes_sent - sent;
    measured->attention = plan->attention_bytes - attention;
    if (there + back >= run->seconds) return LS_OK;
    run->seconds = there + back;
    run->forward_seconds = there;
    run->backward_seconds = back;
    return LS_OK;
}

/* The product rate in turn with it, so that a machine that changes its speed does so for both. */
ls_status cli_layer_compute(struct cli_layer_run *run)
{
    LS_TRY(cli_layer_plan(run));
    run->seconds = DBL_MAX;
    for (int64_t i = 0; i < run->options.repeat; i++) {
        LS_TRY(cli_gemm_measure(&run->gemm, run->world));
        LS_TRY(repeat(run));
    }
    run->measured.resident = (int64_t)(cli_memory_resident_peak() - run->resident_before);
    return LS_OK;
}
