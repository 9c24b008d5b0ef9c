/* The threads of a kernel's call: how many are still at work, and what failed first. */
#ifndef LS_CPU_TEAM_H
#define LS_CPU_TEAM_H

#include <stdatomic.h>

#include "cpu/progress.h"

struct team {
    _Atomic int busy;   /* threads that still have items */
    _Atomic int failed; /* an ls_status; the others stop at their next item */
    char message[256];
};

/* ls_fail's message belongs to the thread that failed; the first one is kept for the caller. */
void cpu_team_fail(struct team *team, ls_status status);

/* Until the others are through as well, the first thread, which has a clock, moves messages. */
void cpu_team_wait(struct team *team, struct progress_clock *clock);

/* For the caller's thread, when all are through. */
ls_status cpu_team_status(const struct team *team);

#endif
