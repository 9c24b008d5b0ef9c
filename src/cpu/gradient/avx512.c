/* Backward's tile in f32 by AVX-512. Against oneDNN's products: blocks of 64 keys by 64 queries
 * stay in the first-level cache, those that nobody sees are left out, and complete sums go into the
 * tree while they are in registers. */
#include "cpu/gradient/products.h"

#if defined(__x86_64__)

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cpu/attention/panels_f32.h"
#include "cpu/gradient/avx512.h"

#define BLOCK PANEL /* keys, and queries */
#define BLOCKS (LS_LEAF / BLOCK)
#define PARTS (2 * (BLOCK / ROWS + 1)) /* of scores and dp of a block */

_Static_assert(BLOCK % ROWS != 0, "the last rows of a block are fewer");

/* What a leaf is packed into: for each 64 rows k, and k and v transposed, or q and d_o, in panels.
 * So what the next block needs comes next; and queries, which pass by for each chunk of keys, are
 * there but once. */
static size_t block_floats(int d_pad)
{
    return (size_t)BLOCK * (size_t)d_pad;
}

/* Of one block. */
static size_t keys_floats(struct head_dims pad)
{
    return 2 * block_floats(pad.d) + block_floats(pad.d_v);
}

static size_t queries_floats(struct head_dims pad)
{
    return block_floats(pad.d) + block_floats(pad.d_v);
}

static size_t keys_bytes(struct head_dims pad)
{
    return BLOCKS * keys_floats(pad) * sizeof(float);
}

static size_t queries_bytes(struct head_dims pad)
{
    return BLOCKS * queries_floats(pad) * sizeof(float);
}

/* A thread's own. */
struct worker {
    struct head_dims pad;
    float *dk, *dv; /* sums of a block of keys, not complete yet */
    float *dq;      /* of each block of queries */
};

static size_t scratch_bytes(struct head_dims pad)
{
    return ((1 + BLOCKS) * block_floats(pad.d) + block_floats(pad.d_v)) * sizeof(float);
}

static ls_status create(void **out, ls_isa isa, struct head_dims pad, void *scratch)
{
    struct worker *w = malloc(sizeof *w);
    float *sums = scratch;

    (void)isa;
    if (!w) return ls_fail(LS_ENOMEM, "gradient kernel: out of memory");
    *w = (struct worker){.pad = pad,
                         .dk = sums,
                         .dq = sums + block_floats(pad.d),
                         .dv = sums + (1 + BLOCKS) * block_floats(pad.d)};
    *out = w;
    return LS_OK;
}

static ls_status pack_keys(void *packed, void *worker, const void *k, const void *v)
{
    const struct head_dims pad = ((struct worker *)worker)->pad;
    float *to = packed;

    for (int row = 0; row < LS_LEAF; row += BLOCK) {
        to = pack_panels(to, (const float *)k + row * pad.d, BLOCK, pad.d);
        to = pack_transposed(to, (const float *)k + row * pad.d, BLOCK, pad.d);
        to = pack_transposed(to, (const float *)v + row * pad.d_v, BLOCK, pad.d_v);
    }
    return LS_OK;
}

static ls_status pack_queries(void *packed, void *worker, const void *q, const void *d_o)
{
    const struct head_dims pad = ((struct worker *)worker)->pad;
    float *to = packed;

    for (int row = 0; row < LS_LEAF; row += BLOCK) {
        to = pack_panels(to, (const float *)q + row * pad.d, BLOCK, pad.d);
        to = pack_panels(to, (const float *)d_o + row * pad.d_v, BLOCK, pad.d_v);
    }
    return LS_OK;
}

/* Rows of dq, dk or dv, to which blocks add one after the other. */
struct block_sums {
    float *so_far; /* in panels */
    bool begun;    /* so_far has been written */
    int to_come;   /* blocks that are to add; after the last one the sums take the path */
    const struct sum_path *path;
    int first; /* row of the path */
};

/* A tile on its way, block by block. */
struct run {
    float p[BLOCK * BLOCK], ds[BLOCK * BLOCK]; /* [query][key] of a block */
    struct tile_lanes lanes;
    const struct gradient_tile *tile;
    struct head_dims pad;
    int key, query;                   /* of the block, its first ones */
    enum sight sight[BLOCKS][BLOCKS]; /* of keys by queries */
    struct block_sums dk, dv, dq[BLOCKS];
    struct ahead ahead;
} __attribute__((aligned(64)));

/* out [rows][BLOCK]: rows of a block, from `row` on, against 64 keys. */
INLINE_AVX512 void score_rows(float *out, int rows, const float *left, int row, const float *keys,
                              int d_pad)
{
    __m512 sum[ROWS][WIDE];
    int e = 0;

    clear_sums(sum, rows, WIDE);
    for (; e + PANEL <= d_pad; e += PANEL, left += BLOCK * PANEL, keys += PANEL * BLOCK)
        multiply_panel(sum, rows, WIDE, left + row * PANEL, PANEL, 1, keys, PANEL);
    if (e < d_pad)
        multiply_panel(sum, rows, WIDE, left + row * HALF_PANEL, HALF_PANEL, 1, keys, HALF_PANEL);
    store_sums(out + row * BLOCK, BLOCK, sum, rows, WIDE);
}

/* out [BLOCK][BLOCK] = q k^T or d_o v^T */
TARGET_AVX512 static void score_block(float *out, struct run *run, const float *left,
                                      const float *keys, int d_pad)
{
    int row = 0;

    for (; row + ROWS <= BLOCK; row += ROWS) {
        score_rows(out, ROWS, left, row, keys, d_pad);
        bring_nearer(&run->ahead);
    }
    score_rows(out, BLOCK % ROWS, left, row, keys, d_pad);
    bring_nearer(&run->ahead);
}

/* Scores become p, and dp becomes ds. */
INLINE_AVX512 void take(struct run *run, bool masked, bool dropped)
{
    static const float coefficient[] = EXP2_DEGREE_5;
    const struct tile_lanes *lanes = &run->lanes;
    const __m512 factor = _mm512_set1_ps(lanes->factor), keep = _mm512_set1_ps(lanes->keep);
    const __m512 scale = _mm512_set1_ps(lanes->scale);
    float *p = run->p, *ds = run->ds;

    for (int query = run->query; query < run->query + BLOCK; query++) {
        const __m512 lse = _mm512_set1_ps(lanes->lse[query]);
        const __m512 delta = _mm512_set1_ps(lanes->delta[query]);

#pragma GCC unroll 4
        for (int key = run->key; key < run->key + BLOCK; key += 16, p += 16, ds += 16) {
            const __mmask16 seen =
                masked ? seen_mask(key / 16, &run->tile->visible[query]) : 0xffff;
            const __m512 x = probability_512(_mm512_load_ps(p), factor, lse, seen, coefficient, 5);
            const __mmask16 kept = dropped ? seen_mask(key / 16, &run->tile->kept[query]) : 0xffff;
            const __m512 passed = _mm512_maskz_mov_ps(kept, _mm512_load_ps(ds));
            const __m512 dp = _mm512_fmsub_ps(passed, scale, delta);

            _mm512_store_ps(p, dropped ? _mm512_maskz_mul_ps(kept, x, keep) : x);
            _mm512_store_ps(ds, _mm512_maskz_mul_ps(seen, x, dp)); /* dp may be anything */
        }
    }
}

TARGET_AVX512 static void take_block(struct run *run, bool masked)
{
    if (run->tile->kept)
        take(run, masked, true);
    else
        take(run, masked, false);
}

/* Complete sums take the path as in cpu_sum_path_take, from registers. */
INLINE_AVX512 void take_path(const struct sum_path *path, __m512 sum[ROWS][WIDE], int rows,
                             int wide, int row, int column)
{
    const int there = path->rows - row < rows ? path->rows - row : rows;
    __mmask16 columns[WIDE];

    if (there <= 0) return;
#pragma GCC unroll 4
    for (int j = 0; j < wide; j++) {
        const int left = path->d - column - 16 * j;

        columns[j] = left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
    }
    for (int i = 0; i < path->count; i++) {
        const struct sums *waiting = &path->waiting[i];
        const float *from = waiting->at + row * waiting->stride + column;

#pragma GCC unroll 6
        for (int r = 0; r < rows; r++, from += waiting->stride) {
            if (r >= there) break;
#pragma GCC unroll 4
            for (int j = 0; j < wide; j++)
                sum[r][j] =
                    _mm512_add_ps(_mm512_maskz_loadu_ps(columns[j], from + 16 * j), sum[r][j]);
        }
    }
    float *to = path->total.at + row * path->total.stride + column;
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++, to += path->total.stride) {
        if (r >= there) break;
#pragma GCC unroll 4
        for (int j = 0; j < wide; j++) _mm512_mask_storeu_ps(to + 16 * j, columns[j], sum[r][j]);
    }
}

INLINE_AVX512 void bring_rows(const float *at, int64_t stride, int rows, int wide)
{
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++, at += stride)
#pragma GCC unroll 4
        for (int j = 0; j < wide; j++) _mm_prefetch((const char *)(at + 16 * j), _MM_HINT_T0);
}

/* Asks for what complete sums will be added to, and for the place where they go; not at the end of
 * the path's rows. */
INLINE_AVX512 void bring_path(const struct sum_path *path, int rows, int wide, int row, int column)
{
    const struct sums *total = &path->total;

    if (row + rows > path->rows) return;
    for (int i = 0; i < path->count; i++)
        bring_rows(path->waiting[i].at + row * path->waiting[i].stride + column,
                   path->waiting[i].stride, rows, wide);
    if (path->count == 0 || path->waiting[path->count - 1].at != total->at)
        bring_rows(total->at + row * total->stride + column, total->stride, rows, wide);
}

/* left x right [BLOCK][d_pad], in panels. */
struct factors {
    const float *left;
    int row, step; /* element (r, i) of left is at r row + i step */
    const float *right;
};

/* Rows of a block, from `first` on, and a panel of columns of the product. */
INLINE_AVX512 void add_rows(const struct block_sums *to, bool complete, int rows, int wide,
                            int first, int column, struct factors x)
{
    float *so_far = to->so_far + column * BLOCK + first * 16 * wide;
    __m512 sum[ROWS][WIDE];

    if (complete) bring_path(to->path, rows, wide, to->first + first, column);
    clear_sums(sum, rows, wide);
    multiply_panel(sum, rows, wide, x.left + first * x.row, x.row, x.step, x.right + column * BLOCK,
                   BLOCK);
    if (to->begun) add_to_sums(sum, rows, wide, so_far, 16 * wide);
    if (complete)
        take_path(to->path, sum, rows, wide, to->first + first, column);
    else
        store_sums(so_far, 16 * wide, sum, rows, wide);
}

INLINE_AVX512 void add_panel(const struct block_sums *to, bool complete, int wide, int column,
                             struct factors x)
{
    int first = 0;

    for (; first + ROWS <= BLOCK; first += ROWS)
        add_rows(to, complete, ROWS, wide, first, column, x);
    add_rows(to, complete, BLOCK % ROWS, wide, first, column, x);
}

INLINE_AVX512 void add_product(struct block_sums *to, struct factors x, int d_pad)
{
    const bool complete = --to->to_come == 0;
    int column = 0;

    for (; column + PANEL <= d_pad; column += PANEL) add_panel(to, complete, WIDE, column, x);
    if (column < d_pad) add_panel(to, complete, WIDE / 2, column, x);
    to->begun = true;
}

/* += left right, and left^T right */
TARGET_AVX512 static void add_plain(struct block_sums *to, const float *left, const float *right,
                                    int d_pad)
{
    add_product(to, (struct factors){left, BLOCK, 1, right}, d_pad);
}

TARGET_AVX512 static void add_transposed(struct block_sums *to, const float *left,
                                         const float *right, int d_pad)
{
    add_product(to, (struct factors){left, 1, BLOCK, right}, d_pad);
}

static void compute_block(struct run *run, bool masked)
{
    const struct head_dims pad = run->pad;
    const size_t part = block_floats(pad.d);
    const size_t key = (size_t)(run->key / BLOCK), query = (size_t)(run->query / BLOCK);
    const float *k = (const float *)run->tile->keys + key * keys_floats(pad);
    const float *k_t = k + part, *v_t = k_t + part;
    const float *q = (const float *)run->tile->queries + query * queries_floats(pad);
    const float *d_o = q + part;

    score_block(run->p, run, q, k_t, pad.d);
    score_block(run->ds, run, d_o, v_t, pad.d_v);
    take_block(run, masked);
    add_transposed(&run->dv, run->p, d_o, pad.d_v);
    add_transposed(&run->dk, run->ds, q, pad.d);
    add_plain(&run->dq[query], run->ds, k, pad.d);
}

static struct block_sums sums_of(float *so_far, const struct sum_path *path, int first)
{
    return (struct block_sums){.so_far = so_far, .path = path, .first = first};
}

/* Zeroes take the path if nothing has been added. */
static void complete_empty(const struct block_sums *sums, int d_pad)
{
    if (sums->begun) return;
    memset(sums->so_far, 0, block_floats(d_pad) * sizeof *sums->so_far);
    cpu_sum_path_take(sums->path, sums->first, BLOCK, (struct sums){sums->so_far, d_pad});
}

/* How much a block's queries see of its keys; visible NULL: all. */
static enum sight block_sight(const struct ls_leaf_keys *visible, int key, int query)
{
    uint64_t all = ~UINT64_C(0), some = 0;

    if (!visible) return SEES_ALL;
    for (int r = query; r < query + BLOCK; r++) {
        const uint64_t seen = ls_leaf_keys_bits(&visible[r], key, BLOCK);

        all &= seen;
        some |= seen;
    }
    return all == ~UINT64_C(0) ? SEES_ALL : some ? SEES_SOME : SEES_NOTHING;
}

static void start_run(struct run *run, const struct worker *w, const struct gradient_tile *tile)
{
    run->tile = tile;
    run->pad = w->pad;
    run->ahead = ahead_of_tile(tile, BLOCKS * BLOCKS * PARTS);
    lanes_of_tile(&run->lanes, tile);
    for (int j = 0; j < BLOCKS; j++) {
        run->dq[j] = sums_of(w->dq + (size_t)j * block_floats(w->pad.d), tile->dq, j * BLOCK);
        for (int i = 0; i < BLOCKS; i++) {
            const bool empty = i * BLOCK >= tile->key_count || j * BLOCK >= tile->rows;

            run->sight[i][j] =
                empty ? SEES_NOTHING : block_sight(tile->visible, i * BLOCK, j * BLOCK);
            run->dq[j].to_come += run->sight[i][j] != SEES_NOTHING;
        }
    }
}

static void strip_of_keys(struct run *run, const struct worker *w)
{
    const enum sight *sight = run->sight[run->key / BLOCK];

    run->dk = sums_of(w->dk, run->tile->dk, run->key);
    run->dv = sums_of(w->dv, run->tile->dv, run->key);
    for (int j = 0; j < BLOCKS; j++) run->dk.to_come += sight[j] != SEES_NOTHING;
    run->dv.to_come = run->dk.to_come;
    for (run->query = 0; run->query < run->tile->rows; run->query += BLOCK) {
        const enum sight seen = sight[run->query / BLOCK];

        if (seen == SEES_NOTHING) continue;
        compute_block(run, seen == SEES_SOME);
        progress_tick(run->tile->clock);
    }
    complete_empty(&run->dv, run->pad.d_v);
    complete_empty(&run->dk, run->pad.d);
}

static ls_status compute_tile(void *worker, const struct gradient_tile *tile)
{
    const struct worker *w = worker;
    struct run run;

    start_run(&run, w, tile);
    for (run.key = 0; run.key < tile->key_count; run.key += BLOCK) strip_of_keys(&run, w);
    for (int j = 0; j * BLOCK < tile->rows; j++) complete_empty(&run.dq[j], w->pad.d);
    return LS_OK;
}

static bool fits(ls_isa isa, ls_dtype storage, const struct ls_scores *scores)
{
    (void)storage;
    return isa >= LS_ISA_AVX512 && ls_scores_are_products(scores);
}

const struct gradient_products cpu_gradient_avx512 = {
    .name = "AVX-512 f32 blocks",
    .type = LS_F32,
    .d_multiple = HALF_PANEL,
    .widest_ahead = LS_MAX_HEAD_DIM,
    .fits = fits,
    .keys_bytes = keys_bytes,
    .queries_bytes = queries_bytes,
    .scratch_bytes = scratch_bytes,
    .create = create,
    .destroy = free,
    .pack_keys = pack_keys,
    .pack_queries = pack_queries,
    .tile = compute_tile,
};

#else
const struct gradient_products cpu_gradient_avx512 = {.name = "AVX-512 f32 blocks",
                                                      .fits = cpu_gradient_fits_never};
#endif
