/* OpenMP's threads, started before a kernel needs them: OpenMP ends the process where it cannot
 * start one, and a stack that is too small is only noticed by what it overwrites. */
#ifndef LS_CPU_THREADS_H
#define LS_CPU_THREADS_H

#include "base/status.h"

/* Starts so many threads for parallel regions of the calling thread; nothing if it has that number
 * already. Errors: LS_ENOMEM if the system cannot; LS_EVALUE if their stacks are too small. */
ls_status cpu_threads_start(int threads);

#endif
