/* Products in f32 by AVX-512. Against oneDNN: no set-up per call, and keys that nobody sees are
 * left out. */
#include "cpu/attention/products.h"

#if defined(__x86_64__)

#include <stdlib.h>

#include "cpu/attention/panels_f32.h"

#define STRIP 64
#define SCORE_PART 64
#define SCORE_STRIDE (LS_LEAF + 16) /* off the power of two, whose rows share cache sets */

static size_t packed_bytes(int d_pad)
{
    return (size_t)LS_LEAF * (size_t)d_pad * sizeof(float);
}

static ls_status pack_k(void *packed, void *worker, const void *raw)
{
    pack_transposed(packed, raw, LS_LEAF, ((struct plain_worker *)worker)->pad.d);
    return LS_OK;
}

static ls_status pack_v(void *packed, void *worker, const void *raw)
{
    pack_panels(packed, raw, LS_LEAF, ((struct plain_worker *)worker)->pad.d_v);
    return LS_OK;
}

/* A strip's share of a leaf, spread evenly over the blocks that multiply its own leaf: a line for
 * six rows by four vectors, eleven deep. */
static inline void bring_nearer(const char **ahead, int depth, int wide)
{
    if (!*ahead) return;
    for (int i = 0; i < depth; i += 11 * WIDE / wide, *ahead += 64)
        _mm_prefetch(*ahead, _MM_HINT_T1);
}

/* What a strip's rows are multiplied by, a panel at a time. */
struct product {
    float *out; /* [rows][16 wide], rows out_stride apart */
    int out_stride;
    const float *left; /* [rows][depth] */
    int left_stride;
    const float *panel; /* [depth][16 wide] */
    int depth;
    bool add; /* to what is in out */
};

INLINE_AVX512 void multiply_rows(const struct product *x, int first, int rows, int wide)
{
    float *out = x->out + first * x->out_stride;
    __m512 sum[ROWS][WIDE];

    clear_sums(sum, rows, wide);
    multiply_panel(sum, rows, wide, x->left + first * x->left_stride, x->left_stride, 1, x->panel,
                   x->depth);
    if (x->add) add_to_sums(sum, rows, wide, out, x->out_stride);
    store_sums(out, x->out_stride, sum, rows, wide);
}

/* Any number of rows; a row's sum does not depend on the others. */
INLINE_AVX512 void multiply(const struct product *x, int rows, int wide, const char **ahead)
{
    int r = 0;

    for (; r + ROWS <= rows; r += ROWS) {
        bring_nearer(ahead, x->depth, wide);
        multiply_rows(x, r, ROWS, wide);
    }
    for (; r + 4 <= rows; r += 4) multiply_rows(x, r, 4, wide);
    for (; r < rows; r++) multiply_rows(x, r, 1, wide);
}

TARGET_AVX512 static void multiply_wide(const struct product *x, int rows, const char **ahead)
{
    multiply(x, rows, WIDE, ahead);
}

TARGET_AVX512 static void multiply_half(const struct product *x, int rows, const char **ahead)
{
    multiply(x, rows, WIDE / 2, ahead);
}

/* A score is a sum of up to 576 products: taken in parts of 64, it stays within the contract also
 * where it is the whole of lse (one key). */
static ls_status scores(float *out, void *worker, const void *q, struct operand k, int rows,
                        struct key_span keys)
{
    const int d_pad = ((struct plain_worker *)worker)->pad.d;
    const int first = keys.first / PANEL * PANEL;
    const float *panel = (const float *)k.packed + first * d_pad;

    for (int key = first; key < keys.end; key += PANEL, panel += d_pad * PANEL) {
        for (int part = 0; part < d_pad; part += SCORE_PART) {
            const struct product x = {
                .out = out + key,
                .out_stride = SCORE_STRIDE,
                .left = (const float *)q + part,
                .left_stride = d_pad,
                .panel = panel + part * PANEL,
                .depth = d_pad - part < SCORE_PART ? d_pad - part : SCORE_PART,
                .add = part > 0,
            };

            multiply_wide(&x, rows, &k.ahead);
        }
    }
    return LS_OK;
}

static ls_status output(float *acc, void *worker, const void *p, struct operand v, int rows,
                        struct key_span keys)
{
    const int d_pad = ((struct plain_worker *)worker)->pad.d_v;
    struct product x = {
        .out = acc,
        .out_stride = d_pad,
        .left = (const float *)p + keys.first,
        .left_stride = SCORE_STRIDE,
        .panel = (const float *)v.packed + keys.first * PANEL,
        .depth = keys.end - keys.first,
    };
    int column = 0;

    for (; column + PANEL <= d_pad; column += PANEL, x.out += PANEL, x.panel += LS_LEAF * PANEL)
        multiply_wide(&x, rows, &v.ahead);
    if (column == d_pad) return LS_OK;
    x.panel = (const float *)v.packed + column * LS_LEAF + keys.first * HALF_PANEL;
    multiply_half(&x, rows, &v.ahead);
    return LS_OK;
}

static bool fits(ls_isa isa, ls_dtype storage)
{
    (void)storage;
    return isa >= LS_ISA_AVX512;
}

const struct products cpu_products_avx512 = {
    .name = "AVX-512 f32 blocks",
    .type = LS_F32,
    .d_multiple = HALF_PANEL,
    .strip = STRIP,
    .score_stride = SCORE_STRIDE,
    .p_stride = SCORE_STRIDE,
    .fits = fits,
    .packed_bytes = packed_bytes,
    .scratch_bytes = cpu_no_scratch,
    .create = cpu_plain_worker_create,
    .destroy = free,
    .pack_k = pack_k,
    .pack_v = pack_v,
    .scores = scores,
    .output = output,
};

#else
const struct products cpu_products_avx512 = {.name = "AVX-512 f32 blocks", .fits = cpu_fits_never};
#endif
