/* Rows that go between tensor-parallel ranks one rank at a time, beside linears, and rows that go
 * all at once give the same bits: a sequence alone, and with another one. */
#include "forms.h"
#include "side.h"

MPI_SUITE(layer_border)

#define ROWS(sequences)                                                                            \
    {                                                                                              \
        .b = (sequences), .s = 240, .e = 48, .h = 24, .h_kv = 24, .d = 2, .f = 96, .type = LS_BF16 \
    }
#define ALONE_AND_NOT(...)                                                                         \
    {                                                                                              \
        {"alone", ROWS(1), {OPTIONS, .dropout = 0.25F, __VA_ARGS__}},                              \
        {                                                                                          \
            "one of two", ROWS(2),                                                                 \
            {                                                                                      \
                OPTIONS, .dropout = 0.25F, __VA_ARGS__                                             \
            }                                                                                      \
        }                                                                                          \
    }

static const struct form pairs[][2] = {
    ALONE_AND_NOT(.causal = true),
    ALONE_AND_NOT(.parallel = true, .rope_theta = 1e4F),
    ALONE_AND_NOT(.post_norm = true, SWIGLU, .recompute = "full"),
};

static bool begins_with(const struct side *two, const struct side *one, int which)
{
    char *all = read_bytes(two->device, &two->got[which]);
    char *first = read_bytes(one->device, &one->got[which]);
    const bool same = memcmp(all, first, bytes_of(&one->got[which])) == 0;

    free(first);
    free(all);
    return same;
}

MPI_TEST(layer_border, rows_have_the_same_bits_rank_by_rank)
{
    if (size == 1 || 24 % size != 0) MPI_SKIP("%d tensor-parallel ranks for 24 heads", size);
    for (int i = 0; i < COUNT(pairs); i++) {
        struct side one = side_of(&pairs[i][0], size, true);
        struct side two = side_of(&pairs[i][1], size, true);

        open_side(&one);
        open_side(&two);
        MPI_CHECK(!one.plan->exchange.blocks && two.plan->exchange.blocks, "rank by rank, or not");
        run_side(&one);
        run_side(&two);
        MPI_CHECK(begins_with(&two, &one, Y), "y of pair %d", i);
        MPI_CHECK(begins_with(&two, &one, DX), "dx of pair %d", i);
        close_side(&two);
        close_side(&one);
    }
}
