/* Products by oneDNN: f32 anywhere, bf16 where the CPU has it. */
#include <stdlib.h>

#include "base/status.h"
#include "cpu/gemm.h"
#include "cpu/products.h"

#define STRIP 64     /* scores of a strip stay in the second-level cache */
#define LOW_STRIP 16 /* for the few rows of a decoding step */

struct strip_products {
    struct gemm *scores, *output; /* [height, d] x [d, 256] and [height, 256] x [256, d] */
};

struct onednn_worker {
    struct strip_products full, low;
    void *scratch;
};

static size_t scratch_bytes(int d_pad)
{
    (void)d_pad;
    return GEMM_SCRATCH;
}

/* oneDNN pads columns to blocks of at most 64. */
static size_t packed_bytes(int d_pad, ls_dtype type)
{
    return (size_t)LS_LEAF * (size_t)((d_pad + 63) / 64 * 64) * (size_t)ls_dtype_size(type);
}

static size_t packed_bytes_f32(int d_pad)
{
    return packed_bytes(d_pad, LS_F32);
}

static size_t packed_bytes_bf16(int d_pad)
{
    return packed_bytes(d_pad, LS_BF16);
}

static ls_status check_packed(const struct gemm *gemm, ls_dtype type, int d_pad)
{
    const size_t need = gemm_packed_bytes(gemm), have = packed_bytes(d_pad, type);

    if (need > have)
        return ls_fail(LS_EINTERNAL, "oneDNN packs a leaf of head dim %d into %zu bytes, not %zu",
                       d_pad, need, have);
    return LS_OK;
}

static ls_status create_products(struct strip_products *out, ls_dtype type, int d_pad, int height)
{
    LS_TRY(gemm_create(&out->scores, type, height, LS_LEAF, d_pad, true));
    LS_TRY(gemm_create(&out->output, type, height, d_pad, LS_LEAF, false));
    LS_TRY(check_packed(out->scores, type, d_pad));
    return check_packed(out->output, type, d_pad);
}

static void destroy(void *worker)
{
    struct onednn_worker *w = worker;

    gemm_destroy(w->low.output);
    gemm_destroy(w->low.scores);
    gemm_destroy(w->full.output);
    gemm_destroy(w->full.scores);
    free(w);
}

static ls_status create(void **out, ls_isa isa, int d_pad, void *scratch, ls_dtype type)
{
    struct onednn_worker *w = calloc(1, sizeof *w);
    ls_status status;

    if (!w) return ls_fail(LS_ENOMEM, "attention kernel: out of memory");
    w->scratch = scratch;
    gemm_limit_isa(isa);
    LS_TRY_GOTO(status, create_products(&w->full, type, d_pad, STRIP), free_worker);
    LS_TRY_GOTO(status, create_products(&w->low, type, d_pad, LOW_STRIP), free_worker);
    *out = w;
    return LS_OK;
free_worker:
    destroy(w);
    return status;
}

static ls_status create_f32(void **out, ls_isa isa, int d_pad, void *scratch)
{
    return create(out, isa, d_pad, scratch, LS_F32);
}

static ls_status create_bf16(void **out, ls_isa isa, int d_pad, void *scratch)
{
    return create(out, isa, d_pad, scratch, LS_BF16);
}

static ls_status pack_k(void *packed, void *worker, const void *raw)
{
    return gemm_pack(packed, ((struct onednn_worker *)worker)->full.scores, raw);
}

static ls_status pack_v(void *packed, void *worker, const void *raw)
{
    return gemm_pack(packed, ((struct onednn_worker *)worker)->full.output, raw);
}

static const struct strip_products *of_height(const struct onednn_worker *w, int rows)
{
    return rows <= LOW_STRIP ? &w->low : &w->full;
}

static ls_status scores(float *out, void *worker, const void *q, const void *packed_k, int rows,
                        int keys)
{
    struct onednn_worker *w = worker;

    (void)keys; /* the shapes of primitives are fixed */
    return gemm_run(out, of_height(w, rows)->scores, q, packed_k, w->scratch);
}

static ls_status output(float *acc, void *worker, const void *p, const void *packed_v, int rows,
                        int keys)
{
    struct onednn_worker *w = worker;

    (void)keys;
    return gemm_run(acc, of_height(w, rows)->output, p, packed_v, w->scratch);
}

static bool fits_bf16(ls_isa isa, ls_dtype storage)
{
    return storage == LS_BF16 && gemm_has_type(isa, LS_BF16);
}

static bool fits_any(ls_isa isa, ls_dtype storage)
{
    (void)isa;
    (void)storage;
    return true;
}

const struct products products_onednn_bf16 = {
    .name = "oneDNN bf16 products",
    .type = LS_BF16,
    .d_multiple = 16,
    .strip = STRIP,
    .score_stride = LS_LEAF,
    .p_stride = LS_LEAF,
    .fits = fits_bf16,
    .packed_bytes = packed_bytes_bf16,
    .scratch_bytes = scratch_bytes,
    .create = create_bf16,
    .destroy = destroy,
    .pack_k = pack_k,
    .pack_v = pack_v,
    .scores = scores,
    .output = output,
};

const struct products products_onednn_f32 = {
    .name = "oneDNN f32 products",
    .type = LS_F32,
    .d_multiple = 16,
    .strip = STRIP,
    .score_stride = LS_LEAF,
    .p_stride = LS_LEAF,
    .fits = fits_any,
    .packed_bytes = packed_bytes_f32,
    .scratch_bytes = scratch_bytes,
    .create = create_f32,
    .destroy = destroy,
    .pack_k = pack_k,
    .pack_v = pack_v,
    .scores = scores,
    .output = output,
};
