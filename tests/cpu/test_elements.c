/* Elements of a row, 16 at a time or fewer, are read as what they are and rounded as everywhere
 * else, and none beside them is touched. */
#include "cpu/elements.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tensor/dtype.h"

enum { AROUND = 3, ROOM = PAIR + 2 * AROUND };

/* Of `type`, where x are numbers of f32; element i of the row is x[i]. */
static void fill(void *row, ls_dtype type, const float *x)
{
    memset(row, 0x5a, ROOM * sizeof(float));
    ls_dtype_convert((char *)row + AROUND * ls_dtype_size(type), type, x, LS_F32, PAIR);
}

/* The compiler knows n only where it is PAIR, as in loops over a row. */
static void copy(void *to, float *sums, const void *from, ls_dtype type, int n)
{
    const struct pair x =
        n == PAIR ? load_pair(from, type, AROUND, PAIR, 0) : load_pair(from, type, AROUND, n, 7.5F);

    if (n == PAIR)
        store_pair(to, type, AROUND, PAIR, x);
    else
        store_pair(to, type, AROUND, n, x);
    store_sums(sums, type, AROUND, n, x);
}

Test(elements, are_copied_and_none_beside_them)
{
    for (int type = LS_F32; type <= LS_BF16; type++)
        for (int n = 1; n <= PAIR; n++) {
            const size_t size = (size_t)ls_dtype_size((ls_dtype)type);
            float x[PAIR], sums[ROOM], from[ROOM], to[ROOM], untouched[ROOM];

            for (int i = 0; i < PAIR; i++) x[i] = (float)(i + 1);
            fill(from, (ls_dtype)type, x);
            memset(to, 0xa5, sizeof to);
            memset(sums, 0xa5, sizeof sums);
            memcpy(untouched, to, sizeof to);
            copy(to, sums, from, (ls_dtype)type, n);
            cr_expect_eq(
                memcmp((char *)to + AROUND * size, (char *)from + AROUND * size, (size_t)n * size),
                0, "type %d n %d", type, n);
            cr_expect_eq(memcmp(to, untouched, AROUND * size), 0);
            cr_expect_eq(memcmp((char *)to + (size_t)(AROUND + n) * size, untouched,
                                (size_t)(ROOM - AROUND - n) * size),
                         0, "type %d n %d", type, n);
            cr_expect_eq(memcmp(sums + AROUND, x, (size_t)n * sizeof *x), 0, "type %d n %d", type,
                         n);
            cr_expect_eq(
                memcmp(sums + AROUND + n, untouched, (size_t)(ROOM - AROUND - n) * sizeof *sums),
                0);
        }
}

/* What the lanes behind a row hold is what was asked for. */
Test(elements, behind_a_row_are_as_asked_for)
{
    for (int type = LS_F32; type <= LS_BF16; type++)
        for (int n = 1; n < PAIR; n++) {
            float x[PAIR] = {0}, from[ROOM], out[PAIR];

            fill(from, (ls_dtype)type, x);
            const struct pair rest = load_pair(from, (ls_dtype)type, AROUND, n, 7.5F);
            store_sums(out, (ls_dtype)type, 0, PAIR, rest);
            for (int i = 0; i < PAIR; i++) cr_expect_eq(out[i], i < n ? 0 : 7.5F, "%d of %d", i, n);
        }
}

/* All bf16 numbers, and what lies between them: a little more, just under half, half, more. */
Test(elements, are_rounded_as_everywhere)
{
    static const uint32_t between[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};

    for (uint32_t upper = 0; upper < 0x10000; upper += PAIR)
        for (int b = 0; b < 6; b++) {
            uint32_t bits[PAIR];
            float x[PAIR];
            uint16_t expected[PAIR], to[PAIR];

            for (uint32_t i = 0; i < PAIR; i++) bits[i] = (upper + i) << 16 | between[b];
            memcpy(x, bits, sizeof x);
            ls_dtype_convert(expected, LS_BF16, x, LS_F32, PAIR);
            struct pair pair = {{{0}}};
            for (int i = 0; i < PAIR; i++) pair.x[i % 2][i / 2] = x[i];
            store_pair(to, LS_BF16, 0, PAIR, pair);
            cr_assert_eq(memcmp(to, expected, sizeof to), 0, "from %x, %x between", upper,
                         between[b]);
        }
}
