/* The two products of attention, a strip of query rows against one leaf of keys: scores and
 * output. Each way of computing them is a row of the table in products.c. */
#ifndef LS_CPU_ATTENTION_PRODUCTS_H
#define LS_CPU_ATTENTION_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cpu.h"
#include "cpu/head_dims.h"
#include "cpu/simd.h"
#include "longspan/layout.h"
#include "longspan/tensor.h"

/* A packed leaf of K or V. */
struct operand {
    const void *packed;
    /* this strip's share, strip/256, of a leaf that comes later, to be brought nearer meanwhile;
     * NULL: none */
    const char *ahead;
};

/* A leaf's rows of K or V where the caller has them. */
struct key_rows {
    const char *first;
    ptrdiff_t stride; /* bytes */
    ls_dtype type;    /* bf16, f16, f32, i8 or e4m3 */
    int d;
};

/* Keys [first, end) of a leaf. */
struct key_span {
    int first, end;
};

/* Operand rows are pad.d or pad.d_v elements of `type`, zero beyond d or d_v. */
struct products {
    const char *name;
    ls_dtype type;
    int d_multiple;   /* d and d_v are padded to multiples of it */
    int strip;        /* most rows of a call; a divisor of 256 */
    int score_stride; /* floats between rows of scores */
    int p_offset;     /* floats from scores to probabilities; 0: these take the scores' place */
    int p_stride;     /* elements between rows of probabilities */
    bool (*fits)(ls_isa isa, ls_dtype storage);
    size_t (*packed_bytes)(int d_pad); /* of K or V of one leaf, by its rows */
    size_t (*scratch_bytes)(void);     /* of one thread */

    /* One a thread, created where OpenMP gives one thread. scratch is borrowed.
     * Errors: LS_ENOMEM, LS_EINTERNAL. */
    ls_status (*create)(void **out, ls_isa isa, struct head_dims pad, void *scratch);
    void (*destroy)(void *worker);

    /* raw: the rows of a leaf, [LS_LEAF][pad.d or pad.d_v], zero where there is no key. */
    ls_status (*pack_k)(void *packed, void *worker, const void *raw);
    ls_status (*pack_v)(void *packed, void *worker, const void *raw);

    /* Around any number of the following, on one thread; NULL: nothing to do. */
    void (*begin)(void);
    void (*end)(void);

    /* scores [rows][score_stride] = q k^T and acc [rows][pad.d_v] = p v. Only `keys` matter: other
     * scores may stay as they are, and p is zero there. Both may write rows up to `strip`, from q
     * and p rows that hold anything. */
    ls_status (*scores)(float *out, void *worker, const void *q, struct operand k, int rows,
                        struct key_span keys);
    ls_status (*output)(float *acc, void *worker, const void *p, struct operand v, int rows,
                        struct key_span keys);

    /* Scores and softmax as one, where that is faster, else NULL: p, m and l of softmax->rows; p of
     * `keys` alone, which are all that a row sees. softmax->s is room for scores. m need not be the
     * maximum, but p stays below P_LIMIT and l above 1/2, or 0 where a row sees nothing. */
    ls_status (*probabilities)(const struct softmax_rows *softmax, void *worker, const void *q,
                               struct operand k, struct key_span keys);

    /* decode_products.h: nothing is packed, and these are the products. NULL: the ones above are.
     */
    const struct decode_products *decode;
};

/* Probabilities whose sum is below P_LIMIT and values below V_LIMIT cannot overflow in the sums of
 * 2^31 leaves. */
#define P_LIMIT 0x1p60f
#define V_LIMIT 0x1p36f

/* For rows whose workers know the dimensions and nothing else, and need no scratch. */
struct plain_worker {
    struct head_dims pad;
};
ls_status cpu_plain_worker_create(void **out, ls_isa isa, struct head_dims pad, void *scratch);
size_t cpu_no_scratch(void);

/* For rows that this machine's architecture cannot have. */
bool cpu_fits_never(ls_isa isa, ls_dtype storage);

extern const struct products cpu_products_amx, cpu_products_avx512, cpu_products_gemm_bf16,
    cpu_products_gemm_f32;

/* The first row of the table that fits. */
const struct products *cpu_products_find(ls_isa isa, ls_dtype storage);

#endif
