/* Communication over MPI: what its files share. */
#ifndef LS_MPI_GROUP_H
#define LS_MPI_GROUP_H

#include "comm/comm.h"
#include "longspan/mpi.h"
#include "mpi/checked.h"
#include "mpi/watch.h"

/* Values that one step of a reduction gathers from every rank. */
#define FOLD_WIDTH 32

struct mpi_group {
    MPI_Comm comm;
    int rank, size;
    int node_size, node_run;
    double *fold;  /* [size, FOLD_WIDTH] */
    float *slices; /* [size, slice_width] */
    int slice_width;
    struct mpi_watch *watch; /* NULL: no timeout */
};

/* Any number of bytes as MPI counts them: beyond INT_MAX as one element of a derived type, made of
 * blocks of 1 GiB and a rest. */
struct mpi_payload {
    int count;
    MPI_Datatype type;
};

/* Messages under way keep what they need of the type. Errors: LS_ECOMM. */
ls_status mpi_payload_init(struct mpi_payload *out, size_t bytes);
void mpi_payload_fini(struct mpi_payload *payload);

/* Rows of the table of operations (comm/comm.h). messages.c: */
ls_status group_send(struct ls_request *out, void *self, const void *in, size_t bytes, int to,
                     int tag);
ls_status group_receive(struct ls_request *out, void *self, void *into, size_t bytes, int from,
                        int tag);
ls_status group_test(bool *done, void *self, struct ls_request *requests, int n);
ls_status group_wait(void *self, struct ls_request *requests, int n);

/* collectives.c: */
ls_status group_barrier(void *self);
ls_status group_reduce(double *values, void *self, int n, ls_reduction how);
ls_status group_broadcast(void *bytes, void *self, size_t n, int root);
ls_status group_gather(void *out, void *self, const void *in, size_t bytes);
ls_status group_all_reduce(float *values, void *self, int64_t n, ls_reduction how);
ls_status group_reduce_scatter(float *out, void *self, const float *in, int64_t n);
ls_status group_all_to_all(void *out, void *self, const void *in, size_t bytes);

#endif
