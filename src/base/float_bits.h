/* Floats by their bits, in loops that become vector code. */
#ifndef LS_BASE_FLOAT_BITS_H
#define LS_BASE_FLOAT_BITS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t bits_of_f32(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float f32_of_bits(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

/* `condition ? yes : no` without a branch, which would keep loops from becoming vector code. */
static inline uint32_t choose_bits(bool condition, uint32_t yes, uint32_t no)
{
    return no ^ ((yes ^ no) & -(uint32_t)condition);
}

#endif
