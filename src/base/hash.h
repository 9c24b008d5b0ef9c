/* A number by which ranks notice that they were given different bytes; no protection against those
 * who try. Source: Fowler, Noll, Vo, FNV-1a of 64 bits. */
#ifndef LS_BASE_HASH_H
#define LS_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define LS_HASH_START UINT64_C(0xcbf29ce484222325)

/* The hash of all bytes before these and of these. */
static inline uint64_t ls_hash(uint64_t hash, const void *bytes, size_t n)
{
    const unsigned char *byte = bytes;

    for (size_t i = 0; i < n; i++) hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    return hash;
}

#endif
