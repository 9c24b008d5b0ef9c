/* Which elements of a row dropout keeps (tensor/dropout.h), or which keys of one (tensor/scores.h),
 * many at once. */
#ifndef LS_CPU_DRAW_H
#define LS_CPU_DRAW_H

#include "base/cpu.h"
#include "base/philox.h"
#include "tensor/dropout.h"

struct drawing {
    enum ls_random_kind kind;
    uint64_t seed;
    uint32_t stream, least; /* words below are dropped */
    /* kept = 1 or 0 for the columns from 4 block on of a row of the whole problem */
    void (*some)(uint8_t kept[LS_PHILOX_KEYS], const struct drawing *d, uint64_t row,
                 uint64_t block);
};

/* LS_RANDOM_ELEMENT, or LS_RANDOM_DROPOUT, of ls_dropout_of_keys. */
struct drawing drawing_of(const struct ls_dropout *dropout, enum ls_random_kind kind, ls_isa isa);

/* mask [n] of the columns from `column` on, a multiple of 4. */
void draw(uint8_t *mask, const struct drawing *d, int64_t row, int64_t column, int n);

#endif
