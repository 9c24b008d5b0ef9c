/* Keys and values of 8 bits: half the memory, and half the bytes on every way between ranks, of
 * bf16. For forward alone.
 *
 * A row of a head is its d numbers (d_v of values), i8 or e4m3, and behind them, in LS_SCALE_BYTES
 * bytes, an f32: the scale, finite and positive, that they are multiplied by. So k is
 * [b, s_k_loc, h_kv, d + LS_SCALE_BYTES] of plan's kv_type, wherever its rows came from. What they
 * stand for enters attention exactly: rows take scales where bf16 holds all of that, other scales
 * multiply the scores and the probabilities.
 * Source: Zhang et al. 2024, "SageAttention" (a mean taken out of K before it is rounded). */
#ifndef LONGSPAN_QUANTIZE_H
#define LONGSPAN_QUANTIZE_H

#include "longspan/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* k_out, v_out = the rows of k and v, of the plan's type and with as many of this rank as forward
 * takes, in its kv_type, so that numbers times scales are exact in bf16: i8 with the scale of each
 * row, 1 or 3 times a power of two, no number above 85 being odd with the latter; e4m3 with one
 * scale for each head of an entry, 8 to 15 times one.
 *
 * key_mean [b, h_kv, d] of the host, the same on every rank: the mean of all keys, which is taken
 * out of them first, and which ls_attention_execution.key_mean brings back; NULL: none is. A
 * channel that is large in all keys would else take the digits of the others.
 *
 * Every rank's rows are those of one rank. A row with NaN or infinity is NaN to who sees it, and
 * counts for no other.
 *
 * Collective over the plan's ranks. Outputs have memory of their own.
 *
 * Errors: LS_EVALUE (the plan's keys are not of 8 bits), LS_ESHAPE (also if some ranks alone want a
 * mean), LS_ETYPE, before anything is written; LS_ENOMEM, LS_ECOMM. */
LS_API ls_status ls_attention_quantize(struct ls_tensor *k_out, struct ls_tensor *v_out,
                                       float *key_mean, struct ls_attention_plan *plan,
                                       const struct ls_tensor *k, const struct ls_tensor *v);

#ifdef __cplusplus
}
#endif
#endif
