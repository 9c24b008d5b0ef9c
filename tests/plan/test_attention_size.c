/* Work and memory from the shape alone, against loops that count. */
#include <criterion/criterion.h>

#include "plan/attention_size.h"
#include "tensor/mask.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

static int64_t visible_keys(int64_t i, int64_t s_q, int64_t s_k, bool causal)
{
    const struct ls_mask mask = causal ? ls_mask_causal(s_q, s_k) : ls_mask_full(s_q, s_k);

    return ls_visible_count(ls_mask_row(&mask, i), 0, s_k);
}

Test(attention_size, visible_pairs_are_counted)
{
    for (int64_t s_q = 0; s_q <= 24; s_q++) {
        for (int64_t s_k = 0; s_k <= 24; s_k++) {
            for (int causal = 0; causal < 2; causal++) {
                int64_t pairs = 0;

                for (int64_t i = 0; i < s_q; i++) pairs += visible_keys(i, s_q, s_k, causal);
                cr_expect_eq(ls_visible_pairs(s_q, s_k, causal), (double)pairs, "%ld x %ld %s",
                             (long)s_q, (long)s_k, causal ? "causal" : "full");
            }
        }
    }
}

/* Leaves of keys that rows [begin, end) see. */
static int64_t leaves_seen(const struct ls_attention_shape *s, int64_t begin, int64_t end,
                           bool causal)
{
    int64_t seen = 0;

    for (int64_t start = 0; start < s->s_k; start += LS_LEAF) {
        bool visible = false;

        for (int64_t i = begin; i < end; i++)
            visible |= start < visible_keys(i, s->s_q, s->s_k, causal);
        seen += visible;
    }
    return seen;
}

static int64_t count_tiles(const struct ls_attention_shape *s, bool causal)
{
    int64_t tiles = 0;

    for (int64_t begin = 0; begin < s->s_q; begin += LS_LEAF) {
        const int64_t end = begin + LS_LEAF < s->s_q ? begin + LS_LEAF : s->s_q;
        const int64_t seen = leaves_seen(s, begin, end, causal);

        for (int64_t row = 0; row < s->h / s->h_kv * (end - begin); row += LS_LEAF) tiles += seen;
    }
    return s->b * s->h_kv * tiles;
}

Test(attention_size, tiles_are_counted)
{
    static const int64_t lengths[] = {0,   1,   100, 255, 256, 257, 400, 511,
                                      512, 513, 600, 767, 768, 769, 1100};
    static const struct {
        int64_t b, h, h_kv;
    } heads[] = {{1, 1, 1}, {2, 6, 2}, {1, 5, 1}};

    for (int i = 0; i < LENGTH(lengths) * LENGTH(lengths) * LENGTH(heads) * 2; i++) {
        const int pair = i / (2 * LENGTH(heads)), head = i / 2 % LENGTH(heads);
        const bool causal = i % 2;
        const struct ls_attention_shape s = {.b = heads[head].b,
                                             .h = heads[head].h,
                                             .h_kv = heads[head].h_kv,
                                             .s_q = lengths[pair / LENGTH(lengths)],
                                             .s_k = lengths[pair % LENGTH(lengths)],
                                             .d = 64};

        cr_expect_eq(ls_attention_tiles(&s, causal), count_tiles(&s, causal),
                     "h %ld/%ld s %ld x %ld %s: %ld, not %ld", (long)s.h, (long)s.h_kv, (long)s.s_q,
                     (long)s.s_k, causal ? "causal" : "full", (long)ls_attention_tiles(&s, causal),
                     (long)count_tiles(&s, causal));
    }
}

/* A billion and more of positions: no loop over them, no narrow product. */
Test(attention_size, huge_sizes_are_exact, .timeout = 5)
{
    const int64_t s = INT64_C(1) << 36, leaves = s / LS_LEAF;
    const struct ls_attention_shape shape = {1, 8, 2, s, s, 128, LS_BF16};

    cr_expect_eq(ls_attention_tiles(&shape, false), 8 * leaves * leaves);
    cr_expect_eq(ls_attention_tiles(&shape, true), 8 * (leaves * (leaves + 1) / 2));
    cr_expect_eq(ls_visible_pairs(s, s, false), 0x1p72);
    cr_expect_float_eq(ls_visible_pairs(s, s, true) / 0x1p71, 1, 1e-9);
    for (int kind = LS_LAYOUT_CONTIGUOUS; kind <= LS_LAYOUT_STRIPED; kind++) {
        const struct ls_layout layout = {.kind = (ls_layout_kind)kind, .s = s, .p = 3};

        cr_expect_float_eq(ls_most_pairs_of_keys(&layout, s, false) / 0x1p72, 1 / 3.0, 1e-6);
        cr_expect_float_eq(ls_most_pairs_of_queries(&layout, s, true) / 0x1p71,
                           kind == LS_LAYOUT_CONTIGUOUS ? 5 / 9.0 : 1 / 3.0, 1e-6);
    }
    cr_expect_eq(ls_key_value_bytes(&shape, s), (size_t)2 * 2 * 128 * 2 << 36);
    cr_expect_eq(ls_row_state_bytes(&shape, s), (size_t)8 * 130 * 4 << 36);
}

Test(attention_size, bytes_of_small_shapes)
{
    const struct ls_attention_shape s = {2, 6, 3, 10, 20, 5, LS_F16};

    cr_expect_eq(ls_key_value_bytes(&s, 20), 2 * 2 * 20 * 3 * 5 * 2);
    cr_expect_eq(ls_key_value_bytes(&s, 0), 0);
    cr_expect_eq(ls_row_state_bytes(&s, 10), 2 * 6 * 10 * (5 + 2) * 4);
}

/* Pairs of the rank with most, where it takes its own queries or its own keys. */
static double count_most_pairs(const struct ls_layout *layout, int64_t other, bool causal,
                               bool keys)
{
    double most = 0;

    for (int r = 0; r < layout->p; r++) {
        double pairs = 0;

        for (int64_t row = 0; row < ls_layout_part_rows(layout, r); row++) {
            const int64_t at = ls_layout_position(layout, r, row);

            if (!keys) pairs += (double)visible_keys(at, layout->s, other, causal);
            for (int64_t i = 0; keys && i < other; i++)
                pairs += at < visible_keys(i, other, layout->s, causal);
        }
        if (pairs > most) most = pairs;
    }
    return most;
}

Test(attention_size, the_largest_share_of_pairs_is_found)
{
    static const int64_t lengths[] = {0, 1, 40, 257, 1100, 2600};

    for (int i = 0; i < LENGTH(lengths) * LENGTH(lengths) * 3 * 2 * 2; i++) {
        const bool causal = i % 2, keys = i / 2 % 2;
        const struct ls_layout layout = {.kind = LS_LAYOUT_CONTIGUOUS + i / 4 % 3,
                                         .s = lengths[i / 12 % LENGTH(lengths)],
                                         .p = 1 + i % 5};
        const int64_t other = lengths[i / 12 / LENGTH(lengths)];
        const double exact = count_most_pairs(&layout, other, causal, keys);
        const double found = keys ? ls_most_pairs_of_keys(&layout, other, causal)
                                  : ls_most_pairs_of_queries(&layout, other, causal);

        cr_expect_eq(found, exact, "%s of %ld%s, %ld, p %d: %g, %g", keys ? "keys" : "queries",
                     (long)layout.s, causal ? " causal" : "", (long)other, layout.p, found, exact);
    }
}

Test(attention_size, most_rows_and_leaves_of_a_layout)
{
    static const int64_t lengths[] = {0, 1, 255, 256, 257, 3001, 4096, 10000};

    for (int i = 0; i < LENGTH(lengths) * 3 * 8; i++) {
        const struct ls_layout layout = {
            .kind = LS_LAYOUT_CONTIGUOUS + i % 3, .s = lengths[i / 24], .p = 1 + i / 3 % 8};
        int64_t rows = 0, leaves = 0;

        for (int r = 0; r < layout.p; r++) {
            const int64_t here = ls_layout_part_rows(&layout, r);
            const int64_t leaves_here = ls_layout_part_leaves(&layout, r);

            if (here > rows) rows = here;
            if (leaves_here > leaves) leaves = leaves_here;
        }
        cr_expect_eq(ls_layout_most_rows(&layout), rows, "%s s %ld p %d",
                     ls_layout_name(layout.kind), (long)layout.s, layout.p);
        cr_expect_eq(ls_layout_most_leaves(&layout), leaves, "%s s %ld p %d",
                     ls_layout_name(layout.kind), (long)layout.s, layout.p);
    }
}
