/* The one allocator of large memory: counts live and peak bytes by purpose. */
#ifndef LS_BASE_LEDGER_H
#define LS_BASE_LEDGER_H

#include <stddef.h>

#include "base/status.h"

typedef enum {
    LS_TAG_ACTIVATION, /* q, k, v, o and their like */
    LS_TAG_WORKSPACE,  /* packed operands, partial states, scratch */
    LS_TAG_GRADIENT,   /* sums of gradients, also on their way between ranks */
    LS_TAG_COMM,       /* buffers that travel between ranks */
    LS_TAG_COUNT
} ls_tag;

const char *ls_tag_name(ls_tag tag);

/* *out: bytes of uninitialised memory, aligned to 64, counted under tag exactly as asked for; the
 * caller frees it. bytes may be 0 (*out can still be freed). Thread-safe. Errors: LS_ENOMEM. */
ls_status ls_alloc(void **out, ls_tag tag, size_t bytes);

/* Accepts NULL. Thread-safe. */
void ls_free(void *memory);

/* Bytes that are live now, and the most that were live at once since the last reset; of one tag,
 * or over all tags (whose peak is not the sum of theirs). */
size_t ls_ledger_live(ls_tag tag);
size_t ls_ledger_peak(ls_tag tag);
size_t ls_ledger_live_total(void);
size_t ls_ledger_peak_total(void);
void ls_ledger_reset_peaks(void);

#endif
