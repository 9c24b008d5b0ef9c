/* C = A B in f32, one fixed shape, B packed beforehand: by oneDNN (gemm_onednn.c), or by loops of
 * our own where Longspan is built without it (gemm_plain.c). */
#ifndef LS_CPU_GEMM_H
#define LS_CPU_GEMM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cpu.h"
#include "longspan/tensor.h"

#ifdef HAVE_DNNL
#define GEMM_NAME "oneDNN"
#else
#define GEMM_NAME "own"
#endif

/* "oneDNN 2.6.3", "own products" */
void cpu_gemm_library(char *out, size_t length);

/* Tells the library to go no further than isa. Only the first call, before any product, counts. */
void cpu_gemm_limit_isa(ls_isa isa);

/* True if the library multiplies this type natively (bf16 needs AVX512_BF16, f16 has none). */
bool cpu_gemm_has_type(ls_isa isa, ls_dtype type);

/* One thread's product of A [m, k] and B [k, n] into a contiguous C. Not to be shared by threads.
 */
struct gemm;

struct gemm_shape {
    int m, n, k;
    int a_stride;    /* elements between rows of A */
    int b_stride;    /* and of B as it is handed to cpu_gemm_pack */
    bool transposed; /* which is then [n, k] */
};

/* To be called where OpenMP gives one thread. Errors: LS_ENOMEM, LS_EINTERNAL with the library's
 * status. The caller destroys it. */
ls_status cpu_gemm_create(struct gemm **out, ls_dtype type, const struct gemm_shape *shape);
void cpu_gemm_destroy(struct gemm *gemm);

/* Bytes of a packed B; the same for every m. */
size_t cpu_gemm_packed_bytes(const struct gemm *gemm);

/* Errors: LS_EINTERNAL. scratch: at least GEMM_SCRATCH bytes of this thread's. */
#define GEMM_SCRATCH ((size_t)64 << 10)
ls_status cpu_gemm_pack(void *packed, struct gemm *gemm, const void *b);
ls_status cpu_gemm_run(float *c, struct gemm *gemm, const void *a, const void *packed,
                       void *scratch);

#endif
