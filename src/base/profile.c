#include "base/profile.h"

#include <assert.h>
#include <time.h>

const char *ls_event_name(ls_event event)
{
    static const char *const names[LS_EVENT_COUNT] = {
        [LS_EVENT_PACK] = "pack",
        [LS_EVENT_TILE] = "tile",
        [LS_EVENT_MERGE] = "merge",
        [LS_EVENT_FINISH] = "finish",
    };

    assert(event < LS_EVENT_COUNT);
    return names[event];
}

double ls_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void ls_profile_add(struct ls_profile *profile, ls_event event, double since)
{
    profile->seconds[event] += ls_now() - since;
    profile->count[event]++;
}

void ls_profile_merge(struct ls_profile *into, const struct ls_profile *from)
{
    for (int event = 0; event < LS_EVENT_COUNT; event++) {
        into->seconds[event] += from->seconds[event];
        into->count[event] += from->count[event];
    }
}
