#include "longspan/timeline.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/profile.h"
#include "base/trace.h"
#include "comm/transport.h"
#include "config.h"
#include "tensor/target.h"
#include "tensor/transfer.h"

#define EVENTS_PER_THREAD ((int64_t)1 << 17)
#define LINE_BYTES 512
#define BLOCK_BYTES 65536
#define BARRIERS 16

struct ls_timeline {
    struct ls_comm *comm;
    int rank, size, threads;
    struct ls_target target; /* rank 0's */
    int64_t events, dropped; /* of all ranks, once counted */
};

static ls_status create(struct ls_timeline **out, struct ls_comm *comm, const char *path,
                        int threads)
{
    struct ls_timeline *t = malloc(sizeof *t);
    ls_status status;

    if (!t) return ls_fail(LS_ENOMEM, "timeline: out of memory");
    *t = (struct ls_timeline){.comm = comm,
                              .rank = ls_comm_rank(comm),
                              .size = ls_comm_size(comm),
                              .threads = threads,
                              .target = LS_NO_TARGET};
    LS_TRY_GOTO(status, ls_trace_create(threads, EVENTS_PER_THREAD), free_timeline);
    if (t->rank == 0) LS_TRY_GOTO(status, ls_target_open(&t->target, path), destroy_trace);
    *out = t;
    return LS_OK;
destroy_trace:
    ls_trace_destroy();
free_timeline:
    free(t);
    return status;
}

ls_status ls_timeline_create(struct ls_timeline **out, struct ls_comm *comm, const char *path,
                             int threads)
{
    struct ls_timeline *timeline = NULL;
    const ls_status status = ls_comm_agree(comm, create(&timeline, comm, path, threads));

    if (status == LS_OK)
        *out = timeline;
    else
        ls_timeline_destroy(timeline);
    return status;
}

void ls_timeline_destroy(struct ls_timeline *timeline)
{
    if (!timeline) return;
    ls_trace_destroy();
    ls_target_close(&timeline->target);
    free(timeline);
}

void ls_timeline_start(struct ls_timeline *timeline)
{
    if (timeline) ls_trace_start();
}

void ls_timeline_stop(struct ls_timeline *timeline)
{
    if (timeline) ls_trace_stop();
}

/* ---- one clock for all ranks */

/* A barrier as one rank's clock saw it. */
struct barrier {
    double entered, left;
};

/* What this rank's clock is ahead of rank 0's. Nobody leaves a barrier before all have entered it,
 * which bounds it from both sides; clocks that can be the same, are: ranks of one node share
 * theirs. */
static double clock_offset(const struct barrier *own, const struct barrier *first)
{
    double least = -INFINITY, most = INFINITY;

    for (int i = 0; i < BARRIERS; i++) {
        least = fmax(least, own[i].entered - first[i].left);
        most = fmin(most, own[i].left - first[i].entered);
    }
    return least <= 0 && most >= 0 ? 0 : (least + most) / 2;
}

static ls_status measure_offset(double *out, struct ls_comm *comm)
{
    struct barrier own[BARRIERS], first[BARRIERS];

    for (int i = 0; i < BARRIERS; i++) {
        own[i].entered = ls_now();
        LS_TRY(ls_comm_barrier(comm));
        own[i].left = ls_now();
    }
    memcpy(first, own, sizeof first);
    LS_TRY(ls_comm_broadcast(first, comm, sizeof first, 0));
    *out = clock_offset(own, first);
    return LS_OK;
}

/* The moment of this rank's clock from which the file counts: when the first event of any rank
 * began. */
static ls_status find_zero(double *out, const struct ls_timeline *timeline)
{
    double offset = 0, zero = INFINITY;

    LS_TRY(measure_offset(&offset, timeline->comm));
    for (int t = 0; t < timeline->threads; t++) {
        const struct ls_trace_event *event;

        if (ls_trace_events(&event, t) > 0) zero = fmin(zero, event->begin - offset);
    }
    LS_TRY(ls_comm_reduce(&zero, timeline->comm, 1, LS_REDUCE_MIN));
    *out = zero + offset;
    return LS_OK;
}

/* ---- text on its way into the file, block by block: rank 0 writes, the others send */

struct block {
    int64_t bytes;
    bool last; /* of this rank */
    char text[BLOCK_BYTES];
};

struct writer {
    const struct ls_timeline *timeline;
    struct ls_batch batch; /* one block */
    struct block block;
    int64_t written;
    bool listed; /* the file has an event already */
    ls_status status;
};

static ls_status write_block(struct writer *w)
{
    const int64_t at = w->written;
    const struct ls_target *target = &w->timeline->target;

    w->written += w->block.bytes;
    return ls_write_at(target->temporary.fd, target->path, w->block.bytes, at, w->block.text);
}

static ls_status send_block(struct writer *w)
{
    ls_batch_send(&w->batch, &w->block, sizeof w->block, 0);
    return ls_batch_run(&w->batch);
}

static ls_status receive_block(struct writer *w, int from)
{
    ls_batch_receive(&w->batch, &w->block, sizeof w->block, from);
    return ls_batch_run(&w->batch);
}

/* After a failure nothing more is written. */
static void flush(struct writer *w, bool last)
{
    w->block.last = last;
    if (w->status == LS_OK) w->status = w->timeline->rank == 0 ? write_block(w) : send_block(w);
    w->block.bytes = 0;
}

__attribute__((format(printf, 2, 3))) static void put(struct writer *w, const char *format, ...)
{
    va_list values;

    if (w->block.bytes + LINE_BYTES > BLOCK_BYTES) flush(w, false);
    va_start(values, format);
    w->block.bytes += vsnprintf(w->block.text + w->block.bytes, LINE_BYTES, format, values);
    va_end(values);
}

/* What the others send; all of it is taken even if it cannot be written, so that nobody waits. */
static void pass_on(struct writer *w)
{
    for (int r = 1; r < w->timeline->size; r++) {
        do {
            const ls_status status = receive_block(w, r);

            if (w->status == LS_OK) w->status = status;
            if (status != LS_OK) return;
            if (w->status == LS_OK) w->status = write_block(w);
        } while (!w->block.last);
    }
    w->block.bytes = 0;
}

/* ---- the file */

static void put_separator(struct writer *w)
{
    put(w, w->listed ? ",\n" : "\n");
    w->listed = true;
}

static void put_name(struct writer *w, const char *of, int thread, const char *name, int number)
{
    put_separator(w);
    put(w, "{\"name\":\"%s\",\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":\"%s %d\"}}", of,
        w->timeline->rank, thread, name, number);
}

/* Nanoseconds are made whole first, so that rounding does not let events overlap. */
static void put_event(struct writer *w, int thread, const struct ls_trace_event *event, double zero)
{
    const double begin = round((event->begin - zero) * 1e9);
    const double length = round((event->end - zero) * 1e9) - begin;
    const struct ls_trace_kind *kind = event->kind;

    put_separator(w);
    put(w,
        "{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,"
        "\"dur\":%.3f,\"args\":{",
        kind->name, kind->category, w->timeline->rank, thread, begin * 1e-3, length * 1e-3);
    for (int i = 0; i < LS_TRACE_NUMBERS && kind->number[i]; i++)
        put(w, "%s\"%s\":%" PRId64, i ? "," : "", kind->number[i], event->number[i]);
    put(w, "}}");
}

static void put_rank(struct writer *w, int threads, double zero)
{
    put_name(w, "process_name", 0, "rank", w->timeline->rank);
    for (int t = 0; t < threads; t++) {
        const struct ls_trace_event *event;
        const int64_t n = ls_trace_events(&event, t);

        put_name(w, "thread_name", t, "thread", t);
        for (int64_t i = 0; i < n; i++) put_event(w, t, &event[i], zero);
    }
}

static void write_all(struct writer *w, double zero)
{
    const struct ls_timeline *t = w->timeline;

    if (t->rank == 0) put(w, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
    put_rank(w, t->threads, zero);
    flush(w, true);
    if (t->rank > 0) return;
    pass_on(w);
    put(w,
        "\n],\"otherData\":{\"program\":\"longspan %s\",\"ranks\":%d,\"threads\":%d,"
        "\"events\":%" PRId64 ",\"dropped\":%" PRId64 "}}\n",
        PACKAGE_VERSION, t->size, t->threads, t->events, t->dropped);
    flush(w, true);
}

static ls_status write_file(const struct ls_timeline *t, double zero)
{
    struct writer w = {.timeline = t, .listed = t->rank > 0};
    struct ls_traffic traffic = {0};
    const struct ls_transport transport = ls_transport_of(t->comm, &traffic);

    LS_TRY(ls_comm_agree(t->comm, ls_batch_init(&w.batch, &transport, 1)));
    write_all(&w, zero);
    ls_batch_fini(&w.batch);
    return w.status;
}

static ls_status count_events(struct ls_timeline *timeline)
{
    double sums[2] = {0, 0};

    for (int t = 0; t < timeline->threads; t++) {
        const struct ls_trace_event *event;

        sums[0] += (double)ls_trace_events(&event, t);
        sums[1] += (double)ls_trace_dropped(t);
    }
    LS_TRY(ls_comm_reduce(sums, timeline->comm, 2, LS_REDUCE_SUM));
    timeline->events = (int64_t)sums[0];
    timeline->dropped = (int64_t)sums[1];
    return LS_OK;
}

ls_status ls_timeline_commit(int64_t *events, int64_t *dropped, struct ls_timeline *timeline)
{
    double zero = 0;

    LS_TRY(count_events(timeline));
    LS_TRY(find_zero(&zero, timeline));
    ls_status status = write_file(timeline, zero);

    if (status == LS_ECOMM) return status; /* nobody can be asked any more */
    if (status == LS_OK && timeline->rank == 0) status = ls_target_publish(&timeline->target);
    LS_TRY(ls_comm_agree(timeline->comm, status));
    *events = timeline->events;
    *dropped = timeline->dropped;
    return LS_OK;
}
