/* Collective operations over MPI. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "mpi/group.h"

/* Floats that one step reduces, so that MPI needs no more memory than this for it. */
#define REDUCE_WIDTH ((int64_t)1 << 24)

/* ---- MPI's operations, which a timeout makes non-blocking: those may be slower for few bytes. The
 * result is an error of MPI's, or is still to come with *request. */

static int all_gather(MPI_Request *request, const struct mpi_group *group, void *out,
                      const void *in, int n, MPI_Datatype type)
{
    if (group->watch) return MPI_Iallgather(in, n, type, out, n, type, group->comm, request);
    return MPI_Allgather(in, n, type, out, n, type, group->comm);
}

static int all_reduce(MPI_Request *request, const struct mpi_group *group, float *values, int n,
                      MPI_Op op)
{
    if (group->watch)
        return MPI_Iallreduce(MPI_IN_PLACE, values, n, MPI_FLOAT, op, group->comm, request);
    return MPI_Allreduce(MPI_IN_PLACE, values, n, MPI_FLOAT, op, group->comm);
}

static int all_to_all(MPI_Request *request, const struct mpi_group *group, void *out, int n,
                      MPI_Datatype type, const void *in, int in_n, MPI_Datatype in_type)
{
    if (group->watch) return MPI_Ialltoall(in, in_n, in_type, out, n, type, group->comm, request);
    return MPI_Alltoall(in, in_n, in_type, out, n, type, group->comm);
}

/* ---- ours */

ls_status group_barrier(void *self)
{
    const struct mpi_group *group = self;
    MPI_Request request = MPI_REQUEST_NULL;

    LS_TRY(mpi_watch_status(group->watch));
    const int code = group->watch ? MPI_Ibarrier(group->comm, &request) : MPI_Barrier(group->comm);

    LS_TRY(mpi_checked(code, "barrier"));
    return mpi_watch_finish(group->watch, request, 0);
}

/* A NaN on any rank stays one: a reduction must not hide it. */
static double combine(double a, double b, ls_reduction how)
{
    switch (how) {
    case LS_REDUCE_SUM:
        return a + b;
    case LS_REDUCE_MAX:
        return isnan(a) || a > b ? a : b;
    case LS_REDUCE_MIN:
        return isnan(a) || a < b ? a : b;
    }
    return a;
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
        LS_TRY(mpi_watch_finish(group->watch, request, (size_t)width * sizeof *values));
        for (int i = 0; i < width; i++) {
            double folded = group->fold[i];

            for (int r = 1; r < group->size; r++)
                folded = combine(folded, group->fold[r * width + i], how);
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
    return mpi_watch_finish(group->watch, request, n);
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
    return mpi_watch_finish(group->watch, request, bytes);
}

/* MPI's own may lose a NaN. */
static void keep_larger(void *in, void *values, int *n, MPI_Datatype *type)
{
    const float *a = in;
    float *b = values;

    (void)type;
    for (int i = 0; i < *n; i++) b[i] = (float)combine(a[i], b[i], LS_REDUCE_MAX);
}

static void keep_smaller(void *in, void *values, int *n, MPI_Datatype *type)
{
    const float *a = in;
    float *b = values;

    (void)type;
    for (int i = 0; i < *n; i++) b[i] = (float)combine(a[i], b[i], LS_REDUCE_MIN);
}

ls_status group_all_reduce(float *values, void *self, int64_t n, ls_reduction how)
{
    const struct mpi_group *group = self;
    ls_status status = LS_OK;
    MPI_Op op = MPI_SUM;

    if (how != LS_REDUCE_SUM)
        LS_TRY(mpi_checked(MPI_Op_create(how == LS_REDUCE_MAX ? keep_larger : keep_smaller, 1, &op),
                           "making a reduction"));
    for (int64_t first = 0; status == LS_OK && first < n; first += REDUCE_WIDTH) {
        const int width = (int)(n - first < REDUCE_WIDTH ? n - first : REDUCE_WIDTH);
        MPI_Request request = MPI_REQUEST_NULL;

        status = mpi_watch_status(group->watch);
        if (status == LS_OK)
            status = mpi_checked(all_reduce(&request, group, values + first, width, op),
                                 "reducing %" PRId64 " values over %d ranks", n, group->size);
        if (status == LS_OK)
            status = mpi_watch_finish(group->watch, request, (size_t)width * sizeof *values);
    }
    if (op != MPI_SUM) MPI_Op_free(&op);
    return status;
}

/* Fills slices [p, width] with what every rank has for this one: `in` is the first of [p, n]
 * floats, of each row `width` are taken. */
static ls_status exchange_slices(const struct mpi_group *group, const float *in, int64_t n,
                                 int width)
{
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Datatype slice, spaced;
    int code;

    LS_TRY(mpi_checked(MPI_Type_contiguous(width, MPI_FLOAT, &slice), "making a slice type"));
    code = MPI_Type_create_resized(slice, 0, (MPI_Aint)(n * (int64_t)sizeof(float)), &spaced);
    MPI_Type_free(&slice);
    LS_TRY(mpi_checked(code, "making a slice type"));
    code = MPI_Type_commit(&spaced);
    if (code == MPI_SUCCESS)
        code = all_to_all(&request, group, group->slices, width, MPI_FLOAT, in, 1, spaced);
    MPI_Type_free(&spaced);
    LS_TRY(mpi_checked(code, "exchanging [%d, %" PRId64 "] values", group->size, n));
    return mpi_watch_finish(group->watch, request,
                            (size_t)group->size * (size_t)width * sizeof *in);
}

/* By slices, in the order of ranks: Open MPI's own takes up to twice the time, and memory of the
 * size of the input. */
ls_status group_reduce_scatter(float *out, void *self, const float *in, int64_t n)
{
    const struct mpi_group *group = self;

    for (int64_t first = 0; first < n; first += group->slice_width) {
        const int width = (int)(n - first < group->slice_width ? n - first : group->slice_width);

        LS_TRY(mpi_watch_status(group->watch));
        LS_TRY(exchange_slices(group, in + first, n, width));
        memcpy(out + first, group->slices, sizeof(float) * (size_t)width);
        for (int r = 1; r < group->size; r++)
            LS_TRY(mpi_checked(MPI_Reduce_local(group->slices + (int64_t)r * width, out + first,
                                                width, MPI_FLOAT, MPI_SUM),
                               "summing %d values", width));
    }
    return LS_OK;
}

ls_status group_all_to_all(void *out, void *self, const void *in, size_t bytes)
{
    const struct mpi_group *group = self;
    MPI_Request request = MPI_REQUEST_NULL;
    struct mpi_payload payload;

    LS_TRY(mpi_watch_status(group->watch));
    LS_TRY(mpi_payload_init(&payload, bytes));
    const int code = all_to_all(&request, group, out, payload.count, payload.type, in,
                                payload.count, payload.type);

    mpi_payload_fini(&payload);
    LS_TRY(mpi_checked(code, "exchanging %zu bytes with each of %d ranks", bytes, group->size));
    return mpi_watch_finish(group->watch, request, (size_t)group->size * bytes);
}
