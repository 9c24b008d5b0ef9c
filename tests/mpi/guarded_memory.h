/* The memory of guarded.h, in which the host may work between enter and leave. */
#ifndef TESTS_MPI_GUARDED_MEMORY_H
#define TESTS_MPI_GUARDED_MEMORY_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device/device.h"

#define ARENA_BYTES ((size_t)1 << 30) /* of addresses; memory only where it is used */

static struct guarded {
    struct ls_device *cpu; /* that computes */
    char *arena;
    size_t used;
    int blocks, entered;
    struct ls_ledger ledger;
} guarded;

static inline void guarded_enter(void)
{
    if (guarded.entered++ == 0) mprotect(guarded.arena, ARENA_BYTES, PROT_READ | PROT_WRITE);
}

static inline void guarded_leave(void)
{
    if (--guarded.entered == 0) mprotect(guarded.arena, ARENA_BYTES, PROT_NONE);
}

static inline int guarded_ordinals(void)
{
    return 1;
}

static inline ls_status guarded_open(void **self, int ordinal, int threads)
{
    guarded = (struct guarded){.ledger = LS_LEDGER};
    LS_TRY(ls_device_open(&guarded.cpu, "cpu", ordinal, threads));
    guarded.arena =
        mmap(NULL, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *self = guarded.cpu->self; /* so that operations find what they expect */
    return guarded.arena != MAP_FAILED ? LS_OK : ls_fail(LS_ENOMEM, "no addresses");
}

static inline void guarded_close(void *self)
{
    (void)self;
    munmap(guarded.arena, ARENA_BYTES);
    ls_device_close(guarded.cpu);
}

static inline void guarded_facts(struct ls_device_facts *out, void *self)
{
    (void)self;
    *out = guarded.cpu->facts;
}

/* ---- memory */

static inline ls_status guarded_alloc(void **out, void *self, ls_tag tag, size_t bytes)
{
    (void)self;
    if (guarded.used + bytes + 64 > ARENA_BYTES) return ls_fail(LS_ENOMEM, "the arena is full");
    *out = guarded.arena + guarded.used;
    guarded.used += (bytes + 64) / 64 * 64;
    guarded.blocks++;
    guarded_enter();
    memset(*out, 0xff, bytes); /* NaN */
    guarded_leave();
    return ls_ledger_enter(&guarded.ledger, *out, tag, bytes);
}

static inline void guarded_free(void *self, void *memory)
{
    (void)self;
    ls_ledger_leave(&guarded.ledger, memory);
    if (--guarded.blocks == 0) guarded.used = 0;
}

static inline void guarded_copy(void *self, void *to, const void *from, size_t bytes)
{
    (void)self;
    guarded_enter();
    if (bytes > 0) memcpy(to, from, bytes);
    guarded_leave();
}

static inline struct ls_ledger *guarded_ledger(void *self)
{
    (void)self;
    return &guarded.ledger;
}

static inline bool guarded_holds(void *self, const void *memory)
{
    (void)self;
    return (const char *)memory >= guarded.arena &&
           (const char *)memory < guarded.arena + ARENA_BYTES;
}

static const struct ls_memory_ops guarded_memory = {.alloc = guarded_alloc,
                                                    .free = guarded_free,
                                                    .write = guarded_copy,
                                                    .read = guarded_copy,
                                                    .ledger = guarded_ledger,
                                                    .holds = guarded_holds};

#endif
