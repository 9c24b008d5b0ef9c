#include "cli/trace.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/profile.h"
#include "base/trace.h"
#include "comm/transport.h"
#include "config.h"
#include "tensor/transfer.h"

#define EVENTS_PER_THREAD ((int64_t)1 << 17)
#define LINE_BYTES 512
#define BLOCK_BYTES 65536
#define BARRIERS 16

ls_status cli_trace_create(struct cli_trace *out, const struct cli_world *world, const char *path,
                           int threads)
{
    ls_status status = LS_OK;

    *out = (struct cli_trace){.path = path, .target = LS_NO_TARGET, .threads = threads};
    if (!path) return LS_OK;
    if (world->rank == 0) status = ls_target_open(&out->target, path);
    LS_TRY(ls_comm_agree(world->comm, status));
    return ls_comm_agree(world->comm, ls_trace_create(threads, EVENTS_PER_THREAD));
}

void cli_trace_fini(struct cli_trace *trace)
{
    if (!trace->path) return;
    ls_trace_destroy();
    ls_target_close(&trace->target);
    trace->path = NULL;
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

static ls_status measure_offset(double *out, const struct cli_world *world)
{
    struct barrier own[BARRIERS], first[BARRIERS];

    for (int i = 0; i < BARRIERS; i++) {
        own[i].entered = ls_now();
        LS_TRY(ls_comm_barrier(world->comm));
        own[i].left = ls_now();
    }
    memcpy(first, own, sizeof first);
    LS_TRY(ls_comm_broadcast(first, world->comm, sizeof first, 0));
    *out = clock_offset(own, first);
    return LS_OK;
}

/* The moment of this rank's clock from which the file counts: when the first event of any rank
 * began. */
static ls_status find_zero(double *out, const struct cli_world *world, int threads)
{
    double offset = 0, zero = INFINITY;

    LS_TRY(measure_offset(&offset, world));
    for (int t = 0; t < threads; t++) {
        const struct ls_trace_event *event;

        if (ls_trace_events(&event, t) > 0) zero = fmin(zero, event->begin - offset);
    }
    LS_TRY(ls_comm_reduce(&zero, world->comm, 1, LS_REDUCE_MIN));
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
    const struct cli_world *world;
    const struct ls_target *target;
    struct ls_batch batch; /* one block */
    struct block block;
    int64_t written;
    bool listed; /* the file has an event already */
    ls_status status;
};

static ls_status write_block(struct writer *w)
{
    const int64_t at = w->written;

    w->written += w->block.bytes;
    return ls_write_at(w->target->temporary.fd, w->target->path, w->block.bytes, at, w->block.text);
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
    if (w->status == LS_OK) w->status = w->world->rank == 0 ? write_block(w) : send_block(w);
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
    for (int r = 1; r < w->world->size; r++) {
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
        w->world->rank, thread, name, number);
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
        kind->name, kind->category, w->world->rank, thread, begin * 1e-3, length * 1e-3);
    for (int i = 0; i < LS_TRACE_NUMBERS && kind->number[i]; i++)
        put(w, "%s\"%s\":%" PRId64, i ? "," : "", kind->number[i], event->number[i]);
    put(w, "}}");
}

static void put_rank(struct writer *w, int threads, double zero)
{
    put_name(w, "process_name", 0, "rank", w->world->rank);
    for (int t = 0; t < threads; t++) {
        const struct ls_trace_event *event;
        const int64_t n = ls_trace_events(&event, t);

        put_name(w, "thread_name", t, "thread", t);
        for (int64_t i = 0; i < n; i++) put_event(w, t, &event[i], zero);
    }
}

static void write_all(struct writer *w, const struct cli_trace *trace, double zero)
{
    if (w->world->rank == 0) put(w, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
    put_rank(w, trace->threads, zero);
    flush(w, true);
    if (w->world->rank > 0) return;
    pass_on(w);
    put(w,
        "\n],\"otherData\":{\"program\":\"longspan %s\",\"ranks\":%d,\"threads\":%d,"
        "\"events\":%" PRId64 ",\"dropped\":%" PRId64 "}}\n",
        PACKAGE_VERSION, w->world->size, trace->threads, trace->events, trace->dropped);
    flush(w, true);
}

static ls_status write_file(const struct cli_trace *trace, const struct cli_world *world,
                            double zero)
{
    struct writer w = {.world = world, .target = &trace->target, .listed = world->rank > 0};
    struct ls_traffic traffic = {0};
    const struct ls_transport transport = ls_transport_of(world->comm, &traffic);

    LS_TRY(ls_comm_agree(world->comm, ls_batch_init(&w.batch, &transport, 1)));
    write_all(&w, trace, zero);
    ls_batch_fini(&w.batch);
    return w.status;
}

static ls_status count_events(struct cli_trace *trace, const struct cli_world *world)
{
    double sums[2] = {0, 0};

    for (int t = 0; t < trace->threads; t++) {
        const struct ls_trace_event *event;

        sums[0] += (double)ls_trace_events(&event, t);
        sums[1] += (double)ls_trace_dropped(t);
    }
    LS_TRY(ls_comm_reduce(sums, world->comm, 2, LS_REDUCE_SUM));
    trace->events = (int64_t)sums[0];
    trace->dropped = (int64_t)sums[1];
    return LS_OK;
}

ls_status cli_trace_commit(struct cli_trace *trace, const struct cli_world *world)
{
    double zero = 0;

    if (!trace->path) return LS_OK;
    LS_TRY(count_events(trace, world));
    LS_TRY(find_zero(&zero, world, trace->threads));
    ls_status status = write_file(trace, world, zero);

    if (status == LS_ECOMM) return status; /* nobody can be asked any more */
    if (status == LS_OK && world->rank == 0) status = ls_target_publish(&trace->target);
    return ls_comm_agree(world->comm, status);
}
