#include "tensor/leaf_keys.h"

#define WORD(n, first)                                                                             \
    ((n) <= (first) ? 0 : (n) >= (first) + 64 ? ~UINT64_C(0) : (UINT64_C(1) << (n) % 64) - 1)
#define FIRST(n)                                                                                   \
    {                                                                                              \
        {                                                                                          \
            WORD(n, 0), WORD(n, 64), WORD(n, 128), WORD(n, 192)                                    \
        }                                                                                          \
    }
#define FIRST_4(n) FIRST(n), FIRST((n) + 1), FIRST((n) + 2), FIRST((n) + 3)
#define FIRST_16(n) FIRST_4(n), FIRST_4((n) + 4), FIRST_4((n) + 8), FIRST_4((n) + 12)
#define FIRST_64(n) FIRST_16(n), FIRST_16((n) + 16), FIRST_16((n) + 32), FIRST_16((n) + 48)

const struct ls_leaf_keys ls_leaf_keys_first[] = {FIRST_64(0), FIRST_64(64), FIRST_64(128),
                                                  FIRST_64(192), FIRST(256)};

int ls_leaf_keys_next(const struct ls_leaf_keys *keys, int from, bool present)
{
    const uint64_t flip = present ? 0 : ~UINT64_C(0);

    for (int i = from / 64; i < LS_LEAF_WORDS; i++) {
        const uint64_t found = (keys->word[i] ^ flip) & ~ls_leaf_keys_first[from].word[i];

        if (found) return 64 * i + __builtin_ctzll(found);
    }
    return LS_LEAF;
}

int ls_leaf_keys_last(const struct ls_leaf_keys *keys)
{
    for (int i = LS_LEAF_WORDS - 1; i >= 0; i--)
        if (keys->word[i]) return 64 * i + 63 - __builtin_clzll(keys->word[i]);
    return -1;
}
