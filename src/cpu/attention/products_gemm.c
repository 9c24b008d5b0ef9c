/* Products by gemm.h: f32 anywhere, bf16 where it can and that pays. */
#include <stdlib.h>

#include "base/status.h"
#include "cpu/attention/products.h"
#include "cpu/gemm.h"
#include "longspan/attention.h"

#define STRIP 64     /* scores of a strip stay in the second-level cache */
#define LOW_STRIP 16 /* for the few rows of a decoding step */

/* A score is a sum of up to 576 products: taken in parts of 64, f32 stays within the contract also
 * where it is the whole of lse (one key). bf16, whose contract is wider, takes it as one. */
#define SCORE_PART 64
#define MOST_PARTS (LS_MAX_HEAD_DIM / SCORE_PART)

struct strip_products {
    struct gemm *scores[MOST_PARTS]; /* [height, part of d] x [part of d, 256] */
    struct gemm *output;             /* [height, 256] x [256, d_v] */
};

struct gemm_worker {
    ls_dtype type;
    struct head_dims pad;
    int part; /* of pad.d */
    struct strip_products full, low;
    void *scratch;
    float *part_scores; /* [STRIP][LS_LEAF] */
};

static size_t scratch_bytes(void)
{
    return GEMM_SCRATCH + (size_t)STRIP * LS_LEAF * sizeof(float);
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
    const size_t need = cpu_gemm_packed_bytes(gemm), have = packed_bytes(d_pad, type);

    if (need > have)
        return ls_fail(LS_EINTERNAL,
                       GEMM_NAME " packs a leaf of head dim %d into %zu bytes, not %zu", d_pad,
                       need, have);
    return LS_OK;
}

static ls_status create_products(struct strip_products *out, const struct gemm_worker *w,
                                 int height)
{
    for (int first = 0; first < w->pad.d; first += w->part) {
        const int left = w->pad.d - first, depth = left < w->part ? left : w->part;
        struct gemm **scores = &out->scores[first / w->part];

        LS_TRY(cpu_gemm_create(scores, w->type,
                               &(struct gemm_shape){.m = height,
                                                    .n = LS_LEAF,
                                                    .k = depth,
                                                    .a_stride = w->pad.d,
                                                    .b_stride = w->pad.d,
                                                    .transposed = true}));
        LS_TRY(check_packed(*scores, w->type, depth));
    }
    LS_TRY(cpu_gemm_create(&out->output, w->type,
                           &(struct gemm_shape){.m = height,
                                                .n = w->pad.d_v,
                                                .k = LS_LEAF,
                                                .a_stride = LS_LEAF,
                                                .b_stride = w->pad.d_v}));
    return check_packed(out->output, w->type, w->pad.d_v);
}

static void destroy_products(struct strip_products *products)
{
    cpu_gemm_destroy(products->output);
    for (int i = 0; i < MOST_PARTS; i++) cpu_gemm_destroy(products->scores[i]);
}

static void destroy(void *worker)
{
    struct gemm_worker *w = worker;

    destroy_products(&w->low);
    destroy_products(&w->full);
    free(w);
}

static ls_status create(void **out, ls_isa isa, struct head_dims pad, char *scratch, ls_dtype type)
{
    struct gemm_worker *w = calloc(1, sizeof *w);
    ls_status status;

    if (!w) return ls_fail(LS_ENOMEM, "attention kernel: out of memory");
    w->type = type;
    w->pad = pad;
    w->part = type == LS_F32 ? SCORE_PART : pad.d;
    w->scratch = scratch;
    w->part_scores = (float *)(void *)(scratch + GEMM_SCRATCH);
    cpu_gemm_limit_isa(isa);
    LS_TRY_GOTO(status, create_products(&w->full, w, STRIP), free_worker);
    LS_TRY_GOTO(status, create_products(&w->low, w, LOW_STRIP), free_worker);
    *out = w;
    return LS_OK;
free_worker:
    destroy(w);
    return status;
}

static ls_status create_f32(void **out, ls_isa isa, struct head_dims pad, void *scratch)
{
    return create(out, isa, pad, scratch, LS_F32);
}

static ls_status create_bf16(void **out, ls_isa isa, struct head_dims pad, void *scratch)
{
    return create(out, isa, pad, scratch, LS_BF16);
}

/* Where a part begins, in rows of operands and in packed keys. */
static size_t part_offset(const struct gemm_worker *w, int first)
{
    return (size_t)first * (size_t)ls_dtype_size(w->type);
}

static size_t packed_offset(const struct gemm_worker *w, int first)
{
    return (size_t)first / (size_t)w->part * packed_bytes(w->part, w->type);
}

static ls_status pack_k(void *packed, void *worker, const void *raw)
{
    const struct gemm_worker *w = worker;

    for (int first = 0; first < w->pad.d; first += w->part)
        LS_TRY(cpu_gemm_pack((char *)packed + packed_offset(w, first),
                             w->full.scores[first / w->part],
                             (const char *)raw + part_offset(w, first)));
    return LS_OK;
}

static ls_status pack_v(void *packed, void *worker, const void *raw)
{
    return cpu_gemm_pack(packed, ((struct gemm_worker *)worker)->full.output, raw);
}

static const struct strip_products *of_height(const struct gemm_worker *w, int rows)
{
    return rows <= LOW_STRIP ? &w->low : &w->full;
}

static ls_status scores(float *out, void *worker, const void *q, struct operand k, int rows,
                        struct key_span keys)
{
    const struct gemm_worker *w = worker;
    struct gemm *const *products = of_height(w, rows)->scores;

    (void)keys; /* the shapes of primitives are fixed */
    LS_TRY(cpu_gemm_run(out, products[0], q, k.packed, w->scratch));
    for (int first = w->part; first < w->pad.d; first += w->part) {
        LS_TRY(cpu_gemm_run(w->part_scores, products[first / w->part],
                            (const char *)q + part_offset(w, first),
                            (const char *)k.packed + packed_offset(w, first), w->scratch));
        for (int i = 0; i < rows * LS_LEAF; i++) out[i] += w->part_scores[i];
    }
    return LS_OK;
}

static ls_status output(float *acc, void *worker, const void *p, struct operand v, int rows,
                        struct key_span keys)
{
    struct gemm_worker *w = worker;

    (void)keys;
    return cpu_gemm_run(acc, of_height(w, rows)->output, p, v.packed, w->scratch);
}

static bool fits_bf16(ls_isa isa, ls_dtype storage)
{
    return storage == LS_BF16 && cpu_gemm_has_type(isa, LS_BF16) && ls_cpu_bf16_pays(isa);
}

static bool fits_any(ls_isa isa, ls_dtype storage)
{
    (void)isa;
    (void)storage;
    return true;
}

const struct products cpu_products_gemm_bf16 = {
    .name = GEMM_NAME " bf16 products",
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

const struct products cpu_products_gemm_f32 = {
    .name = GEMM_NAME " f32 products",
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
