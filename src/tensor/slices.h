/* A mask as slices: rectangles of queries and keys, each seen in full or on one side of a diagonal.
 * Source of the types: MagiAttention (SandAI 2025), flexible flash attention. */
#ifndef LS_TENSOR_SLICES_H
#define LS_TENSOR_SLICES_H

#include "base/status.h"
#include "longspan/attention.h"
#include "tensor/mask.h"

/* The pairs of a slice; none where its low is above its high. */
struct ls_band ls_slice_band(const struct ls_slice *slice);

/* Whether each is of a type that there is, within s_q queries and s_k keys, and no pair is in two
 * of them. Errors: LS_EVALUE, LS_ENOMEM. */
ls_status ls_slices_check(const struct ls_slice *slices, int64_t count, int64_t s_q, int64_t s_k);

#endif
