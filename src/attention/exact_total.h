/* Sums that are kept exactly (base/exact_sum.h), of all ranks. */
#ifndef LS_ATTENTION_EXACT_TOTAL_H
#define LS_ATTENTION_EXACT_TOTAL_H

#include "comm/comm.h"

#define LS_EXACT_PIECE 1024 /* sums that travel at once */

/* Bytes of room for those of so many ranks. */
size_t ls_exact_total_bytes(int ranks);

/* limb [n][LS_EXACT_LIMBS] of the host = those of all ranks added. Collective. Errors: LS_ECOMM. */
ls_status ls_exact_total(int64_t *limb, int64_t n, struct ls_comm *comm, int64_t *room);

#endif
