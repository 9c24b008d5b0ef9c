/* Lets messages move while a kernel works. */
#ifndef LS_CPU_PROGRESS_H
#define LS_CPU_PROGRESS_H

#include "device/device.h"

struct progress_clock {
    struct ls_progress progress;
    double due;
};

#define PROGRESS_INTERVAL 200e-6 /* seconds; the promise is half a millisecond */

/* Kernels call this at least every 200 microseconds or so; a NULL clock does nothing. */
static inline void progress_tick(struct progress_clock *clock)
{
    if (!clock || !clock->progress.call) return;

    const double now = ls_now();
    if (now < clock->due) return;
    clock->progress.call(clock->progress.context);
    clock->due = now + PROGRESS_INTERVAL;
}

#endif
