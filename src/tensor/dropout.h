/* Dropout of elements of a tensor [batch, position, column]: x becomes x / (1 - rate), or 0.
 * Whether an element is kept depends on the seed, the place in the model (stream) and the element's
 * index in the whole problem alone, so that no cut changes it and it need not be stored. */
#ifndef LS_TENSOR_DROPOUT_H
#define LS_TENSOR_DROPOUT_H

#include <stdbool.h>
#include <stdint.h>

struct ls_dropout {
    float rate; /* 0 to below 1; 0 keeps all */
    uint64_t seed;
    uint32_t stream;
};

/* A row is batch s + position; columns below 2^44, rows below 2^52. */
bool ls_dropout_keeps(const struct ls_dropout *dropout, int64_t row, int64_t column);

/* Random words below this drop their element. */
uint32_t ls_dropout_least_word(const struct ls_dropout *dropout);

#endif
