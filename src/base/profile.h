/* Where the time of an execution went: seconds and counts by kind of event, and, while one is
 * recorded, the events themselves in the trace. */
#ifndef LS_BASE_PROFILE_H
#define LS_BASE_PROFILE_H

#include <stdint.h>

typedef enum {
    LS_EVENT_PACK,   /* operands brought into the kernels' order */
    LS_EVENT_TILE,   /* tiles: products and softmax */
    LS_EVENT_MERGE,  /* merging of partial states */
    LS_EVENT_FINISH, /* dividing and rounding to the output type */
    LS_EVENT_WAIT,   /* for sums of another thread, which come first */
    LS_EVENT_COUNT
} ls_event;

/* One a thread, so that nobody shares a cache line. */
struct ls_profile {
    int thread; /* its number, for the trace */
    double seconds[LS_EVENT_COUNT];
    int64_t count[LS_EVENT_COUNT];
} __attribute__((aligned(64)));

const char *ls_event_name(ls_event event);

/* Seconds since some fixed moment, monotonic. */
double ls_now(void);

/* What an event was about, for the trace. */
struct ls_event_scope {
    int64_t pair;       /* batch x h_kv + kv head; of packing, the first one */
    int64_t amount;     /* leaves packed, tiles computed, spans merged, rows finished; of
                         * waiting, the chunk of keys */
    int64_t query_leaf; /* not of packing */
};

/* Ends an event that began at `since` (of ls_now). */
void ls_profile_add(struct ls_profile *profile, ls_event event, double since,
                    struct ls_event_scope scope);

/* Adds every second and count of `from` to `into`. */
void ls_profile_merge(struct ls_profile *into, const struct ls_profile *from);

#endif
