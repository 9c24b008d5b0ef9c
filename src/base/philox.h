/* Philox of many counters at once, for dropout. Inline, so that each instruction set can make its
 * own vectors of it; the words are the same. */
#ifndef LS_BASE_PHILOX_H
#define LS_BASE_PHILOX_H

#include <stdint.h>

#define LS_PHILOX_MULTIPLIER_0 UINT64_C(0xd2511f53)
#define LS_PHILOX_MULTIPLIER_1 UINT64_C(0xcd9e8d57)
#define LS_PHILOX_WEYL_0 0x9e3779b9 /* golden ratio */
#define LS_PHILOX_WEYL_1 0xbb67ae85 /* sqrt(3) - 1 */
#define LS_PHILOX_WIDE 32 /* counters at once; of fewer, compilers unroll the loops instead */
#define LS_PHILOX_KEYS (4 * LS_PHILOX_WIDE)

/* The last word of the counter, so that the kinds of numbers never share a block. */
enum ls_random_kind { LS_RANDOM_NORMAL, LS_RANDOM_BELOW, LS_RANDOM_DROPOUT, LS_RANDOM_ELEMENT };

/* The counter of one block of a row's keys or columns; rows and blocks have 52 and 42 bits. The
 * stream is the head of keys, or the place in a model. */
static inline void ls_dropout_counter(uint32_t counter[4], enum ls_random_kind kind,
                                      uint32_t stream, uint64_t row, uint64_t block)
{
    counter[0] = (uint32_t)block;
    counter[1] = (uint32_t)row;
    counter[2] = stream;
    counter[3] = (uint32_t)(row >> 32) << 12 | (uint32_t)(block >> 32) << 2 | kind;
}

/* Words of dropout for keys or columns [4 block, 4 block + LS_PHILOX_KEYS). */
static inline __attribute__((always_inline)) void
ls_philox_dropout(uint32_t out[LS_PHILOX_KEYS], uint64_t seed, enum ls_random_kind kind,
                  uint32_t stream, uint64_t row, uint64_t block)
{
    uint32_t c[4][LS_PHILOX_WIDE], k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

    for (int i = 0; i < LS_PHILOX_WIDE; i++) {
        uint32_t counter[4];

        ls_dropout_counter(counter, kind, stream, row, block + (uint64_t)i);
        for (int word = 0; word < 4; word++) c[word][i] = counter[word];
    }
    for (int round = 0; round < 10; round++, k0 += LS_PHILOX_WEYL_0, k1 += LS_PHILOX_WEYL_1) {
        for (int i = 0; i < LS_PHILOX_WIDE; i++) {
            const uint64_t product0 = LS_PHILOX_MULTIPLIER_0 * c[0][i];
            const uint64_t product1 = LS_PHILOX_MULTIPLIER_1 * c[2][i];

            c[0][i] = (uint32_t)(product1 >> 32) ^ c[1][i] ^ k0;
            c[1][i] = (uint32_t)product1;
            c[2][i] = (uint32_t)(product0 >> 32) ^ c[3][i] ^ k1;
            c[3][i] = (uint32_t)product0;
        }
    }
    for (int i = 0; i < LS_PHILOX_WIDE; i++)
        for (int word = 0; word < 4; word++) out[4 * i + word] = c[word][i];
}

#endif
