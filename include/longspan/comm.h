/* A group of ranks that compute together. */
#ifndef LONGSPAN_COMM_H
#define LONGSPAN_COMM_H

#include "longspan/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ls_comm;

/* A group of this process alone; needs no MPI. The caller destroys it. */
LS_API ls_status ls_comm_create_self(struct ls_comm **out);

/* The sub-group of comm's ranks [n], numbered as in the list, this rank among them. Every rank
 * names the ranks of its own sub-group, the same in the same order on all of them, so that comm
 * falls into sub-groups: a grid of t x c ranks is two calls. The caller destroys it. Collective
 * over comm. Errors: LS_EVALUE (this rank is not in its list; a rank is none of comm's, or named
 * twice; lists differ), LS_ENOMEM, LS_ECOMM; the same on every rank. */
LS_API ls_status ls_comm_split(struct ls_comm **out, struct ls_comm *comm, const int *ranks, int n);

/* With a timeout, the last one that is destroyed, of a group, its sub-groups and plans, waits for
 * all ranks of the group. Collective if the group has several ranks, but after LS_ECOMM, when it
 * waits for nobody. Accepts NULL. */
LS_API void ls_comm_destroy(struct ls_comm *comm);

/* From here on, a rank that waits for another one, of which it has heard nothing for so many
 * seconds, gives up: LS_ECOMM, and the message says for whom it waited, where, and what it has last
 * heard of each rank. Plans made of comm afterwards have the same timeout. A rank is heard of at
 * least once a second while it computes or waits in a function of the library: it may be slow, but
 * not stay away for so long between two of them, and no single message may take so long. 0, as in
 * the beginning: for ever. Results of fast mode may be rounded otherwise with a timeout than
 * without. After this failure every function that communicates over comm, or over one of its plans,
 * fails alike, destroying waits for nobody, and the process should end soon: MPI may still write to
 * what it was to receive into. Collective. Errors: LS_EVALUE (negative, or not the same on all
 * ranks), LS_ENOMEM, LS_ECOMM. */
LS_API ls_status ls_comm_set_timeout(struct ls_comm *comm, int seconds);

LS_API int ls_comm_rank(const struct ls_comm *comm);
LS_API int ls_comm_size(const struct ls_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
