/* How far a function is that may take long. */
#ifndef LONGSPAN_PROGRESS_H
#define LONGSPAN_PROGRESS_H

#include <stdint.h>

/* Called on each rank, by the thread that called the function, with a static string that says what
 * is being done, such as "reading", and so much done of the whole; with NULL once it is over, also
 * after a failure. It calls no collective function. */
struct ls_progress_callback {
    void (*call)(void *context, const char *phase, int64_t done, int64_t of);
    void *context;
};

#endif
