/* Dropout of one row's probabilities of a leaf. Each instruction set compiles it for itself. */
#ifndef LS_CPU_ATTENTION_DROPOUT_H
#define LS_CPU_ATTENTION_DROPOUT_H

#include "base/philox.h"
#include "cpu/simd.h"

/* What simd.h says of `drop`; LS_PHILOX_KEYS keys at a time. */
static inline __attribute__((always_inline)) void drop_keys(void *p, const struct drop_row *row,
                                                            int first, int end)
{
    const uint32_t bound = row->bound;

    for (int key = first / LS_PHILOX_KEYS * LS_PHILOX_KEYS; key < end; key += LS_PHILOX_KEYS) {
        uint16_t *const halves = (uint16_t *)p + key;
        uint32_t *const words = (uint32_t *)p + key;
        uint32_t word[LS_PHILOX_KEYS];

        ls_philox_dropout(word, row->seed, LS_RANDOM_DROPOUT, row->head, row->position,
                          row->block + (uint64_t)key / 4);
        if (row->type == LS_BF16)
            for (int j = 0; j < LS_PHILOX_KEYS; j++) halves[j] &= word[j] < bound ? 0 : 0xffff;
        else
            for (int j = 0; j < LS_PHILOX_KEYS; j++) words[j] &= word[j] < bound ? 0 : UINT32_MAX;
    }
}

#endif
