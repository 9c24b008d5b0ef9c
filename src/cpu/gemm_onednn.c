/* Products by oneDNN: the only file that knows it. */
#include "cpu/gemm.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/status.h"

#define TRY_DNNL(call)                                                                             \
    do {                                                                                           \
        const dnnl_status_t status_ = (call);                                                      \
        if (status_ != dnnl_success)                                                               \
            return ls_fail(LS_EINTERNAL, "oneDNN: %s gave status %d", #call, (int)status_);        \
    } while (0)

struct gemm {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t product, reorder;
    dnnl_memory_t a, b, c, scratch; /* of the product */
    dnnl_memory_t plain;            /* B as the caller has it */
    size_t packed_bytes;
};

/* oneDNN 2 passes memory descriptors by value, oneDNN 3 as handles: everything that differs. */
#if DNNL_VERSION_MAJOR < 3
typedef dnnl_memory_desc_t md_t;
typedef const dnnl_memory_desc_t *md_ref;
#define REF(md) (&(md))
static dnnl_status_t md_strides(md_t *out, const dnnl_dims_t dims, dnnl_data_type_t type,
                                const dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(out, 2, dims, type, strides);
}
static dnnl_status_t md_any(md_t *out, const dnnl_dims_t dims, dnnl_data_type_t type)
{
    return dnnl_memory_desc_init_by_tag(out, 2, dims, type, dnnl_format_tag_any);
}
static void md_free(md_t *md)
{
    (void)md;
}
static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const md_t *a,
                                 const md_t *b, const md_t *c, dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t desc;
    const dnnl_status_t status = dnnl_matmul_desc_init(&desc, a, b, NULL, c);

    if (status != dnnl_success) return status;
    return dnnl_primitive_desc_create(out, &desc, attr, engine, NULL);
}
#else
typedef dnnl_memory_desc_t md_t;
typedef const_dnnl_memory_desc_t md_ref;
#define REF(md) (md)
static dnnl_status_t md_strides(md_t *out, const dnnl_dims_t dims, dnnl_data_type_t type,
                                const dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(out, 2, dims, type, strides);
}
static dnnl_status_t md_any(md_t *out, const dnnl_dims_t dims, dnnl_data_type_t type)
{
    return dnnl_memory_desc_create_with_tag(out, 2, dims, type, dnnl_format_tag_any);
}
static void md_free(md_t *md)
{
    dnnl_memory_desc_destroy(*md);
}
static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const md_t *a,
                                 const md_t *b, const md_t *c, dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(out, engine, *a, *b, NULL, *c, attr);
}
#endif

void cpu_gemm_library(char *out, size_t length)
{
    const dnnl_version_t *version = dnnl_version();

    snprintf(out, length, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
}

void cpu_gemm_limit_isa(ls_isa isa)
{
    static const dnnl_cpu_isa_t limits[] = {
        [LS_ISA_GENERIC] = dnnl_cpu_isa_sse41,
        [LS_ISA_AVX2] = dnnl_cpu_isa_avx2,
        [LS_ISA_AVX512] = dnnl_cpu_isa_avx512_core,
        [LS_ISA_AVX512BF16] = dnnl_cpu_isa_avx512_core_bf16,
    };

    if (isa < LS_ISA_AMX) dnnl_set_max_cpu_isa(limits[isa]); /* a later call changes nothing */
}

bool cpu_gemm_has_type(ls_isa isa, ls_dtype type)
{
    return type == LS_F32 || (type == LS_BF16 && isa >= LS_ISA_AVX512BF16);
}

static ls_status make_memory(dnnl_memory_t *out, dnnl_engine_t engine, md_ref md)
{
    TRY_DNNL(dnnl_memory_create(out, md, engine, DNNL_MEMORY_NONE));
    return LS_OK;
}

static ls_status make_product(struct gemm *g, const md_t *a, const md_t *b, const md_t *c,
                              const md_t *plain)
{
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t pd, reorder_pd;

    TRY_DNNL(dnnl_primitive_attr_create(&attr));
    TRY_DNNL(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    TRY_DNNL(matmul_desc(&pd, g->engine, a, b, c, attr));
    TRY_DNNL(dnnl_primitive_create(&g->product, pd));

    const md_ref packed = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    const md_ref scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    const size_t scratch_bytes = dnnl_memory_desc_get_size(scratch);
    if (scratch_bytes > GEMM_SCRATCH)
        return ls_fail(LS_EINTERNAL, "oneDNN: a product wants %zu bytes of scratch, there are %zu",
                       scratch_bytes, GEMM_SCRATCH);
    g->packed_bytes = dnnl_memory_desc_get_size(packed);

    TRY_DNNL(dnnl_reorder_primitive_desc_create(&reorder_pd, REF(*plain), g->engine, packed,
                                                g->engine, attr));
    TRY_DNNL(dnnl_primitive_create(&g->reorder, reorder_pd));
    LS_TRY(make_memory(&g->a, g->engine, REF(*a)));
    LS_TRY(make_memory(&g->b, g->engine, packed));
    LS_TRY(make_memory(&g->c, g->engine, REF(*c)));
    LS_TRY(make_memory(&g->plain, g->engine, REF(*plain)));
    LS_TRY(make_memory(&g->scratch, g->engine, scratch));
    dnnl_primitive_desc_destroy(reorder_pd);
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(attr);
    return LS_OK;
}

static ls_status make_gemm(struct gemm *g, ls_dtype type, const struct gemm_shape *shape)
{
    const int m = shape->m, n = shape->n, k = shape->k;
    const dnnl_data_type_t in = type == LS_BF16 ? dnnl_bf16 : dnnl_f32;
    const dnnl_dims_t a_dims = {m, k}, b_dims = {k, n}, c_dims = {m, n};
    const dnnl_dims_t a_strides = {shape->a_stride, 1}, c_strides = {n, 1};
    const dnnl_dims_t b_strides = {shape->transposed ? 1 : shape->b_stride,
                                   shape->transposed ? shape->b_stride : 1};
    md_t a, b, c, plain;

    TRY_DNNL(dnnl_engine_create(&g->engine, dnnl_cpu, 0));
    TRY_DNNL(dnnl_stream_create(&g->stream, g->engine, dnnl_stream_default_flags));
    TRY_DNNL(md_strides(&a, a_dims, in, a_strides));
    TRY_DNNL(md_any(&b, b_dims, in));
    TRY_DNNL(md_strides(&c, c_dims, dnnl_f32, c_strides));
    TRY_DNNL(md_strides(&plain, b_dims, in, b_strides));
    const ls_status status = make_product(g, &a, &b, &c, &plain);
    md_free(&plain);
    md_free(&c);
    md_free(&b);
    md_free(&a);
    return status;
}

ls_status cpu_gemm_create(struct gemm **out, ls_dtype type, const struct gemm_shape *shape)
{
    struct gemm *g = calloc(1, sizeof *g);

    if (!g)
        return ls_fail(LS_ENOMEM, "product of %d x %d x %d: out of memory", shape->m, shape->n,
                       shape->k);
    const ls_status status = make_gemm(g, type, shape);
    if (status != LS_OK) {
        cpu_gemm_destroy(g);
        return status;
    }
    *out = g;
    return LS_OK;
}

void cpu_gemm_destroy(struct gemm *g)
{
    if (!g) return;
    dnnl_memory_t memories[] = {g->a, g->b, g->c, g->scratch, g->plain};
    for (int i = 0; i < 5; i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
    if (g->reorder) dnnl_primitive_destroy(g->reorder);
    if (g->product) dnnl_primitive_destroy(g->product);
    if (g->stream) dnnl_stream_destroy(g->stream);
    if (g->engine) dnnl_engine_destroy(g->engine);
    free(g);
}

size_t cpu_gemm_packed_bytes(const struct gemm *g)
{
    return g->packed_bytes;
}

ls_status cpu_gemm_pack(void *packed, struct gemm *g, const void *b)
{
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, g->plain}, {DNNL_ARG_TO, g->b}};

    TRY_DNNL(dnnl_memory_set_data_handle(g->plain, (void *)(uintptr_t)b));
    TRY_DNNL(dnnl_memory_set_data_handle(g->b, packed));
    TRY_DNNL(dnnl_primitive_execute(g->reorder, g->stream, 2, args));
    return LS_OK;
}

ls_status cpu_gemm_run(float *c, struct gemm *g, const void *a, const void *packed, void *scratch)
{
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, g->a},
                                    {DNNL_ARG_WEIGHTS, g->b},
                                    {DNNL_ARG_DST, g->c},
                                    {DNNL_ARG_SCRATCHPAD, g->scratch}};

    TRY_DNNL(dnnl_memory_set_data_handle(g->a, (void *)(uintptr_t)a));
    TRY_DNNL(dnnl_memory_set_data_handle(g->b, (void *)(uintptr_t)packed));
    TRY_DNNL(dnnl_memory_set_data_handle(g->c, c));
    TRY_DNNL(dnnl_memory_set_data_handle(g->scratch, scratch));
    TRY_DNNL(dnnl_primitive_execute(g->product, g->stream, 4, args));
    return LS_OK;
}
