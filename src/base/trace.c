#include "base/trace.h"

#include "base/profile.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What one thread has recorded; nobody shares its cache line. */
struct record {
    struct ls_trace_event *event;
    int64_t count, dropped;
} __attribute__((aligned(64)));

bool ls_trace_on;

static struct {
    int threads; /* 0: there is no trace */
    int64_t limit;
    struct record *record;         /* [threads] */
    struct ls_trace_event *memory; /* [threads][limit]; pages that stay empty cost nothing */
} trace;

ls_status ls_trace_create(int threads, int64_t limit)
{
    if (trace.threads > 0 || threads < 1)
        return ls_fail(LS_EVALUE, "a trace of %d threads: must be 1 or more, and one at a time",
                       threads);
    trace.record = aligned_alloc(64, (size_t)threads * sizeof *trace.record);
    trace.memory = calloc((size_t)threads * (size_t)limit, sizeof *trace.memory);
    if (!trace.record || !trace.memory) {
        ls_trace_destroy();
        return ls_fail(LS_ENOMEM, "no memory for a trace of %lld events on each of %d threads",
                       (long long)limit, threads);
    }
    for (int t = 0; t < threads; t++)
        trace.record[t] = (struct record){.event = trace.memory + t * limit};
    trace.threads = threads;
    trace.limit = limit;
    return LS_OK;
}

void ls_trace_destroy(void)
{
    ls_trace_on = false;
    free(trace.record);
    free(trace.memory);
    memset(&trace, 0, sizeof trace);
}

void ls_trace_start(void)
{
    ls_trace_on = trace.threads > 0;
}

void ls_trace_add(const struct ls_trace_kind *kind, int thread, double begin, double end,
                  const int64_t number[LS_TRACE_NUMBERS])
{
    assert(ls_trace_on && thread >= 0);
    if (thread >= trace.threads) return;
    struct record *record = &trace.record[thread];

    if (record->count == trace.limit) {
        record->dropped++;
        return;
    }
    struct ls_trace_event *event = &record->event[record->count++];

    *event = (struct ls_trace_event){.kind = kind, .begin = begin, .end = end};
    memcpy(event->number, number, sizeof event->number);
}

static int compare(const void *first, const void *second)
{
    const struct ls_trace_event *a = first, *b = second;

    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return (a->end < b->end) - (a->end > b->end);
}

void ls_trace_stop(void)
{
    ls_trace_on = false;
    for (int t = 0; t < trace.threads; t++)
        qsort(trace.record[t].event, (size_t)trace.record[t].count, sizeof *trace.memory, compare);
}

void ls_trace_note(const struct ls_trace_kind *kind, double since, int64_t number)
{
    if (ls_trace_on)
        ls_trace_add(kind, 0, since, ls_now(), (const int64_t[LS_TRACE_NUMBERS]){number});
}

int64_t ls_trace_events(const struct ls_trace_event **out, int thread)
{
    *out = trace.record[thread].event;
    return trace.record[thread].count;
}

int64_t ls_trace_dropped(int thread)
{
    return trace.record[thread].dropped;
}
