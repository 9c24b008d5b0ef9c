/* Gives out consecutive pieces of one block, each aligned to 64 bytes. */
#ifndef LS_CPU_CARVE_H
#define LS_CPU_CARVE_H

#include <stddef.h>

struct cursor {
    char *base; /* NULL: only count */
    size_t used;
};

static inline void *carve(struct cursor *cursor, size_t bytes)
{
    void *piece = cursor->base ? cursor->base + cursor->used : NULL;

    cursor->used += (bytes + 63) / 64 * 64;
    return piece;
}

#endif
