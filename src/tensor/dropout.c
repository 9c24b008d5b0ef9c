#include "tensor/dropout.h"

#include <math.h>

#include "base/philox.h"
#include "base/random.h"

uint32_t ls_dropout_least_word(const struct ls_dropout *dropout)
{
    return (uint32_t)ceil((double)dropout->rate * 0x1p32);
}

bool ls_dropout_keeps(const struct ls_dropout *dropout, int64_t row, int64_t column)
{
    const uint32_t key[2] = {(uint32_t)dropout->seed, (uint32_t)(dropout->seed >> 32)};
    uint32_t counter[4], word[4];

    ls_dropout_counter(counter, LS_RANDOM_ELEMENT, dropout->stream, (uint64_t)row,
                       (uint64_t)column / 4);
    ls_philox(word, counter, key);
    return word[column % 4] >= ls_dropout_least_word(dropout);
}
