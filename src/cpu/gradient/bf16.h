/* Backward's tile in bf16, whatever multiplies. Scores are taken transposed, keys in rows and
 * queries in lanes, in blocks of 32 by 32: lse and delta are vectors then, p^T and ds^T are left
 * operands as they come, and ds is a right operand after one shuffle. */
#ifndef LS_CPU_GRADIENT_BF16_H
#define LS_CPU_GRADIENT_BF16_H

#include "base/cpu.h"
#include "cpu/gradient/avx512.h"
#include "cpu/pack_bf16.h"

#define SIDE PACKED_SIDE             /* of a block */
#define STEP_BYTES PACKED_STEP_BYTES /* of an operand: 32 rows or columns, 32 deep */

size_t cpu_bf16_keys_bytes(struct head_dims pad);
size_t cpu_bf16_queries_bytes(struct head_dims pad);
size_t cpu_bf16_scratch_bytes(struct head_dims pad);
ls_status cpu_bf16_worker_create(void **out, ls_isa isa, struct head_dims pad, void *scratch);
ls_status cpu_bf16_pack_keys(void *packed, void *worker, const void *k, const void *v);
ls_status cpu_bf16_pack_queries(void *packed, void *worker, const void *q, const void *d_o);
void cpu_bf16_tile(void *worker, const struct gradient_tile *tile, multiply_block *multiply);

#endif
