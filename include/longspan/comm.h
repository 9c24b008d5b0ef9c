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

/* Collective if the group has several ranks. Accepts NULL. */
LS_API void ls_comm_destroy(struct ls_comm *comm);

LS_API int ls_comm_rank(const struct ls_comm *comm);
LS_API int ls_comm_size(const struct ls_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
