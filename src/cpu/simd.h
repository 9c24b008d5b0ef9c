/* The vector arithmetic around the products, one table an instruction set. Lane = key index inside
 * the leaf. */
#ifndef LS_CPU_SIMD_H
#define LS_CPU_SIMD_H

#include <stdint.h>

#include "base/cpu.h"
#include "device/attention.h"

/* The softmax of one leaf, from nothing: for each row
 *   m = scale x max s over its visible keys, p = exp2(scale s - m), l = sum of p,
 * m in log2 units, l summed before p is rounded. Keys that a row does not see give p = +0; a row
 * that sees none: m = -inf, l = 0. */
struct softmax_rows {
    void *p;      /* may be s: a row's p takes the place of its s or of rows before it */
    int p_stride; /* elements */
    float *m, *l; /* [rows] */
    const float *s;
    int s_stride;                       /* floats */
    const struct ls_leaf_keys *visible; /* [rows] keys that a row sees; NULL: all */
    int rows;
    float scale; /* >= 0, log2(e) folded in */
    /* [LS_LEAF], each alone or both, of 8-bit keys and values that are without scales, else NULL:
     * what p of a key is multiplied by once l has it; and what its s is, which
     * products->probabilities does, other products' scores have it */
    const float *p_factor, *s_factor;
};

/* Keys of the leaf that row r sees. */
static inline const struct ls_leaf_keys *keys_of_row(const struct softmax_rows *a, int r)
{
    return a->visible ? &a->visible[r] : &ls_leaf_keys_first[LS_LEAF];
}

/* How products of one row become logits, in natural units: shifted; capped, if soft_cap is not 0;
 * and less slope x the distance from the query's place, which is counted from the leaf's first key.
 */
struct logit_row {
    float scale, soft_cap, slope, place, shift;
};

struct simd {
    void (*softmax_f32)(const struct softmax_rows *rows);
    void (*softmax_bf16)(const struct softmax_rows *rows); /* NULL where P is never bf16 */

    /* into = the merge of into and from; rows of acc are d apart. Merging with an empty state
     * selects the other one. */
    void (*merge)(struct ls_row_states into, struct ls_row_states from, int rows, int d);

    /* x [n] times factor */
    void (*scale)(float *x, float factor, int n);

    /* s [LS_LEAF] */
    void (*logits)(float *s, const struct logit_row *row);
};

extern const struct simd cpu_simd_generic, cpu_simd_avx2, cpu_simd_avx512, cpu_simd_avx512bf16;

static inline const struct simd *simd_of(ls_isa isa)
{
    static const struct simd *const tables[] = {
        [LS_ISA_GENERIC] = &cpu_simd_generic, [LS_ISA_AVX2] = &cpu_simd_avx2,
        [LS_ISA_AVX512] = &cpu_simd_avx512,   [LS_ISA_AVX512BF16] = &cpu_simd_avx512bf16,
        [LS_ISA_AMX] = &cpu_simd_avx512bf16,
    };

    return tables[isa];
}

#endif
