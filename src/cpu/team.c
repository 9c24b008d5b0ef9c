#include "cpu/team.h"

#include <sched.h>
#include <stdio.h>

#include "base/status.h"

void cpu_team_fail(struct team *team, ls_status status)
{
    int none = LS_OK;

    if (atomic_compare_exchange_strong(&team->failed, &none, (int)status))
        snprintf(team->message, sizeof team->message, "%s", ls_message());
}

void cpu_team_wait(struct team *team, struct progress_clock *clock)
{
    atomic_fetch_sub(&team->busy, 1);
    while (clock && clock->progress.call && team->busy > 0) {
        progress_tick(clock);
        sched_yield();
    }
}

ls_status cpu_team_status(const struct team *team)
{
    return team->failed ? ls_fail((ls_status)team->failed, "%s", team->message) : LS_OK;
}
