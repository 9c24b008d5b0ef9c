/* Messages over MPI. Counts become int in one place, struct mpi_payload. */
#include <limits.h>
#include <string.h>

#include "mpi/group.h"

#define BLOCK_BYTES ((size_t)1 << 30)

static ls_status make_large_type(MPI_Datatype *out, size_t bytes)
{
    const size_t blocks = bytes / BLOCK_BYTES;
    MPI_Datatype block;
    int code;

    if (blocks > INT_MAX) return ls_fail(LS_ECOMM, "a message of %zu bytes is too large", bytes);
    const int lengths[2] = {(int)blocks, (int)(bytes % BLOCK_BYTES)};
    const MPI_Aint places[2] = {0, (MPI_Aint)(blocks * BLOCK_BYTES)};

    LS_TRY(mpi_checked(MPI_Type_contiguous((int)BLOCK_BYTES, MPI_BYTE, &block),
                       "making a block type"));
    const MPI_Datatype parts[2] = {block, MPI_BYTE};

    code = MPI_Type_create_struct(2, lengths, places, parts, out);
    MPI_Type_free(&block);
    LS_TRY(mpi_checked(code, "making a type of %zu bytes", bytes));
    return mpi_checked(MPI_Type_commit(out), "making a type of %zu bytes", bytes);
}

ls_status mpi_payload_init(struct mpi_payload *out, size_t bytes)
{
    if (bytes <= INT_MAX) {
        *out = (struct mpi_payload){.count = (int)bytes, .type = MPI_BYTE};
        return LS_OK;
    }
    out->count = 1;
    return make_large_type(&out->type, bytes);
}

void mpi_payload_fini(struct mpi_payload *payload)
{
    if (payload->type != MPI_BYTE) MPI_Type_free(&payload->type);
}

/* A request is a pointer in Open MPI and an int in MPICH; no active one is all zero bits. */
_Static_assert(sizeof(MPI_Request) <= sizeof(uintptr_t), "a request must hold an MPI_Request");

static uintptr_t pack_request(MPI_Request request)
{
    uintptr_t handle = 0;

    if (request != MPI_REQUEST_NULL) memcpy(&handle, &request, sizeof(request));
    return handle;
}

static MPI_Request unpack_request(uintptr_t handle)
{
    MPI_Request request = MPI_REQUEST_NULL;

    if (handle != 0) memcpy(&request, &handle, sizeof(request));
    return request;
}

ls_status group_send(struct ls_request *out, void *self, const void *in, size_t bytes, int to,
                     int tag)
{
    const struct mpi_group *group = self;
    struct mpi_payload payload;
    MPI_Request request;
    int code;

    LS_TRY(mpi_watch_meet(group->watch, to));
    LS_TRY(mpi_payload_init(&payload, bytes));
    code = MPI_Isend(in, payload.count, payload.type, to, tag, group->comm, &request);
    mpi_payload_fini(&payload);
    LS_TRY(mpi_checked(code, "sending %zu bytes to rank %d, tag %d", bytes, to, tag));
    *out = (struct ls_request){.handle = pack_request(request), .peer = to, .bytes = bytes};
    return LS_OK;
}

ls_status group_receive(struct ls_request *out, void *self, void *into, size_t bytes, int from,
                        int tag)
{
    const struct mpi_group *group = self;
    struct mpi_payload payload;
    MPI_Request request;
    int code;

    LS_TRY(mpi_watch_meet(group->watch, from));
    LS_TRY(mpi_payload_init(&payload, bytes));
    code = MPI_Irecv(into, payload.count, payload.type, from, tag, group->comm, &request);
    mpi_payload_fini(&payload);
    LS_TRY(mpi_checked(code, "receiving %zu bytes from rank %d, tag %d", bytes, from, tag));
    *out = (struct ls_request){.handle = pack_request(request), .peer = from, .bytes = bytes};
    return LS_OK;
}

/* What MPI says of a message that failed on its way; of a send it need not know the peer. */
static ls_status check_completion(int code, const MPI_Status *status)
{
    if (status->MPI_SOURCE < 0) return mpi_checked(code, "completing a message");
    return mpi_checked(code, "completing a message with rank %d, tag %d", status->MPI_SOURCE,
                       status->MPI_TAG);
}

static ls_status test_all(bool *done, struct ls_request *requests, int n)
{
    bool all = true;

    for (int i = 0; i < n; i++) {
        MPI_Request request = unpack_request(requests[i].handle);
        MPI_Status status = {.MPI_SOURCE = MPI_ANY_SOURCE};
        int complete;
        const int code = MPI_Test(&request, &complete, &status);

        requests[i].handle = pack_request(request);
        LS_TRY(check_completion(code, &status));
        all = all && complete;
    }
    *done = all;
    return LS_OK;
}

ls_status group_test(bool *done, void *self, struct ls_request *requests, int n)
{
    const struct mpi_group *group = self;

    LS_TRY(mpi_watch_beat(group->watch));
    return test_all(done, requests, n);
}

/* One message after the other; of those that are here by the time of a beat, nobody is waited for.
 */
ls_status group_wait(void *self, struct ls_request *requests, int n)
{
    const struct mpi_group *group = self;
    bool done;

    LS_TRY(mpi_watch_status(group->watch));
    for (int i = 0; i < n; i++) {
        for (;;) {
            LS_TRY(test_all(&done, &requests[i], 1));
            if (done) break;
            if (!mpi_watch_is_due(group->watch)) continue;
            LS_TRY(group_test(&done, self, requests, n));
            LS_TRY(mpi_watch_judge(group->watch, requests, n));
        }
    }
    mpi_watch_step(group->watch);
    return LS_OK;
}
