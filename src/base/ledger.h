/* Where large memory went: live and peak bytes by purpose. The host has a ledger, and each device
 * with memory of its own. Blocks are entered by their addresses, which may be of memory that the
 * host cannot read. */
#ifndef LS_BASE_LEDGER_H
#define LS_BASE_LEDGER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "base/status.h"

typedef enum {
    LS_TAG_ACTIVATION, /* q, k, v, o and their like */
    LS_TAG_WORKSPACE,  /* packed operands, partial states, scratch */
    LS_TAG_GRADIENT,   /* sums of gradients, also on their way between ranks */
    LS_TAG_COMM,       /* buffers that travel between ranks */
    LS_TAG_PARAMETER,  /* weights */
    LS_TAG_OPTIMIZER,  /* its state, and masters of weights */
    LS_TAG_RECOMPUTE,  /* activations that are made again backward */
    LS_TAG_PADDING,    /* rows that make parts equal */
    LS_TAG_COUNT
} ls_tag;

const char *ls_tag_name(ls_tag tag);

struct ls_ledger_counter {
    atomic_size_t live, peak;
};

/* Thread-safe. */
struct ls_ledger {
    struct ls_ledger_counter tag[LS_TAG_COUNT], total;
    pthread_mutex_t lock;         /* of the entries */
    struct ls_ledger_entry *slot; /* [slots], by a hash of the address */
    size_t slots, used;           /* used: once, as a search has to go over them */
};

#define LS_LEDGER                                                                                  \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER                                                          \
    }

/* Enters a block that is not entered, and takes one out that is. Errors: LS_ENOMEM. */
ls_status ls_ledger_enter(struct ls_ledger *ledger, const void *block, ls_tag tag, size_t bytes);
void ls_ledger_leave(struct ls_ledger *ledger, const void *block);

/* Bytes that are live now, and the most that were live at once since the last reset; of one tag,
 * or over all tags (whose peak is not the sum of theirs). */
size_t ls_ledger_live(const struct ls_ledger *ledger, ls_tag tag);
size_t ls_ledger_peak(const struct ls_ledger *ledger, ls_tag tag);
size_t ls_ledger_live_total(const struct ls_ledger *ledger);
size_t ls_ledger_peak_total(const struct ls_ledger *ledger);
void ls_ledger_reset_peaks(struct ls_ledger *ledger);

/* ---- the host's */

extern struct ls_ledger ls_host_ledger;

/* *out: bytes of uninitialised memory, aligned to 64, counted under tag exactly as asked for; the
 * caller frees it. bytes may be 0 (*out can still be freed). Thread-safe. Errors: LS_ENOMEM. */
ls_status ls_alloc(void **out, ls_tag tag, size_t bytes);

/* Accepts NULL. Thread-safe. */
void ls_free(void *memory);

#endif
