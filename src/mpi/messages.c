/* Messages over MPI. Counts become int in one place, struct mpi_payload. */
#include <limits.h>
#include <stdio.h>
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

#define TAG 0
#define NOTE_TAG 1

/* "sending 8 bytes to rank 3" */
struct description {
    char text[64];
};

static struct description describe(const struct ls_message *m)
{
    struct description d;

    snprintf(d.text, sizeof d.text,
             m->is_send ? "sending %zu bytes to rank %d" : "receiving %zu bytes from rank %d",
             m->bytes, m->peer);
    return d;
}

/* ---- notes: each goes beside its message, and is there before this is looked at */

static const char *without_folders(const char *site)
{
    const char *slash = strrchr(site, '/');

    return slash ? slash + 1 : site;
}

static ls_status start_note(const struct mpi_group *group, struct ls_message *m)
{
    struct ls_note *note = &m->note;
    MPI_Request request;
    int code;

    *note = (struct ls_note){.bytes = m->bytes};
    snprintf(note->site, sizeof note->site, "%s", without_folders(m->site));
    code = m->is_send
               ? MPI_Isend(note, sizeof *note, MPI_BYTE, m->peer, NOTE_TAG, group->comm, &request)
               : MPI_Irecv(note, sizeof *note, MPI_BYTE, m->peer, NOTE_TAG, group->comm, &request);
    LS_TRY(mpi_checked(code, "%s", describe(m).text));
    m->note_handle = pack_request(request);
    return LS_OK;
}

static ls_status test_note(int *complete, struct ls_message *m)
{
    MPI_Request request = unpack_request(m->note_handle);
    const int code = MPI_Test(&request, complete, MPI_STATUS_IGNORE);

    m->note_handle = pack_request(request);
    return mpi_checked(code, "%s", describe(m).text);
}

static ls_status check_note(const struct ls_message *m)
{
    if (m->note.bytes == m->bytes) return LS_OK;
    return ls_fail(LS_ECOMM, "%s receives %zu bytes from rank %d, which sends %zu at %s",
                   without_folders(m->site), m->bytes, m->peer, m->note.bytes, m->note.site);
}

/* ---- messages */

static ls_status start(const struct mpi_group *group, struct ls_message *m)
{
    struct mpi_payload payload;
    MPI_Request request;
    int code;

    LS_TRY(mpi_watch_meet(group->watch, group->watched[m->peer]));
    if (m->site) LS_TRY(start_note(group, m));
    LS_TRY(mpi_payload_init(&payload, m->bytes));
    code =
        m->is_send
            ? MPI_Isend(m->data, payload.count, payload.type, m->peer, TAG, group->comm, &request)
            : MPI_Irecv(m->data, payload.count, payload.type, m->peer, TAG, group->comm, &request);
    mpi_payload_fini(&payload);
    LS_TRY(mpi_checked(code, "%s", describe(m).text));
    m->handle = pack_request(request);
    return LS_OK;
}

/* Receives first: what comes finds its place. */
ls_status group_start(void *self, struct ls_message *message, int n)
{
    for (int sends = 0; sends < 2; sends++)
        for (int i = 0; i < n; i++)
            if (message[i].is_send == (bool)sends) LS_TRY(start(self, &message[i]));
    return LS_OK;
}

/* MPI lets a message be shorter than its receive. */
static ls_status check_completion(const struct ls_message *m, int code, const MPI_Status *status)
{
    MPI_Count bytes;

    if (m->site) LS_TRY(check_note(m));
    LS_TRY(mpi_checked(code, "%s", describe(m).text));
    if (m->is_send) return LS_OK;
    LS_TRY(mpi_checked(MPI_Get_elements_x(status, MPI_BYTE, &bytes), "%s", describe(m).text));
    if ((size_t)bytes == m->bytes) return LS_OK;
    return ls_fail(LS_ECOMM, "%s: it sent %lld", describe(m).text, (long long)bytes);
}

static ls_status test_one(int *complete, struct ls_message *m)
{
    MPI_Request request = unpack_request(m->handle);
    MPI_Status status;
    const int code = MPI_Test(&request, complete, &status);

    m->handle = pack_request(request);
    return code != MPI_SUCCESS || *complete ? check_completion(m, code, &status) : LS_OK;
}

static ls_status test_all(bool *done, struct ls_message *message, int n)
{
    bool all = true;

    for (int i = 0; i < n; i++) {
        int complete = true;

        if (message[i].handle == 0) continue;
        if (message[i].site) LS_TRY(test_note(&complete, &message[i]));
        if (complete) LS_TRY(test_one(&complete, &message[i]));
        all = all && complete;
    }
    *done = all;
    return LS_OK;
}

ls_status group_test(bool *done, void *self, struct ls_message *message, int n)
{
    const struct mpi_group *group = self;

    LS_TRY(mpi_watch_beat(group->watch));
    return test_all(done, message, n);
}

/* One message after the other; of those that are here by the time of a beat, nobody is waited for.
 */
ls_status group_wait(void *self, struct ls_message *message, int n)
{
    const struct mpi_group *group = self;
    bool done;

    LS_TRY(mpi_watch_status(group->watch));
    for (int i = 0; i < n; i++) {
        for (;;) {
            LS_TRY(test_all(&done, &message[i], 1));
            if (done) break;
            if (!mpi_watch_is_due(group->watch)) continue;
            LS_TRY(group_test(&done, self, message, n));
            LS_TRY(mpi_watch_judge(group->watch, message, n, group_watched(group)));
        }
    }
    mpi_watch_step(group->watch);
    return LS_OK;
}
