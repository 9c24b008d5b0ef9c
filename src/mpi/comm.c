/* A group of ranks over MPI: how it is made, and its table of operations. */
#include <stdlib.h>

#include "mpi/group.h"

static void group_free(struct mpi_group *group)
{
    if (group == NULL) return;
    free(group->fold);
    free(group->watched);
    free(group);
}

/* NULL without memory. */
static struct mpi_group *group_allocate(int size)
{
    struct mpi_group *group = calloc(1, sizeof(*group));

    if (group == NULL) return NULL;
    group->fold = malloc(sizeof(*group->fold) * (size_t)size * FOLD_WIDTH);
    group->watched = malloc(sizeof(*group->watched) * (size_t)size);
    if (group->fold != NULL && group->watched != NULL) return group;
    group_free(group);
    return NULL;
}

/* What a group is made from: another one, or a communicator of ranks that are not watched. */
struct origin {
    MPI_Comm comm;
    struct mpi_watch *watch;
    struct mpi_ranks watched;
    struct mpi_ranks members; /* those that are in the new group, as comm numbers them; none: all */
};

static ls_status copy_communicator(MPI_Comm *out, const struct origin *from)
{
    MPI_Request request = MPI_REQUEST_NULL;
    const int code =
        from->watch ? MPI_Comm_idup(from->comm, out, &request) : MPI_Comm_dup(from->comm, out);

    LS_TRY(mpi_checked(code, "duplicating a communicator"));
    return mpi_watch_finish(from->watch, from->watched, request, 0);
}

/* There is no splitting that could give up: all ranks are known to be here first. */
static ls_status split_communicator(MPI_Comm *out, const struct origin *from)
{
    MPI_Request request = MPI_REQUEST_NULL;
    int rank, key = 0;

    if (from->watch)
        LS_TRY(mpi_checked(MPI_Ibarrier(from->comm, &request), "splitting a communicator"));
    LS_TRY(mpi_watch_finish(from->watch, from->watched, request, 0));
    MPI_Comm_rank(from->comm, &rank);
    while (from->members.rank[key] != rank) key++;
    return mpi_checked(MPI_Comm_split(from->comm, from->members.rank[0], key, out),
                       "splitting a communicator");
}

static ls_status make_communicator(MPI_Comm *out, const struct origin *from)
{
    LS_TRY(from->members.count > 0 ? split_communicator(out, from) : copy_communicator(out, from));
    return mpi_checked(MPI_Comm_set_errhandler(*out, MPI_ERRORS_RETURN), "making a communicator");
}

/* A rank without memory gives NULL, and all of them get a failure. */
static ls_status agree_on_memory(const struct mpi_group *group, MPI_Comm comm,
                                 const struct origin *from)
{
    MPI_Request request = MPI_REQUEST_NULL;
    int everybody = group != NULL, mine = everybody;
    const int code = from->watch
                         ? MPI_Iallreduce(&mine, &everybody, 1, MPI_INT, MPI_LAND, comm, &request)
                         : MPI_Allreduce(&mine, &everybody, 1, MPI_INT, MPI_LAND, comm);

    LS_TRY(mpi_checked(code, "making a group of ranks"));
    LS_TRY(mpi_watch_finish(from->watch, from->watched, request, sizeof mine));
    return everybody ? LS_OK : ls_fail(LS_ENOMEM, "no memory for a group of ranks");
}

/* The watch's number of a rank of the new group. */
static int watched_as(const struct origin *from, int r)
{
    const int before = from->members.count > 0 ? from->members.rank[r] : r;

    return from->watched.count > 0 ? from->watched.rank[before] : before;
}

/* Collective over from's ranks. */
static ls_status group_create(struct mpi_group **out, const struct origin *from)
{
    struct mpi_group *group;
    ls_status status;
    MPI_Comm comm;
    int size;

    LS_TRY(mpi_watch_status(from->watch));
    LS_TRY(make_communicator(&comm, from));
    MPI_Comm_size(comm, &size);
    group = group_allocate(size);
    LS_TRY_GOTO(status, agree_on_memory(group, comm, from), free_all);
    MPI_Comm_rank(comm, &group->rank);
    group->size = size;
    group->comm = comm;
    group->watch = mpi_watch_share(from->watch);
    for (int r = 0; r < size; r++) group->watched[r] = watched_as(from, r);
    *out = group;
    return LS_OK;
free_all:
    group_free(group);
    if (status != LS_ECOMM) MPI_Comm_free(&comm);
    return status;
}

static struct origin origin_of(const struct mpi_group *group)
{
    return (struct origin){
        .comm = group->comm, .watch = group->watch, .watched = group_watched(group)};
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

    const struct origin from = origin_of(group);

    LS_TRY(group_create(&copy, &from));
    copy->node_size = group->node_size;
    copy->node_run = group->node_run;
    *out = copy;
    return LS_OK;
}

static ls_status split(void **out, void *self, const int *ranks, int n)
{
    const struct mpi_group *group = self;
    struct mpi_group *some;

    struct origin from = origin_of(group);

    from.members = (struct mpi_ranks){ranks, n};
    LS_TRY(group_create(&some, &from));
    const ls_status status = find_node(some);

    if (status == LS_OK)
        *out = some;
    else
        destroy(some);
    return status;
}

static ls_status set_timeout(void *self, int seconds)
{
    struct mpi_group *group = self;

    mpi_watch_release(group->watch);
    group->watch = NULL;
    for (int r = 0; r < group->size; r++) group->watched[r] = r;
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

static ls_status beat(void *self)
{
    const struct mpi_group *group = self;

    return mpi_watch_beat(group->watch);
}

static const struct ls_transport_ops mpi_transport = {.name = "mpi",
                                                      .start = group_start,
                                                      .test = group_test,
                                                      .wait = group_wait,
                                                      .fold = ls_fold_on_host,
                                                      .copy = ls_copy_on_host,
                                                      .alloc = ls_alloc_on_host,
                                                      .free = ls_free_on_host};

static const struct ls_control_ops mpi_control = {
    .name = "mpi",
    .duplicate = duplicate,
    .split = split,
    .destroy = destroy,
    .set_timeout = set_timeout,
    .place = place,
    .beat = beat,
    .barrier = group_barrier,
    .reduce = group_reduce,
    .broadcast = group_broadcast,
    .gather = group_gather,
    .node_size = node_size,
    .node_run = node_run,
    .transport = &mpi_transport,
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

ls_status ls_comm_create_mpi(struct ls_comm **out, MPI_Comm comm)
{
    struct mpi_group *group;
    struct ls_comm *created;
    ls_status status;

    LS_TRY(check_communicator(comm));
    LS_TRY(group_create(&group, &(struct origin){.comm = comm}));
    LS_TRY(ls_comm_create(&created, &mpi_control, group, group->rank, group->size));
    LS_TRY_GOTO(status, ls_comm_agree(created, check_thread_level()), destroy);
    LS_TRY_GOTO(status, ls_comm_agree(created, find_node(group)), destroy);
    *out = created;
    return LS_OK;
destroy:
    ls_comm_destroy(created);
    return status;
}
