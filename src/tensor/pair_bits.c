#include "tensor/pair_bits.h"

#include <endian.h>
#include <string.h>

#include "base/cpu.h"

/* Eight bytes of a row from this one on; those behind its end are 0. */
static uint64_t word(const struct ls_pair_bits *bits, int64_t i, int64_t byte)
{
    const int64_t left = bits->row_bytes - byte;
    uint64_t x = 0;

    if (left <= 0) return 0;
    memcpy(&x, bits->first_row + i * bits->row_bytes + byte,
           left < (int64_t)sizeof x ? (size_t)left : sizeof x);
    return le64toh(x);
}

/* Of the word that begins with key `at`: the bits of keys in [from, to). */
static uint64_t between(uint64_t word, int64_t at, int64_t from, int64_t to)
{
    if (from > at) word &= ~UINT64_C(0) << (from - at);
    if (to < at + 64) word &= ~(~UINT64_C(0) << (to - at));
    return word;
}

int64_t ls_pair_bits_next(const struct ls_pair_bits *bits, int64_t i, int64_t from, int64_t to,
                          bool present)
{
    const uint64_t flip = present ? 0 : ~UINT64_C(0);

    if (!bits->first_row) return present ? from : to;
    for (int64_t at = from / 8 * 8; at < to; at += 64) {
        const uint64_t found = between(word(bits, i, at / 8) ^ flip, at, from, to);

        if (found) return at + __builtin_ctzll(found);
    }
    return to;
}

/* Of a row that is there. */
LS_CLONED static int64_t count_row(const struct ls_pair_bits *bits, int64_t i, int64_t from,
                                   int64_t to)
{
    int64_t count = 0;

    for (int64_t at = from / 8 * 8; at < to; at += 64)
        count += __builtin_popcountll(between(word(bits, i, at / 8), at, from, to));
    return count;
}

int64_t ls_pair_bits_count(const struct ls_pair_bits *bits, int64_t i, int64_t from, int64_t to)
{
    return bits->first_row ? count_row(bits, i, from, to) : to - from;
}

static bool has_some(const struct ls_pair_bits *bits, int64_t first, int64_t end, int64_t key,
                     int64_t key_end)
{
    for (int64_t i = first; i < end; i++)
        if (ls_pair_bits_next(bits, i, key, key_end, true) < key_end) return true;
    return false;
}

void ls_pair_bits_map(bool *some, const struct ls_pair_bits *bits)
{
    const int64_t s_q = bits->rows, s_k = 8 * bits->row_bytes;

    for (int64_t first = 0; first < s_q; first += LS_LEAF)
        for (int64_t key = 0; key < s_k; key += LS_LEAF) {
            const int64_t end = first + LS_LEAF, key_end = key + LS_LEAF;

            *some++ =
                has_some(bits, first, end < s_q ? end : s_q, key, key_end < s_k ? key_end : s_k);
        }
}

struct ls_leaf_keys ls_pair_bits_leaf(const struct ls_pair_bits *bits, int64_t i, int64_t leaf)
{
    struct ls_leaf_keys keys;

    for (int w = 0; w < LS_LEAF_WORDS; w++)
        keys.word[w] = word(bits, i, leaf * (LS_LEAF / 8) + w * 8);
    return keys;
}
