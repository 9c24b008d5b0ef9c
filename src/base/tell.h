/* Telling a caller how far one is. */
#ifndef LS_BASE_TELL_H
#define LS_BASE_TELL_H

#include <stddef.h>

#include "longspan/progress.h"

/* Nobody is told by NULL. */
static inline void ls_tell(const struct ls_progress_callback *progress, const char *phase,
                           int64_t done, int64_t of)
{
    if (progress) progress->call(progress->context, phase, done, of);
}

static inline void ls_tell_end(const struct ls_progress_callback *progress)
{
    ls_tell(progress, NULL, 0, 0);
}

#endif
