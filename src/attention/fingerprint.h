/* What the bits of a strict result depend on besides the input: two runs with the same fingerprint
 * give the same bits. */
#ifndef LS_ATTENTION_FINGERPRINT_H
#define LS_ATTENTION_FINGERPRINT_H

#include "comm/comm.h"
#include "device/device.h"

#define LS_FINGERPRINT_LENGTH 96

void ls_fingerprint(char out[LS_FINGERPRINT_LENGTH], const struct ls_device *device);

/* Collective. Errors: LS_EFIT, on every rank, if the ranks' fingerprints differ; the message names
 * a rank and both. */
ls_status ls_fingerprint_agree(struct ls_comm *comm, const char own[LS_FINGERPRINT_LENGTH]);

#endif
