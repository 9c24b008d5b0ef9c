/* Where the time of an execution went: seconds and counts by kind of event. */
#ifndef LS_BASE_PROFILE_H
#define LS_BASE_PROFILE_H

#include <stdint.h>

typedef enum {
    LS_EVENT_PACK,   /* operands brought into the kernels' order */
    LS_EVENT_TILE,   /* tiles: products and softmax */
    LS_EVENT_MERGE,  /* merging of partial states */
    LS_EVENT_FINISH, /* dividing and rounding to the output type */
    LS_EVENT_COUNT
} ls_event;

/* One a thread, so that nobody shares a cache line. */
struct ls_profile {
    double seconds[LS_EVENT_COUNT];
    int64_t count[LS_EVENT_COUNT];
} __attribute__((aligned(64)));

const char *ls_event_name(ls_event event);

/* Seconds since some fixed moment, monotonic. */
double ls_now(void);

/* Ends an event that began at `since` (of ls_now). */
void ls_profile_add(struct ls_profile *profile, ls_event event, double since);

/* Adds every entry of `from` to `into`. */
void ls_profile_merge(struct ls_profile *into, const struct ls_profile *from);

#endif
