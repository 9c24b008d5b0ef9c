/* Communication over MPI. Counts become int in one place, struct payload. */
#include "longspan/mpi.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"

/* Values that one step of a reduction gathers from every rank. */
#define FOLD_WIDTH 32

/* Floats that one step reduces, so that MPI needs no more memory than this for it. */
#define REDUCE_WIDTH ((int64_t)1 << 24)

/* Floats of all ranks together that one step of a reduce-scatter exchanges: they stay in cache. */
#define SCATTER_WIDTH (1 << 18)

struct mpi_group {
    MPI_Comm comm;
    int rank, size;
    int node_size, node_run;
    double *fold;  /* [size, FOLD_WIDTH] */
    float *slices; /* [size, slice_width] */
    int slice_width;
};

/* LS_OK, or a failure that says, on one line, what was being done and what MPI calls the error. */
__attribute__((format(printf, 2, 3))) static ls_status checked(int code, const char *doing, ...)
{
    char what[256], text[MPI_MAX_ERROR_STRING];
    int length = 0;
    va_list args;

    if (code == MPI_SUCCESS) return LS_OK;
    va_start(args, doing);
    vsnprintf(what, sizeof(what), doing, args);
    va_end(args);
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        snprintf(text, sizeof(text), "MPI error %d", code);
    for (char *end = text; (end = strchr(end, '\n')) != NULL;) *end = ' '; /* MPICH's call stack */
    return ls_fail(LS_ECOMM, "%s: %s", what, text);
}

/* Any number of bytes as MPI counts them: beyond INT_MAX as one element of a derived type, made of
 * blocks of 1 GiB and a rest. */
struct payload {
    int count;
    MPI_Datatype type;
};

#define BLOCK_BYTES ((size_t)1 << 30)

static ls_status make_large_type(MPI_Datatype *out, size_t bytes)
{
    const size_t blocks = bytes / BLOCK_BYTES;
    MPI_Datatype block;
    int code;

    if (blocks > INT_MAX) return ls_fail(LS_ECOMM, "a message of %zu bytes is too large", bytes);
    const int lengths[2] = {(int)blocks, (int)(bytes % BLOCK_BYTES)};
    const MPI_Aint places[2] = {0, (MPI_Aint)(blocks * BLOCK_BYTES)};

    LS_TRY(checked(MPI_Type_contiguous((int)BLOCK_BYTES, MPI_BYTE, &block), "making a block type"));
    const MPI_Datatype parts[2] = {block, MPI_BYTE};

    code = MPI_Type_create_struct(2, lengths, places, parts, out);
    MPI_Type_free(&block);
    LS_TRY(checked(code, "making a type of %zu bytes", bytes));
    return checked(MPI_Type_commit(out), "making a type of %zu bytes", bytes);
}

static ls_status payload_init(struct payload *out, size_t bytes)
{
    if (bytes <= INT_MAX) {
        *out = (struct payload){.count = (int)bytes, .type = MPI_BYTE};
        return LS_OK;
    }
    out->count = 1;
    return make_large_type(&out->type, bytes);
}

/* Messages under way keep what they need of the type. */
static void payload_fini(struct payload *payload)
{
    if (payload->type != MPI_BYTE) MPI_Type_free(&payload->type);
}

static void group_free(struct mpi_group *group)
{
    if (group == NULL) return;
    free(group->fold);
    free(group->slices);
    free(group);
}

/* NULL without memory. */
static struct mpi_group *group_allocate(int size)
{
    struct mpi_group *group = calloc(1, sizeof(*group));

    if (group == NULL) return NULL;
    group->slice_width = SCATTER_WIDTH / size + 1;
    group->fold = malloc(sizeof(*group->fold) * (size_t)size * FOLD_WIDTH);
    group->slices = malloc(sizeof(*group->slices) * (size_t)size * (size_t)group->slice_width);
    if (group->fold != NULL && group->slices != NULL) return group;
    group_free(group);
    return NULL;
}

/* Collective over from. */
static ls_status group_create(struct mpi_group **out, MPI_Comm from)
{
    int rank, size, everybody, code;
    struct mpi_group *group;
    MPI_Comm comm;

    LS_TRY(checked(MPI_Comm_dup(from, &comm), "duplicating a communicator"));
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    group = group_allocate(size);
    everybody = group != NULL;
    code = MPI_Allreduce(MPI_IN_PLACE, &everybody, 1, MPI_INT, MPI_LAND, comm);
    if (code == MPI_SUCCESS && everybody) {
        group->comm = comm;
        group->rank = rank;
        group->size = size;
        *out = group;
        return LS_OK;
    }
    group_free(group);
    MPI_Comm_free(&comm);
    LS_TRY(checked(code, "making a group of %d ranks", size));
    return ls_fail(LS_ENOMEM, "no memory for a group of %d ranks", size);
}

static void destroy(void *self)
{
    struct mpi_group *group = self;

    MPI_Comm_free(&group->comm);
    group_free(group);
}

static ls_status duplicate(void **out, void *self)
{
    const struct mpi_group *group = self;
    struct mpi_group *copy;

    LS_TRY(group_create(&copy, group->comm));
    copy->node_size = group->node_size;
    copy->node_run = group->node_run;
    *out = copy;
    return LS_OK;
}

/* A request is a pointer in Open MPI and an int in MPICH; no active one is all zero bits. */
_Static_assert(sizeof(MPI_Request) <= sizeof(uintptr_t), "a request must hold an MPI_Request");

static struct ls_request pack_request(MPI_Request request)
{
    struct ls_request packed = {0};

    if (request != MPI_REQUEST_NULL) memcpy(&packed.handle, &request, sizeof(request));
    return packed;
}

static MPI_Request unpack_request(struct ls_request packed)
{
    MPI_Request request = MPI_REQUEST_NULL;

    if (packed.handle != 0) memcpy(&request, &packed.handle, sizeof(request));
    return request;
}

static ls_status send(struct ls_request *out, void *self, const void *in, size_t bytes, int to,
                      int tag)
{
    const struct mpi_group *group = self;
    struct payload payload;
    MPI_Request request;
    int code;

    LS_TRY(payload_init(&payload, bytes));
    code = MPI_Isend(in, payload.count, payload.type, to, tag, group->comm, &request);
    payload_fini(&payload);
    LS_TRY(checked(code, "sending %zu bytes to rank %d, tag %d", bytes, to, tag));
    *out = pack_request(request);
    return LS_OK;
}

static ls_status receive(struct ls_request *out, void *self, void *into, size_t bytes, int from,
                         int tag)
{
    const struct mpi_group *group = self;
    struct payload payload;
    MPI_Request request;
    int code;

    LS_TRY(payload_init(&payload, bytes));
    code = MPI_Irecv(into, payload.count, payload.type, from, tag, group->comm, &request);
    payload_fini(&payload);
    LS_TRY(checked(code, "receiving %zu bytes from rank %d, tag %d", bytes, from, tag));
    *out = pack_request(request);
    return LS_OK;
}

/* What MPI says of a message that failed on its way; of a send it need not know the peer. */
static ls_status check_completion(int code, const MPI_Status *status)
{
    if (status->MPI_SOURCE < 0) return checked(code, "completing a message");
    return checked(code, "completing a message with rank %d, tag %d", status->MPI_SOURCE,
                   status->MPI_TAG);
}

static ls_status test(bool *done, void *self, struct ls_request *requests, int n)
{
    bool all = true;

    (void)self;
    for (int i = 0; i < n; i++) {
        MPI_Request request = unpack_request(requests[i]);
        MPI_Status status = {.MPI_SOURCE = MPI_ANY_SOURCE};
        int complete;
        const int code = MPI_Test(&request, &complete, &status);

        requests[i] = pack_request(request);
        LS_TRY(check_completion(code, &status));
        all = all && complete;
    }
    *done = all;
    return LS_OK;
}

static ls_status wait(void *self, struct ls_request *requests, int n)
{
    (void)self;
    for (int i = 0; i < n; i++) {
        MPI_Request request = unpack_request(requests[i]);
        MPI_Status status = {.MPI_SOURCE = MPI_ANY_SOURCE};
        const int code = MPI_Wait(&request, &status);

        requests[i] = pack_request(request);
        LS_TRY(check_completion(code, &status));
    }
    return LS_OK;
}

static ls_status barrier(void *self)
{
    const struct mpi_group *group = self;

    return checked(MPI_Barrier(group->comm), "barrier");
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
static ls_status reduce(double *values, void *self, int n, ls_reduction how)
{
    struct mpi_group *group = self;

    for (int first = 0; first < n; first += FOLD_WIDTH) {
        const int width = n - first < FOLD_WIDTH ? n - first : FOLD_WIDTH;

        LS_TRY(checked(MPI_Allgather(values + first, width, MPI_DOUBLE, group->fold, width,
                                     MPI_DOUBLE, group->comm),
                       "reducing %d values", n));
        for (int i = 0; i < width; i++) {
            double folded = group->fold[i];

            for (int r = 1; r < group->size; r++)
                folded = combine(folded, group->fold[r * width + i], how);
            values[first + i] = folded;
        }
    }
    return LS_OK;
}

static ls_status broadcast(void *bytes, void *self, size_t n, int root)
{
    const struct mpi_group *group = self;
    struct payload payload;
    int code;

    LS_TRY(payload_init(&payload, n));
    code = MPI_Bcast(bytes, payload.count, payload.type, root, group->comm);
    payload_fini(&payload);
    return checked(code, "broadcasting %zu bytes from rank %d", n, root);
}

static ls_status gather(void *out, void *self, const void *in, size_t bytes)
{
    const struct mpi_group *group = self;
    struct payload payload;
    int code;

    LS_TRY(payload_init(&payload, bytes));
    code = MPI_Allgather(in, payload.count, payload.type, out, payload.count, payload.type,
                         group->comm);
    payload_fini(&payload);
    return checked(code, "gathering %zu bytes of each of %d ranks", bytes, group->size);
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

static ls_status all_reduce(float *values, void *self, int64_t n, ls_reduction how)
{
    const struct mpi_group *group = self;
    ls_status status = LS_OK;
    MPI_Op op = MPI_SUM;

    if (how != LS_REDUCE_SUM)
        LS_TRY(checked(MPI_Op_create(how == LS_REDUCE_MAX ? keep_larger : keep_smaller, 1, &op),
                       "making a reduction"));
    for (int64_t first = 0; status == LS_OK && first < n; first += REDUCE_WIDTH) {
        const int width = (int)(n - first < REDUCE_WIDTH ? n - first : REDUCE_WIDTH);

        status =
            checked(MPI_Allreduce(MPI_IN_PLACE, values + first, width, MPI_FLOAT, op, group->comm),
                    "reducing %" PRId64 " values over %d ranks", n, group->size);
    }
    if (op != MPI_SUM) MPI_Op_free(&op);
    return status;
}

/* Fills slices [p, width] with what every rank has for this one: `in` is the first of [p, n]
 * floats, of each row `width` are taken. */
static ls_status exchange_slices(const struct mpi_group *group, const float *in, int64_t n,
                                 int width)
{
    MPI_Datatype slice, spaced;
    int code;

    LS_TRY(checked(MPI_Type_contiguous(width, MPI_FLOAT, &slice), "making a slice type"));
    code = MPI_Type_create_resized(slice, 0, (MPI_Aint)(n * (int64_t)sizeof(float)), &spaced);
    MPI_Type_free(&slice);
    LS_TRY(checked(code, "making a slice type"));
    code = MPI_Type_commit(&spaced);
    if (code == MPI_SUCCESS)
        code = MPI_Alltoall(in, 1, spaced, group->slices, width, MPI_FLOAT, group->comm);
    MPI_Type_free(&spaced);
    return checked(code, "exchanging [%d, %" PRId64 "] values", group->size, n);
}

/* By slices, in the order of ranks: Open MPI's own takes up to twice the time, and memory of the
 * size of the input. */
static ls_status reduce_scatter(float *out, void *self, const float *in, int64_t n)
{
    const struct mpi_group *group = self;

    for (int64_t first = 0; first < n; first += group->slice_width) {
        const int width = (int)(n - first < group->slice_width ? n - first : group->slice_width);

        LS_TRY(exchange_slices(group, in + first, n, width));
        memcpy(out + first, group->slices, sizeof(float) * (size_t)width);
        for (int r = 1; r < group->size; r++)
            LS_TRY(checked(MPI_Reduce_local(group->slices + (int64_t)r * width, out + first, width,
                                            MPI_FLOAT, MPI_SUM),
                           "summing %d values", width));
    }
    return LS_OK;
}

static ls_status all_to_all(void *out, void *self, const void *in, size_t bytes)
{
    const struct mpi_group *group = self;
    struct payload payload;
    int code;

    LS_TRY(payload_init(&payload, bytes));
    code = MPI_Alltoall(in, payload.count, payload.type, out, payload.count, payload.type,
                        group->comm);
    payload_fini(&payload);
    return checked(code, "exchanging %zu bytes with each of %d ranks", bytes, group->size);
}

static int node_size(void *self)
{
    const struct mpi_group *group = self;

    return group->node_size;
}

static int node_run(void *self)
{
    const struct mpi_group *group = self;

    return group->node_run;
}

static const struct ls_comm_ops mpi_ops = {
    .name = "mpi",
    .duplicate = duplicate,
    .destroy = destroy,
    .send = send,
    .receive = receive,
    .test = test,
    .wait = wait,
    .barrier = barrier,
    .reduce = reduce,
    .broadcast = broadcast,
    .gather = gather,
    .all_reduce = all_reduce,
    .reduce_scatter = reduce_scatter,
    .all_to_all = all_to_all,
    .node_size = node_size,
    .node_run = node_run,
};

/* What can be said before the ranks talk to each other. */
static ls_status check_communicator(MPI_Comm comm)
{
    int initialized, finalized, inter;

    MPI_Initialized(&initialized);
    if (!initialized)
        return ls_fail(LS_EVALUE, "MPI is not initialised: call MPI_Init_thread first");
    MPI_Finalized(&finalized);
    if (finalized) return ls_fail(LS_EVALUE, "MPI is finalised already");
    if (comm == MPI_COMM_NULL) return ls_fail(LS_EVALUE, "the communicator is MPI_COMM_NULL");
    LS_TRY(checked(MPI_Comm_test_inter(comm, &inter), "looking at a communicator"));
    if (inter) return ls_fail(LS_EVALUE, "the communicator is an inter-communicator");
    return LS_OK;
}

static ls_status check_thread_level(void)
{
    int level;

    LS_TRY(checked(MPI_Query_thread(&level), "asking for the thread level"));
    if (level < MPI_THREAD_FUNNELED)
        return ls_fail(LS_EVALUE, "MPI runs with MPI_THREAD_SINGLE, but the kernels use threads: "
                                  "call MPI_Init_thread with MPI_THREAD_FUNNELED or higher");
    return LS_OK;
}

/* Whether the ranks of this node follow each other and begin where one of these nodes can. */
static ls_status is_run(int *out, MPI_Comm node, int rank)
{
    int size, ends[2] = {rank, -rank};

    MPI_Comm_size(node, &size);
    LS_TRY(checked(MPI_Allreduce(MPI_IN_PLACE, ends, 2, MPI_INT, MPI_MIN, node),
                   "comparing the ranks of this node"));
    const int first = ends[0], last = -ends[1];
    *out = last - first == size - 1 && first % size == 0;
    return LS_OK;
}

static ls_status find_node_run(struct mpi_group *group, MPI_Comm node)
{
    int run = 0;

    LS_TRY(is_run(&run, node, group->rank));
    int least[3] = {run, group->node_size, -group->node_size};
    LS_TRY(checked(MPI_Allreduce(MPI_IN_PLACE, least, 3, MPI_INT, MPI_MIN, group->comm),
                   "comparing nodes"));
    group->node_run = least[0] && least[1] == -least[2] ? group->node_size : 0;
    return LS_OK;
}

static ls_status find_node(struct mpi_group *group)
{
    MPI_Comm node;

    LS_TRY(checked(MPI_Comm_split_type(group->comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node),
                   "looking for the ranks of this node"));
    MPI_Comm_size(node, &group->node_size);
    const ls_status status = find_node_run(group, node);
    MPI_Comm_free(&node);
    return status;
}

ls_status ls_comm_create_mpi(struct ls_comm **out, MPI_Comm comm)
{
    struct mpi_group *group;
    struct ls_comm *created;
    ls_status status;

    LS_TRY(check_communicator(comm));
    LS_TRY(group_create(&group, comm));
    LS_TRY(ls_comm_create(&created, &mpi_ops, group, group->rank, group->size));
    LS_TRY_GOTO(status, ls_comm_agree(created, check_thread_level()), destroy);
    LS_TRY_GOTO(status, ls_comm_agree(created, find_node(group)), destroy);
    *out = created;
    return LS_OK;
destroy:
    ls_comm_destroy(created);
    return status;
}
