/* What the bits of a strict result depend on besides the input: two runs with the same fingerprint
 * give the same bits. */
#ifndef LS_ATTENTION_FINGERPRINT_H
#define LS_ATTENTION_FINGERPRINT_H

#include "comm/comm.h"
#include "device/attention.h"

#define LS_FINGERPRINT_LENGTH 192

/* Machines with the same instruction set may multiply in other ways: the names of what they choose
 * for this shape are part of it, for gradients if the plan is for backward as well. */
void ls_fingerprint(char out[LS_FINGERPRINT_LENGTH], const struct ls_device *device,
                    struct ls_kernel_shape shape, bool backward);

/* The same of what is computed with linear layers' products, which follow from instruction set and
 * type. */
void ls_fingerprint_of_device(char out[LS_FINGERPRINT_LENGTH], const struct ls_device *device);

/* Collective. Errors: LS_EFIT, on every rank, if the ranks' fingerprints differ; the message names
 * a rank and both. */
ls_status ls_fingerprint_agree(struct ls_comm *comm, const char own[LS_FINGERPRINT_LENGTH]);

#endif
