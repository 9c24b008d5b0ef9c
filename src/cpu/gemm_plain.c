/* Products by loops of our own, in f32: where Longspan is built without oneDNN. */
#include "cpu/gemm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

/* Columns of a block, which the compiler keeps in the registers of each instruction set, and rows.
 */
enum { WIDE = 16, ROWS = 4 };
typedef float wide __attribute__((vector_size(WIDE * sizeof(float)), aligned(4), may_alias));

struct gemm {
    struct gemm_shape shape;
};

void cpu_gemm_library(char *out, size_t length)
{
    snprintf(out, length, "own products");
}

/* Which of LS_CLONED runs is the CPU's choice: the arithmetic is the same. */
void cpu_gemm_limit_isa(ls_isa isa)
{
    (void)isa;
}

bool cpu_gemm_has_type(ls_isa isa, ls_dtype type)
{
    (void)isa;
    return type == LS_F32;
}

ls_status cpu_gemm_create(struct gemm **out, ls_dtype type, const struct gemm_shape *shape)
{
    if (type != LS_F32) return ls_fail(LS_ETYPE, "own products are of f32");
    *out = malloc(sizeof **out);
    if (!*out)
        return ls_fail(LS_ENOMEM, "product of %d x %d x %d: out of memory", shape->m, shape->n,
                       shape->k);
    (*out)->shape = *shape;
    return LS_OK;
}

void cpu_gemm_destroy(struct gemm *gemm)
{
    free(gemm);
}

size_t cpu_gemm_packed_bytes(const struct gemm *gemm)
{
    return (size_t)gemm->shape.k * (size_t)gemm->shape.n * sizeof(float);
}

/* packed [k, n] */
ls_status cpu_gemm_pack(void *packed, struct gemm *gemm, const void *b)
{
    const struct gemm_shape *s = &gemm->shape;
    const float *from = b;
    float *to = packed;

    for (int e = 0; e < s->k; e++, to += s->n) {
        if (s->transposed)
            for (int j = 0; j < s->n; j++) to[j] = from[(ptrdiff_t)j * s->b_stride + e];
        else
            memcpy(to, from + (ptrdiff_t)e * s->b_stride, (size_t)s->n * sizeof *to);
    }
    return LS_OK;
}

/* These rows of A against all columns but those beyond the last whole block. */
static inline __attribute__((always_inline)) void
multiply_rows(float *c, const float *a, const float *b, const struct gemm_shape *s, int rows)
{
    for (int j = 0; j + WIDE <= s->n; j += WIDE) {
        wide sum[ROWS] = {0};

        for (int e = 0; e < s->k; e++) {
            const wide column = *(const wide *)(b + (ptrdiff_t)e * s->n + j);

            for (int i = 0; i < rows; i++) sum[i] += a[(ptrdiff_t)i * s->a_stride + e] * column;
        }
        for (int i = 0; i < rows; i++) *(wide *)(c + (ptrdiff_t)i * s->n + j) = sum[i];
    }
}

LS_CLONED static void multiply_plainly(float *c, const float *a, const float *b,
                                       const struct gemm_shape *s)
{
    for (int i = 0; i + ROWS <= s->m; i += ROWS)
        multiply_rows(c + (ptrdiff_t)i * s->n, a + (ptrdiff_t)i * s->a_stride, b, s, ROWS);
    for (int i = s->m - s->m % ROWS; i < s->m; i++)
        multiply_rows(c + (ptrdiff_t)i * s->n, a + (ptrdiff_t)i * s->a_stride, b, s, 1);
    for (int i = 0; i < s->m; i++) {
        for (int j = s->n - s->n % WIDE; j < s->n; j++) {
            float sum = 0;

            for (int e = 0; e < s->k; e++)
                sum += a[(ptrdiff_t)i * s->a_stride + e] * b[(ptrdiff_t)e * s->n + j];
            c[(ptrdiff_t)i * s->n + j] = sum;
        }
    }
}

ls_status cpu_gemm_run(float *c, struct gemm *gemm, const void *a, const void *packed,
                       void *scratch)
{
    (void)scratch;
    multiply_plainly(c, a, packed, &gemm->shape);
    return LS_OK;
}
