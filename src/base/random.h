/* Counter-based random numbers: a value depends on its seed and global index alone, never on who
 * asks for it or in which order.
 * Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3". */
#ifndef LS_BASE_RANDOM_H
#define LS_BASE_RANDOM_H

#include <stdint.h>

/* Philox4x32-10: four words out of a 128-bit counter and a 64-bit key. */
void ls_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

/* out[i] = the standard normal number of (seed, stream, first + i), i < n; streams keep the
 * tensors of one seed apart. Box-Muller on pairs of Philox words. */
void ls_random_normal(float *out, uint64_t seed, uint32_t stream, uint64_t first, int64_t n);

/* Uniform integer in [0, bound) of (seed, stream, index); bound > 0. */
uint64_t ls_random_below(uint64_t seed, uint32_t stream, uint64_t index, uint64_t bound);

/* Words for keys 4 block to 4 (block + n) - 1 of a row of a head, for dropout; `head` counts those
 * of all batches. */
void ls_random_dropout(uint32_t *out, uint64_t seed, uint32_t head, uint64_t row, uint64_t block,
                       int n);

#endif
