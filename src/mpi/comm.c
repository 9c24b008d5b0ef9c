/* A group of ranks over MPI: how it is made, and its table of operations. */
#include <stdlib.h>

#include "mpi/group.h"

/* Floats of all ranks together that one step of a reduce-scatter exchanges: they stay in cache. */
#define SCATTER_WIDTH (1 << 18)

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

static ls_status copy_communicator(MPI_Comm *out, MPI_Comm from, struct mpi_watch *watch)
{
    MPI_Request request = MPI_REQUEST_NULL;
    const int code = watch ? MPI_Comm_idup(from, out, &request) : MPI_Comm_dup(from, out);

    LS_TRY(mpi_checked(code, "duplicating a communicator"));
    LS_TRY(mpi_watch_finish(watch, request, 0));
    return mpi_checked(MPI_Comm_set_errhandler(*out, MPI_ERRORS_RETURN),
                       "duplicating a communicator");
}

/* A rank without memory gives NULL, and all of them get a failure. */
static ls_status agree_on_memory(const struct mpi_group *group, MPI_Comm comm,
                                 struct mpi_watch *watch)
{
    MPI_Request request = MPI_REQUEST_NULL;
    int everybody = group != NULL, mine = everybody;
    const int code = watch ? MPI_Iallreduce(&mine, &everybody, 1, MPI_INT, MPI_LAND, comm, &request)
                           : MPI_Allreduce(&mine, &everybody, 1, MPI_INT, MPI_LAND, comm);

    LS_TRY(mpi_checked(code, "making a group of ranks"));
    LS_TRY(mpi_watch_finish(watch, request, sizeof mine));
    return everybody ? LS_OK : ls_fail(LS_ENOMEM, "no memory for a group of ranks");
}

/* Collective over from. */
static ls_status group_create(struct mpi_group **out, MPI_Comm from, struct mpi_watch *watch)
{
    struct mpi_group *group;
    ls_status status;
    MPI_Comm comm;
    int size;

    LS_TRY(mpi_watch_status(watch));
    LS_TRY(copy_communicator(&comm, from, watch));
    MPI_Comm_size(comm, &size);
    group = group_allocate(size);
    LS_TRY_GOTO(status, agree_on_memory(group, comm, watch), free_all);
    MPI_Comm_rank(comm, &group->rank);
    group->size = size;
    group->comm = comm;
    group->watch = mpi_watch_share(watch);
    *out = group;
    return LS_OK;
free_all:
    group_free(group);
    if (status != LS_ECOMM) MPI_Comm_free(&comm);
    return status;
}

static void destroy(void *self)
{
    struct mpi_group *group = self;
    const bool left = mpi_watch_status(group->watch) != LS_OK;

    mpi_watch_release(group->watch);
    if (left) return; /* MPI may still write to it */
    MPI_Comm_free(&group->comm);
    group_free(group);
}

static ls_status duplicate(void **out, void *self)
{
    const struct mpi_group *group = self;
    struct mpi_group *copy;

    LS_TRY(group_create(&copy, group->comm, group->watch));
    copy->node_size = group->node_size;
    copy->node_run = group->node_run;
    *out = copy;
    return LS_OK;
}

static ls_status set_timeout(void *self, int seconds)
{
    struct mpi_group *group = self;

    mpi_watch_release(group->watch);
    group->watch = NULL;
    return seconds > 0 ? mpi_watch_create(&group->watch, group->comm, seconds) : LS_OK;
}

static void place(void *self, const char *what, const char *how)
{
    const struct mpi_group *group = self;

    mpi_watch_place(group->watch, what, how);
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
    .set_timeout = set_timeout,
    .place = place,
    .send = group_send,
    .receive = group_receive,
    .test = group_test,
    .wait = group_wait,
    .barrier = group_barrier,
    .reduce = group_reduce,
    .broadcast = group_broadcast,
    .gather = group_gather,
    .all_reduce = group_all_reduce,
    .reduce_scatter = group_reduce_scatter,
    .all_to_all = group_all_to_all,
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
    LS_TRY(mpi_checked(MPI_Comm_test_inter(comm, &inter), "looking at a communicator"));
    if (inter) return ls_fail(LS_EVALUE, "the communicator is an inter-communicator");
    return LS_OK;
}

static ls_status check_thread_level(void)
{
    int level;

    LS_TRY(mpi_checked(MPI_Query_thread(&level), "asking for the thread level"));
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
    LS_TRY(mpi_checked(MPI_Allreduce(MPI_IN_PLACE, ends, 2, MPI_INT, MPI_MIN, node),
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
    LS_TRY(mpi_checked(MPI_Allreduce(MPI_IN_PLACE, least, 3, MPI_INT, MPI_MIN, group->comm),
                       "comparing nodes"));
    group->node_run = least[0] && least[1] == -least[2] ? group->node_size : 0;
    return LS_OK;
}

static ls_status find_node(struct mpi_group *group)
{
    MPI_Comm node;

    LS_TRY(
        mpi_checked(MPI_Comm_split_type(group->comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node),
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
    LS_TRY(group_create(&group, comm, NULL));
    LS_TRY(ls_comm_create(&created, &mpi_ops, group, group->rank, group->size));
    LS_TRY_GOTO(status, ls_comm_agree(created, check_thread_level()), destroy);
    LS_TRY_GOTO(status, ls_comm_agree(created, find_node(group)), destroy);
    *out = created;
    return LS_OK;
destroy:
    ls_comm_destroy(created);
    return status;
}
