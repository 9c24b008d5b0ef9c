#include "cpu/attention/decode.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/attention/decode_products.h"

static size_t packs_nothing(int d_pad)
{
    (void)d_pad;
    return 0;
}

#define DECODE_ROW(text, table)                                                                    \
    {                                                                                              \
        .name = text, .type = LS_F32, .d_multiple = DECODE_LANES, .strip = LS_FEW_ROWS,            \
        .score_stride = LS_LEAF, .p_stride = LS_LEAF, .packed_bytes = packs_nothing,               \
        .scratch_bytes = cpu_no_scratch, .create = cpu_plain_worker_create, .destroy = free,       \
        .decode = &(table)                                                                         \
    }

const struct products *cpu_decode_find(ls_isa isa)
{
    static const struct products generic = DECODE_ROW("decode in plain C", cpu_decode_generic);
    static const struct products avx2 = DECODE_ROW("decode in AVX2", cpu_decode_avx2);
    static const struct products avx512 = DECODE_ROW("decode in AVX-512", cpu_decode_avx512);

    if (isa == LS_ISA_GENERIC) return &generic;
    return isa == LS_ISA_AVX2 ? &avx2 : &avx512;
}

/* How many of `left` rows the products take now. */
static int strip_rows(int left)
{
    return left < DECODE_STRIP ? 1 : DECODE_STRIP;
}

static void add_run(float *acc, const struct strip_worker *w, const float *p, int rows,
                    const struct key_rows *v, struct key_span keys)
{
    for (int r = 0, n; r < rows; r += n) {
        n = strip_rows(rows - r);
        w->products->decode->output(acc + r * w->pad.d_v, p + r * LS_LEAF, n, v, keys);
    }
}

/* What a row does not see, or dropout does not keep, is not touched: 0 x inf is not 0. */
static void add_kept(float *acc, const struct strip_worker *w, const float *p,
                     const struct key_rows *v, struct key_span keys)
{
    for (int j = keys.first, end; j < keys.end; j = end + 1) {
        for (end = j; end < keys.end && p[end] != 0; end++) continue;
        add_run(acc, w, p, 1, v, (struct key_span){j, end});
    }
}

/* Rows that see the same of a leaf. */
static void add_seen(float *acc, const struct strip_worker *w, const float *p, int rows,
                     const struct key_rows *v, const struct ls_leaf_keys *seen)
{
    for (int first = ls_leaf_keys_next(seen, 0, true), end; first < LS_LEAF;
         first = ls_leaf_keys_next(seen, end, true)) {
        end = ls_leaf_keys_next(seen, first, false);
        add_run(acc, w, p, rows, v, (struct key_span){first, end});
    }
}

static bool rows_see_the_same(const struct ls_leaf_keys *visible, int rows)
{
    for (int r = 1; r < rows; r++)
        if (memcmp(&visible[r], &visible[0], sizeof *visible) != 0) return false;
    return true;
}

void cpu_decode_scores(struct strip_worker *w, const struct chunk *chunk, int leaf,
                       struct key_span keys)
{
    const float *q = chunk->q;

    for (int r = 0, n; r < chunk->rows; r += n) {
        n = strip_rows(chunk->rows - r);
        w->products->decode->scores(w->scores + r * LS_LEAF, q + r * w->pad.d, n,
                                    &chunk->k_rows[leaf], keys);
    }
}

void cpu_decode_output(float *acc, const struct strip_worker *w, const struct chunk *chunk,
                       int leaf)
{
    const struct ls_leaf_keys *all = &ls_leaf_keys_first[LS_LEAF], *visible = chunk->visible[leaf];
    const bool same = !visible || rows_see_the_same(visible, chunk->rows);
    const struct key_rows *v = &chunk->v_rows[leaf];

    memset(acc, 0, (size_t)(chunk->rows * w->pad.d_v) * sizeof *acc);
    if (same && !chunk->drops) {
        add_seen(acc, w, w->scores, chunk->rows, v, visible ? &visible[0] : all);
        return;
    }
    for (int r = 0; r < chunk->rows; r++, acc += w->pad.d_v) {
        const float *p = w->scores + r * LS_LEAF;

        if (chunk->drops)
            add_kept(acc, w, p, v, (struct key_span){0, LS_LEAF});
        else
            add_seen(acc, w, p, 1, v, visible ? &visible[r] : all);
    }
}
