/* MPI as the standard allows it to be at its worst, between a program and its MPI (LD_PRELOAD): a
 * send is done when it was received, not before; messages are started some calls later, and are
 * done only when they have been asked for several times; the memory of a receive holds NaN until it
 * is done, and that of a send must stay as it was. Blocking calls are the others and a wait.
 *   LS_ADVERSARY_SEED      what is drawn (default 0); a fault that was found is printed with it
 *   LS_ADVERSARY_PATIENCE  seconds that a wait may last before it is called a deadlock (default 60)
 * What stands neither here nor among the functions that MPI has for itself is refused (refused.c).
 */
#include <stddef.h>

#include "operation.h"

int MPI_Init(int *argc, char ***argv)
{
    adversary_start();
    return PMPI_Init(argc, argv);
}

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
    adversary_start();
    return PMPI_Init_thread(argc, argv, required, provided);
}

static int ranks_of(MPI_Comm comm)
{
    int size;

    PMPI_Comm_size(comm, &size);
    return size;
}

/* ---- messages: made as persistent requests, which are started later */

static int post(MPI_Request *out, struct operation *operation, int peer, int tag)
{
    operation->peer = peer;
    operation->tag = tag;
    operation->message = true;
    operation->started = false;
    *out = operation->request;
    return MPI_SUCCESS;
}

int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
              MPI_Request *out)
{
    operations_start(false);
    struct operation *operation =
        operation_create("send", comm, &(struct area){(void *)data, count, type}, NULL);
    const int code = PMPI_Ssend_init(data, count, type, to, tag, comm, &operation->request);

    if (code != MPI_SUCCESS) accuse(operation, "it cannot be made");
    return post(out, operation, to, tag);
}

int MPI_Irecv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
              MPI_Request *out)
{
    operations_start(false);
    const struct area area = {data, count, type};
    struct operation *operation = operation_create("receive", comm, NULL, &area);
    const int code = PMPI_Recv_init(operation->hidden, area_bytes(&area), MPI_PACKED, from, tag,
                                    comm, &operation->request);

    if (code != MPI_SUCCESS) accuse(operation, "it cannot be made");
    return post(out, operation, from, tag);
}

/* ---- their end */

int MPI_Test(MPI_Request *request, int *done, MPI_Status *status)
{
    operations_start(false);
    if (*request == MPI_REQUEST_NULL) return PMPI_Test(request, done, status);
    struct operation *operation = operation_find(*request);

    *done = operation_test(operation);
    if (!*done) return MPI_SUCCESS;
    operation_finish(operation, status);
    *request = MPI_REQUEST_NULL;
    return MPI_SUCCESS;
}

int MPI_Wait(MPI_Request *request, MPI_Status *status)
{
    if (*request == MPI_REQUEST_NULL) return PMPI_Wait(request, status);
    operation_wait(operation_find(*request), status);
    *request = MPI_REQUEST_NULL;
    return MPI_SUCCESS;
}

static MPI_Status *status_at(MPI_Status *statuses, int i)
{
    return statuses == MPI_STATUSES_IGNORE ? MPI_STATUS_IGNORE : statuses + i;
}

int MPI_Waitall(int n, MPI_Request *requests, MPI_Status *statuses)
{
    for (int i = 0; i < n; i++) MPI_Wait(requests + i, status_at(statuses, i));
    return MPI_SUCCESS;
}

int MPI_Testall(int n, MPI_Request *requests, int *done, MPI_Status *statuses)
{
    operations_start(false);
    *done = true;
    for (int i = 0; i < n; i++)
        if (requests[i] != MPI_REQUEST_NULL && !operation_test(operation_find(requests[i])))
            *done = false;
    return *done ? MPI_Waitall(n, requests, statuses) : MPI_SUCCESS;
}

int MPI_Send(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm)
{
    MPI_Request request;

    MPI_Isend(data, count, type, to, tag, comm, &request);
    return MPI_Wait(&request, MPI_STATUS_IGNORE);
}

int MPI_Recv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
             MPI_Status *status)
{
    MPI_Request request;

    MPI_Irecv(data, count, type, from, tag, comm, &request);
    return MPI_Wait(&request, status);
}

/* ---- collective operations: started at once, in packed memory on every rank */

static int started(MPI_Request *out, const struct operation *operation, int code)
{
    if (code != MPI_SUCCESS) accuse(operation, "it cannot be started");
    *out = operation->request;
    return MPI_SUCCESS;
}

int MPI_Ibarrier(MPI_Comm comm, MPI_Request *out)
{
    operations_start(false);
    struct operation *operation = operation_create("barrier", comm, NULL, NULL);

    return started(out, operation, PMPI_Ibarrier(comm, &operation->request));
}

int MPI_Ibcast(void *data, int count, MPI_Datatype type, int root, MPI_Comm comm, MPI_Request *out)
{
    operations_start(false);
    const struct area area = {data, count, type};
    int rank;

    PMPI_Comm_rank(comm, &rank);
    struct operation *operation = operation_create("broadcast", comm, rank == root ? &area : NULL,
                                                   rank == root ? NULL : &area);
    return started(out, operation,
                   PMPI_Ibcast(rank == root ? operation->copy : operation->hidden,
                               area_bytes(&area), MPI_PACKED, root, comm, &operation->request));
}

static void refuse_in_place(const void *in, const char *name)
{
    if (in == MPI_IN_PLACE) accuse(NULL, "%s with MPI_IN_PLACE is not known here", name);
}

int MPI_Iallgather(const void *in, int count, MPI_Datatype type, void *out, int out_count,
                   MPI_Datatype out_type, MPI_Comm comm, MPI_Request *request)
{
    operations_start(false);
    refuse_in_place(in, "MPI_Allgather");
    const struct area from = {(void *)in, count, type};
    const struct area to = {out, out_count * ranks_of(comm), out_type};
    struct operation *operation = operation_create("all-gather", comm, &from, &to);
    const int bytes = area_bytes(&from);

    if (bytes * ranks_of(comm) != area_bytes(&to)) accuse(operation, "its sizes do not match");
    return started(request, operation,
                   PMPI_Iallgather(operation->copy, bytes, MPI_PACKED, operation->hidden, bytes,
                                   MPI_PACKED, comm, &operation->request));
}

int MPI_Ialltoall(const void *in, int count, MPI_Datatype type, void *out, int out_count,
                  MPI_Datatype out_type, MPI_Comm comm, MPI_Request *request)
{
    operations_start(false);
    refuse_in_place(in, "MPI_Alltoall");
    const int size = ranks_of(comm);
    const struct area from = {(void *)in, count * size, type};
    const struct area to = {out, out_count * size, out_type};
    struct operation *operation = operation_create("all-to-all", comm, &from, &to);
    const int bytes = area_bytes(&from) / size;

    if (bytes * size != area_bytes(&to)) accuse(operation, "its sizes do not match");
    return started(request, operation,
                   PMPI_Ialltoall(operation->copy, bytes, MPI_PACKED, operation->hidden, bytes,
                                  MPI_PACKED, comm, &operation->request));
}

/* Numbers of a type that is packed as it lies in memory. */
int MPI_Iallreduce(const void *in, void *out, int count, MPI_Datatype type, MPI_Op op,
                   MPI_Comm comm, MPI_Request *request)
{
    operations_start(false);
    const struct area from = {in == MPI_IN_PLACE ? out : (void *)in, count, type};
    const struct area to = {out, count, type};
    MPI_Aint least, extent;

    PMPI_Type_get_extent(type, &least, &extent);
    if (extent * count != area_bytes(&from)) accuse(NULL, "reducing such a type is not known here");
    struct operation *operation = operation_create("all-reduce", comm, &from, &to);

    return started(request, operation,
                   PMPI_Iallreduce(operation->copy, operation->hidden, count, type, op, comm,
                                   &operation->request));
}

int MPI_Barrier(MPI_Comm comm)
{
    MPI_Request request;

    MPI_Ibarrier(comm, &request);
    return MPI_Wait(&request, MPI_STATUS_IGNORE);
}

int MPI_Bcast(void *data, int count, MPI_Datatype type, int root, MPI_Comm comm)
{
    MPI_Request request;

    MPI_Ibcast(data, count, type, root, comm, &request);
    return MPI_Wait(&request, MPI_STATUS_IGNORE);
}

int MPI_Allgather(const void *in, int count, MPI_Datatype type, void *out, int out_count,
                  MPI_Datatype out_type, MPI_Comm comm)
{
    MPI_Request request;

    MPI_Iallgather(in, count, type, out, out_count, out_type, comm, &request);
    return MPI_Wait(&request, MPI_STATUS_IGNORE);
}

int MPI_Alltoall(const void *in, int count, MPI_Datatype type, void *out, int out_count,
                 MPI_Datatype out_type, MPI_Comm comm)
{
    MPI_Request request;

    MPI_Ialltoall(in, count, type, out, out_count, out_type, comm, &request);
    return MPI_Wait(&request, MPI_STATUS_IGNORE);
}

int MPI_Allreduce(const void *in, void *out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm)
{
    MPI_Request request;

    MPI_Iallreduce(in, out, count, type, op, comm, &request);
    return MPI_Wait(&request, MPI_STATUS_IGNORE);
}

/* ---- calls that wait for other ranks: what they wait for must be under way */

int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *out)
{
    operations_start(true);
    return PMPI_Comm_dup(comm, out);
}

int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm *out)
{
    operations_start(true);
    return PMPI_Comm_split(comm, color, key, out);
}

int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *out)
{
    operations_start(true);
    return PMPI_Comm_split_type(comm, type, key, info, out);
}

int MPI_Comm_free(MPI_Comm *comm)
{
    operations_start(true);
    operations_expect_none(*comm, "when its communicator was freed");
    return PMPI_Comm_free(comm);
}

int MPI_Finalize(void)
{
    operations_start(true);
    operations_expect_none(MPI_COMM_NULL, "when MPI ended");
    return PMPI_Finalize();
}
