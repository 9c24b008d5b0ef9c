/* Control over MPI: collective operations on small values. */
#include "mpi/group.h"

/* ---- MPI's operations, which a timeout makes non-blocking: those may be slower for few bytes. The
 * result is an error of MPI's, or is still to come with *request. */

static int all_gather(MPI_Request *request, const struct mpi_group *group, void *out,
                      const void *in, int n, MPI_Datatype type)
{
    if (group->watch) return MPI_Iallgather(in, n, type, out, n, type, group->comm, request);
    return MPI_Allgather(in, n, type, out, n, type, group->comm);
}

/* ---- ours */

ls_status group_barrier(void *self)
{
    const struct mpi_group *group = self;
    MPI_Request request = MPI_REQUEST_NULL;

    LS_TRY(mpi_watch_status(group->watch));
    const int code = group->watch ? MPI_Ibarrier(group->comm, &request) : MPI_Barrier(group->comm);

    LS_TRY(mpi_checked(code, "barrier"));
    return mpi_watch_finish(group->watch, group_watched(group), request, 0);
}

/* MPI_Allreduce may give different ranks different bits; here each folds in the order of ranks. */
ls_status group_reduce(double *values, void *self, int n, ls_reduction how)
{
    struct mpi_group *group = self;

    for (int first = 0; first < n; first += FOLD_WIDTH) {
        const int width = n - first < FOLD_WIDTH ? n - first : FOLD_WIDTH;

        MPI_Request request = MPI_REQUEST_NULL;

        LS_TRY(mpi_watch_status(group->watch));
        LS_TRY(
            mpi_checked(all_gather(&request, group, group->fold, values + first, width, MPI_DOUBLE),
                        "reducing %d values", n));
        LS_TRY(mpi_watch_finish(group->watch, group_watched(group), request,
                                (size_t)width * sizeof *values));
        for (int i = 0; i < width; i++) {
            double folded = group->fold[i];

            for (int r = 1; r < group->size; r++)
                folded = ls_reduce_two(folded, group->fold[r * width + i], how);
            values[first + i] = folded;
        }
    }
    return LS_OK;
}

ls_status group_broadcast(void *bytes, void *self, size_t n, int root)
{
    const struct mpi_group *group = self;
    MPI_Request request = MPI_REQUEST_NULL;
    struct mpi_payload payload;
    int code;

    LS_TRY(mpi_watch_status(group->watch));
    LS_TRY(mpi_payload_init(&payload, n));
    if (group->watch)
        code = MPI_Ibcast(bytes, payload.count, payload.type, root, group->comm, &request);
    else
        code = MPI_Bcast(bytes, payload.count, payload.type, root, group->comm);
    mpi_payload_fini(&payload);
    LS_TRY(mpi_checked(code, "broadcasting %zu bytes from rank %d", n, root));
    return mpi_watch_finish(group->watch, group_watched(group), request, n);
}

ls_status group_gather(void *out, void *self, const void *in, size_t bytes)
{
    const struct mpi_group *group = self;
    MPI_Request request = MPI_REQUEST_NULL;
    struct mpi_payload payload;

    LS_TRY(mpi_watch_status(group->watch));
    LS_TRY(mpi_payload_init(&payload, bytes));
    const int code = all_gather(&request, group, out, in, payload.count, payload.type);

    mpi_payload_fini(&payload);
    LS_TRY(mpi_checked(code, "gathering %zu bytes of each of %d ranks", bytes, group->size));
    return mpi_watch_finish(group->watch, group_watched(group), request, bytes);
}
