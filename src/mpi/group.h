/* Communication over MPI: what its files share. */
#ifndef LS_MPI_GROUP_H
#define LS_MPI_GROUP_H

#include "comm/transport.h"
#include "longspan/mpi.h"
#include "mpi/checked.h"
#include "mpi/watch.h"

/* Values that one step of a reduction gathers from every rank. */
#define FOLD_WIDTH 32

struct mpi_group {
    MPI_Comm comm;
    int rank, size;
    int node_size, node_run;
    double *fold;            /* [size, FOLD_WIDTH] */
    struct mpi_watch *watch; /* NULL: no timeout */
    int *watched;            /* [size] the ranks as the watch numbers them */
};

static inline struct mpi_ranks group_watched(const struct mpi_group *group)
{
    return (struct mpi_ranks){group->watched, group->size};
}

/* Any number of bytes as MPI counts them: beyond INT_MAX as one element of a derived type, made of
 * blocks of 1 GiB and a rest. */
struct mpi_payload {
    int count;
    MPI_Datatype type;
};

/* Messages under way keep what they need of the type. Errors: LS_ECOMM. */
ls_status mpi_payload_init(struct mpi_payload *out, size_t bytes);
void mpi_payload_fini(struct mpi_payload *payload);

/* Rows of the tables of operations. messages.c: */
ls_status group_start(void *self, struct ls_message *message, int n);
ls_status group_test(bool *done, void *self, struct ls_message *message, int n);
ls_status group_wait(void *self, struct ls_message *message, int n);

/* collectives.c: */
ls_status group_barrier(void *self);
ls_status group_reduce(double *values, void *self, int n, ls_reduction how);
ls_status group_broadcast(void *bytes, void *self, size_t n, int root);
ls_status group_gather(void *out, void *self, const void *in, size_t bytes);

#endif
