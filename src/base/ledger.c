#include "base/ledger.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20, FEWEST_SLOTS = 64 };

/* A block that is live, or, without an address, one that has left. */
struct ls_ledger_entry {
    const void *block;
    size_t bytes;
    ls_tag tag;
    bool left;
};

struct ls_ledger ls_host_ledger = LS_LEDGER;

const char *ls_tag_name(ls_tag tag)
{
    static const char *const names[LS_TAG_COUNT] = {
        [LS_TAG_ACTIVATION] = "activation", [LS_TAG_WORKSPACE] = "workspace",
        [LS_TAG_GRADIENT] = "gradient",     [LS_TAG_COMM] = "comm",
        [LS_TAG_PARAMETER] = "parameter",   [LS_TAG_OPTIMIZER] = "optimizer",
        [LS_TAG_RECOMPUTE] = "recompute",   [LS_TAG_PADDING] = "padding",
    };

    assert(tag < LS_TAG_COUNT);
    return names[tag];
}

/* ---- counters */

static void count_up(struct ls_ledger_counter *counter, size_t bytes)
{
    const size_t live = atomic_fetch_add(&counter->live, bytes) + bytes;
    size_t peak = atomic_load(&counter->peak);

    while (peak < live && !atomic_compare_exchange_weak(&counter->peak, &peak, live)) continue;
}

size_t ls_ledger_live(const struct ls_ledger *ledger, ls_tag tag)
{
    assert(tag < LS_TAG_COUNT);
    return atomic_load(&ledger->tag[tag].live);
}

size_t ls_ledger_peak(const struct ls_ledger *ledger, ls_tag tag)
{
    assert(tag < LS_TAG_COUNT);
    return atomic_load(&ledger->tag[tag].peak);
}

size_t ls_ledger_live_total(const struct ls_ledger *ledger)
{
    return atomic_load(&ledger->total.live);
}

size_t ls_ledger_peak_total(const struct ls_ledger *ledger)
{
    return atomic_load(&ledger->total.peak);
}

void ls_ledger_reset_peaks(struct ls_ledger *ledger)
{
    for (int tag = 0; tag < LS_TAG_COUNT; tag++)
        atomic_store(&ledger->tag[tag].peak, atomic_load(&ledger->tag[tag].live));
    atomic_store(&ledger->total.peak, atomic_load(&ledger->total.live));
}

/* ---- entries */

/* The slot of a block; if it has none, the first one that is free for it. */
static struct ls_ledger_entry *find(const struct ls_ledger *ledger, const void *block)
{
    const size_t mask = ledger->slots - 1;
    struct ls_ledger_entry *free_slot = NULL;

    for (size_t i = (size_t)(((uintptr_t)block / ALIGNMENT * 0x9e3779b97f4a7c15U) >> 20);; i++) {
        struct ls_ledger_entry *entry = &ledger->slot[i & mask];

        if (entry->block == block && !entry->left) return entry;
        if (entry->left && !free_slot) free_slot = entry;
        if (!entry->block && !entry->left) return free_slot ? free_slot : entry;
    }
}

/* Twice the slots, without those that have left, where more than half are used. */
static ls_status make_room(struct ls_ledger *ledger)
{
    struct ls_ledger grown = {.slots = FEWEST_SLOTS};
    size_t live = 0;

    if (2 * (ledger->used + 1) <= ledger->slots) return LS_OK;
    for (size_t i = 0; i < ledger->slots; i++) live += ledger->slot[i].block != NULL;
    while (grown.slots < 4 * (live + 1)) grown.slots *= 2;
    grown.slot = calloc(grown.slots, sizeof *grown.slot);
    if (!grown.slot) return ls_fail(LS_ENOMEM, "no memory to count memory");
    for (size_t i = 0; i < ledger->slots; i++)
        if (ledger->slot[i].block) *find(&grown, ledger->slot[i].block) = ledger->slot[i];
    free(ledger->slot);
    ledger->slot = grown.slot;
    ledger->slots = grown.slots;
    ledger->used = live;
    return LS_OK;
}

ls_status ls_ledger_enter(struct ls_ledger *ledger, const void *block, ls_tag tag, size_t bytes)
{
    assert(tag < LS_TAG_COUNT);
    pthread_mutex_lock(&ledger->lock);
    const ls_status status = make_room(ledger);

    if (status == LS_OK) {
        struct ls_ledger_entry *entry = find(ledger, block);

        assert(entry->block != block);
        ledger->used += !entry->left;
        *entry = (struct ls_ledger_entry){.block = block, .bytes = bytes, .tag = tag};
        count_up(&ledger->tag[tag], bytes);
        count_up(&ledger->total, bytes);
    }
    pthread_mutex_unlock(&ledger->lock);
    return status;
}

void ls_ledger_leave(struct ls_ledger *ledger, const void *block)
{
    pthread_mutex_lock(&ledger->lock);
    struct ls_ledger_entry *entry = find(ledger, block);

    assert(entry->block == block);
    atomic_fetch_sub(&ledger->tag[entry->tag].live, entry->bytes);
    atomic_fetch_sub(&ledger->total.live, entry->bytes);
    *entry = (struct ls_ledger_entry){.left = true};
    pthread_mutex_unlock(&ledger->lock);
}

/* ---- the host's memory */

/* Large blocks ask for huge pages, whose addresses the core finds sooner; NULL if there is no
 * memory. */
static void *allocate(size_t bytes)
{
    const bool large = bytes >= 2 * HUGE_PAGE;
    void *block;

    if (bytes > PTRDIFF_MAX - HUGE_PAGE) return NULL;
    if (posix_memalign(&block, large ? HUGE_PAGE : ALIGNMENT, bytes > 0 ? bytes : 1) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (large) madvise(block, bytes, MADV_HUGEPAGE); /* where there are none, ordinary ones serve */
#endif
    return block;
}

ls_status ls_alloc(void **out, ls_tag tag, size_t bytes)
{
    void *block = allocate(bytes);

    if (!block)
        return ls_fail(LS_ENOMEM, "out of memory: %zu bytes of %s cannot be allocated", bytes,
                       ls_tag_name(tag));
    const ls_status status = ls_ledger_enter(&ls_host_ledger, block, tag, bytes);

    if (status == LS_OK)
        *out = block;
    else
        free(block);
    return status;
}

void ls_free(void *memory)
{
    if (memory == NULL) return;
    ls_ledger_leave(&ls_host_ledger, memory);
    free(memory);
}
