/* What a layer does, on the timeline (base/trace.h). */
#ifndef LS_LAYER_NOTE_H
#define LS_LAYER_NOTE_H

#include "base/profile.h"
#include "base/trace.h"

/* Of the calling thread, from `begin` until now. */
static inline void ls_layer_note(const struct ls_trace_kind *kind, double begin)
{
    static const int64_t none[LS_TRACE_NUMBERS];

    if (ls_trace_on) ls_trace_add(kind, 0, begin, ls_now(), none);
}

#endif
