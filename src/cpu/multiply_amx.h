/* Blocks of 32 by 32 of bf16 operands packed as in pack_bf16.h, on AMX tiles. */
#ifndef LS_CPU_MULTIPLY_AMX_H
#define LS_CPU_MULTIPLY_AMX_H

#include "cpu/amx_tiles.h"
#include "cpu/pack_bf16.h"

/* A multiply_block (pack_bf16.h), between begin_amx and end_amx. */
TARGET_AMX static void multiply_amx(float *out, ptrdiff_t stride, const char *left,
                                    const char *right, int steps)
{
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (int i = 0; i < steps; i++, left += PACKED_STEP_BYTES, right += PACKED_STEP_BYTES) {
        TILE_LOAD(4, left, 64);
        TILE_LOAD(6, right, 64);
        TILE_PRODUCT(0, 4, 6);
        TILE_LOAD(7, right + TILE_BYTES, 64);
        TILE_PRODUCT(1, 4, 7);
        TILE_LOAD(5, left + TILE_BYTES, 64);
        TILE_PRODUCT(2, 5, 6);
        TILE_PRODUCT(3, 5, 7);
    }
    TILE_STORE(0, out, stride * 4);
    TILE_STORE(1, out + 16, stride * 4);
    TILE_STORE(2, out + 16 * stride, stride * 4);
    TILE_STORE(3, out + 16 * stride + 16, stride * 4);
}

TARGET_AMX static void begin_amx(void)
{
    TILE_BEGIN();
}

TARGET_AMX static void end_amx(void)
{
    TILE_END();
}

#endif
