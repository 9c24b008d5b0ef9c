#include "base/profile.h"

#include <assert.h>
#include <time.h>

#include "base/trace.h"

static const struct ls_trace_kind kinds[LS_EVENT_COUNT] = {
    [LS_EVENT_PACK] = {"pack", "attention", {"pair", "leaves"}},
    [LS_EVENT_TILE] = {"tile", "attention", {"pair", "tiles", "query_leaf"}},
    [LS_EVENT_MERGE] = {"merge", "attention", {"pair", "spans", "query_leaf"}},
    [LS_EVENT_FINISH] = {"finish", "attention", {"pair", "rows", "query_leaf"}},
    [LS_EVENT_WAIT] = {"wait", "attention", {"pair", "chunk", "query_leaf"}},
};

const char *ls_event_name(ls_event event)
{
    assert(event < LS_EVENT_COUNT);
    return kinds[event].name;
}

double ls_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void ls_profile_add(struct ls_profile *profile, ls_event event, double since,
                    struct ls_event_scope scope)
{
    const double now = ls_now();

    profile->seconds[event] += now - since;
    profile->count[event]++;
    if (ls_trace_on)
        ls_trace_add(&kinds[event], profile->thread, since, now,
                     (const int64_t[]){scope.pair, scope.amount, scope.query_leaf});
}

void ls_profile_merge(struct ls_profile *into, const struct ls_profile *from)
{
    for (int event = 0; event < LS_EVENT_COUNT; event++) {
        into->seconds[event] += from->seconds[event];
        into->count[event] += from->count[event];
    }
}
