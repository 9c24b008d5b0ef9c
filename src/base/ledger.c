#include "base/ledger.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

/* Stands before every block; as long as the alignment, so that the block is aligned as well. */
struct header {
    _Alignas(ALIGNMENT) size_t bytes;
    ls_tag tag;
};

struct counter {
    atomic_size_t live, peak;
};

static struct counter tags[LS_TAG_COUNT], total;

const char *ls_tag_name(ls_tag tag)
{
    static const char *const names[LS_TAG_COUNT] = {
        [LS_TAG_ACTIVATION] = "activation",
        [LS_TAG_WORKSPACE] = "workspace",
        [LS_TAG_GRADIENT] = "gradient",
        [LS_TAG_COMM] = "comm",
    };

    assert(tag < LS_TAG_COUNT);
    return names[tag];
}

static void count_up(struct counter *counter, size_t bytes)
{
    const size_t live = atomic_fetch_add(&counter->live, bytes) + bytes;
    size_t peak = atomic_load(&counter->peak);

    while (peak < live && !atomic_compare_exchange_weak(&counter->peak, &peak, live)) continue;
}

/* Large blocks ask for huge pages, whose addresses the core finds sooner; NULL if there is no
 * memory. */
static void *allocate(size_t bytes)
{
    const bool large = bytes >= 2 * HUGE_PAGE;
    void *block;

    if (posix_memalign(&block, large ? HUGE_PAGE : ALIGNMENT, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    if (large) madvise(block, bytes, MADV_HUGEPAGE); /* where there are none, ordinary ones serve */
#endif
    return block;
}

ls_status ls_alloc(void **out, ls_tag tag, size_t bytes)
{
    struct header *header = NULL;

    assert(tag < LS_TAG_COUNT);
    if (bytes <= PTRDIFF_MAX - sizeof *header) header = allocate(sizeof *header + bytes);
    if (!header)
        return ls_fail(LS_ENOMEM, "out of memory: %zu bytes of %s cannot be allocated", bytes,
                       ls_tag_name(tag));

    *header = (struct header){.bytes = bytes, .tag = tag};
    count_up(&tags[tag], bytes);
    count_up(&total, bytes);
    *out = header + 1;
    return LS_OK;
}

void ls_free(void *memory)
{
    if (memory == NULL) return;

    struct header *const header = (struct header *)memory - 1;

    assert(header->tag < LS_TAG_COUNT);
    atomic_fetch_sub(&tags[header->tag].live, header->bytes);
    atomic_fetch_sub(&total.live, header->bytes);
    free(header);
}

size_t ls_ledger_live(ls_tag tag)
{
    assert(tag < LS_TAG_COUNT);
    return atomic_load(&tags[tag].live);
}

size_t ls_ledger_peak(ls_tag tag)
{
    assert(tag < LS_TAG_COUNT);
    return atomic_load(&tags[tag].peak);
}

size_t ls_ledger_live_total(void)
{
    return atomic_load(&total.live);
}

size_t ls_ledger_peak_total(void)
{
    return atomic_load(&total.peak);
}

void ls_ledger_reset_peaks(void)
{
    for (int tag = 0; tag < LS_TAG_COUNT; tag++)
        atomic_store(&tags[tag].peak, atomic_load(&tags[tag].live));
    atomic_store(&total.peak, atomic_load(&total.live));
}
