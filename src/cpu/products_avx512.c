/* Products in f32 by AVX-512. Against oneDNN: no set-up per call, keys that nobody sees are left
 * out, and blocks of 13 rows by 32 columns keep both multipliers busy. */
#include "cpu/products.h"

#if defined(__x86_64__)

#include <stdlib.h>

#include "cpu/pack_f32.h"

#define STRIP 64 /* four blocks of 13 rows and one of 12 */
#define BLOCK_ROWS 13
#define LAST_BLOCK 12
#define SCORE_PART 64
#define SCORE_STRIDE (LS_LEAF + 16) /* off the power of two, whose rows share cache sets */

static size_t packed_bytes(int d_pad)
{
    return (size_t)LS_LEAF * (size_t)d_pad * sizeof(float);
}

static ls_status pack_k(void *packed, void *worker, const void *raw)
{
    pack_transposed(packed, raw, LS_LEAF, ((struct plain_worker *)worker)->d_pad);
    return LS_OK;
}

static ls_status pack_v(void *packed, void *worker, const void *raw)
{
    pack_panels(packed, raw, LS_LEAF, ((struct plain_worker *)worker)->d_pad);
    return LS_OK;
}

/* out [rows][32] = left [rows][depth] x panel [depth][32], or added to it; `rows` is a constant
 * where this is inlined, so that the sums stay in registers. */
TARGET_AVX512 static inline __attribute__((always_inline)) void
multiply_block(float *out, int out_stride, const float *left, int left_stride, const float *panel,
               int depth, bool add, int rows)
{
    __m512 sum[BLOCK_ROWS][2];

#pragma GCC unroll 13
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
#pragma GCC unroll 2
    for (int i = 0; i < depth; i++, panel += PANEL) {
        const __m512 b0 = _mm512_loadu_ps(panel), b1 = _mm512_loadu_ps(panel + 16);

#pragma GCC unroll 13
        for (int r = 0; r < rows; r++) {
            const __m512 a = _mm512_set1_ps(left[r * left_stride + i]);
            sum[r][0] = _mm512_fmadd_ps(a, b0, sum[r][0]);
            sum[r][1] = _mm512_fmadd_ps(a, b1, sum[r][1]);
        }
    }
#pragma GCC unroll 13
    for (int r = 0; r < rows; r++) {
        float *to = out + r * out_stride;

        if (add) {
            sum[r][0] = _mm512_add_ps(_mm512_loadu_ps(to), sum[r][0]);
            sum[r][1] = _mm512_add_ps(_mm512_loadu_ps(to + 16), sum[r][1]);
        }
        _mm512_storeu_ps(to, sum[r][0]);
        _mm512_storeu_ps(to + 16, sum[r][1]);
    }
}

/* A strip's share of a leaf, spread evenly over the blocks that multiply its own leaf. */
static inline void bring_nearer(const char **ahead, int depth)
{
    if (!*ahead) return;
    for (int i = 0; i < depth; i += BLOCK_ROWS, *ahead += 64) _mm_prefetch(*ahead, _MM_HINT_T1);
}

/* The same for any number of rows; a row's sum does not depend on the others. */
TARGET_AVX512 static void multiply_panel(float *out, int out_stride, const float *left,
                                         int left_stride, const float *panel, const char **ahead,
                                         int depth, bool add, int rows)
{
    int r = 0;

    for (; r + BLOCK_ROWS <= rows; r += BLOCK_ROWS) {
        bring_nearer(ahead, depth);
        multiply_block(out + r * out_stride, out_stride, left + r * left_stride, left_stride, panel,
                       depth, add, BLOCK_ROWS);
    }
    for (; r + LAST_BLOCK <= rows; r += LAST_BLOCK)
        multiply_block(out + r * out_stride, out_stride, left + r * left_stride, left_stride, panel,
                       depth, add, LAST_BLOCK);
    for (; r + 4 <= rows; r += 4)
        multiply_block(out + r * out_stride, out_stride, left + r * left_stride, left_stride, panel,
                       depth, add, 4);
    for (; r < rows; r++)
        multiply_block(out + r * out_stride, out_stride, left + r * left_stride, left_stride, panel,
                       depth, add, 1);
}

/* A score is a sum of up to 256 products: taken in parts of 64, it stays within the contract also
 * where it is the whole of lse (one key). */
static ls_status scores(float *out, void *worker, const void *q, struct operand k, int rows,
                        struct key_span keys)
{
    const int d_pad = ((struct plain_worker *)worker)->d_pad;
    const int first = keys.first / PANEL * PANEL;
    const float *panel = (const float *)k.packed + first * d_pad;

    for (int key = first; key < keys.end; key += PANEL, panel += d_pad * PANEL) {
        for (int part = 0; part < d_pad; part += SCORE_PART) {
            const int depth = d_pad - part < SCORE_PART ? d_pad - part : SCORE_PART;

            multiply_panel(out + key, SCORE_STRIDE, (const float *)q + part, d_pad,
                           panel + part * PANEL, &k.ahead, depth, part > 0, rows);
        }
    }
    return LS_OK;
}

static ls_status output(float *acc, void *worker, const void *p, struct operand v, int rows,
                        struct key_span keys)
{
    const int d_pad = ((struct plain_worker *)worker)->d_pad;
    const float *panel = (const float *)v.packed + keys.first * PANEL;

    for (int column = 0; column < d_pad; column += PANEL, panel += LS_LEAF * PANEL)
        multiply_panel(acc + column, d_pad, (const float *)p + keys.first, SCORE_STRIDE, panel,
                       &v.ahead, keys.end - keys.first, false, rows);
    return LS_OK;
}

static bool fits(ls_isa isa, ls_dtype storage)
{
    (void)storage;
    return isa >= LS_ISA_AVX512;
}

const struct products products_avx512 = {
    .name = "AVX-512 f32 blocks",
    .type = LS_F32,
    .d_multiple = PANEL,
    .strip = STRIP,
    .score_stride = SCORE_STRIDE,
    .p_stride = SCORE_STRIDE,
    .fits = fits,
    .packed_bytes = packed_bytes,
    .scratch_bytes = no_scratch,
    .create = plain_worker_create,
    .destroy = free,
    .pack_k = pack_k,
    .pack_v = pack_v,
    .scores = scores,
    .output = output,
};

#else
const struct products products_avx512 = {.name = "AVX-512 f32 blocks", .fits = fits_never};
#endif
