/* A timeline of this process: what each thread did, from when until when. It is kept in memory, a
 * bounded part for each thread, so that recording neither allocates nor waits for anybody. There is
 * one at a time; all but ls_trace_add is called while no other thread is at work. */
#ifndef LS_BASE_TRACE_H
#define LS_BASE_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define LS_TRACE_NUMBERS 3

/* What an event is, and what its numbers say; static. */
struct ls_trace_kind {
    const char *name, *category;
    const char *number[LS_TRACE_NUMBERS]; /* NULL from the first that it does not have */
};

struct ls_trace_event {
    const struct ls_trace_kind *kind;
    double begin, end; /* of ls_now */
    int64_t number[LS_TRACE_NUMBERS];
};

/* Whether events are being recorded: to be asked before anything is done for it. */
extern bool ls_trace_on;

/* Makes room for at most `limit` events on each of the threads 0 to threads - 1; records nothing
 * yet. Errors: LS_EVALUE (there is one already, or no thread), LS_ENOMEM. */
ls_status ls_trace_create(int threads, int64_t limit);

/* Forgets everything; does nothing without a trace. */
void ls_trace_destroy(void);

/* From here on events are recorded; does nothing without a trace. */
void ls_trace_start(void);

/* Until here; can be started again. */
void ls_trace_stop(void);

/* Records an event; only while ls_trace_on, and only by the thread of that number. Threads for
 * which there is no room are left out. */
void ls_trace_add(const struct ls_trace_kind *kind, int thread, double begin, double end,
                  const int64_t number[LS_TRACE_NUMBERS]);

/* The first thread's, from `since` until now, with one number if the kind has any; nothing unless
 * recording. */
void ls_trace_note(const struct ls_trace_kind *kind, double since, int64_t number);

/* *out [count], borrowed: one thread's events, while stopped, in the order in which they began, an
 * outer one before those within it. */
int64_t ls_trace_events(const struct ls_trace_event **out, int thread);

/* Events of a thread that came after the limit and are lost. */
int64_t ls_trace_dropped(int thread);

#endif
