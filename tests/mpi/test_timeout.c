/* With a timeout, nobody waits for a rank that is silent, whatever it waits in; one that is only
 * slow is waited for. */
#include "gradients.h"

#include <unistd.h>

#include "base/profile.h"
#include "comm/transport.h"
#include "device/gradient.h"

MPI_SUITE(timeout)

#define AT_ONCE 0.5 /* seconds: well under one, though ranks take turns on few cores */

/* Of more ranks in a ring, some would wait for one that has given up. */
static bool all_wait_for_one(void)
{
    return size == 2 || size == 3;
}

/* Collective. A group of all ranks that wait for a second. */
static struct ls_comm *impatient(void)
{
    struct ls_comm *comm;

    MPI_CHECK_OK(ls_comm_create_mpi(&comm, MPI_COMM_WORLD));
    MPI_CHECK_OK(ls_comm_set_timeout(comm, 1));
    return comm;
}

/* Collective. Rank 1 has stayed away; the others leave the group behind. */
static void check_left(struct ls_comm *comm, ls_status status, double seconds, const char *what)
{
    char silent[64], message[1024] = "";
    const double since = ls_now();
    bool again = rank == 1;

    snprintf(silent, sizeof silent, "rank %d waits", rank);
    snprintf(message, sizeof message, "%s", ls_message());
    if (rank != 1) {
        again = ls_comm_barrier(comm) == LS_ECOMM && strcmp(ls_message(), message) == 0;
        ls_comm_destroy(comm);
    }
    const double leaving = ls_now() - since;

    MPI_CHECK(rank == 1 || status == LS_ECOMM, "%s: %s", what, ls_status_name(status));
    MPI_CHECK(rank == 1 || strstr(message, silent), "%s: %s", what, message);
    MPI_CHECK(rank == 1 || strstr(message, "for rank 1, of which"), "%s: %s", what, message);
    MPI_CHECK(rank == 1 || seconds > AT_ONCE, "%s: after %g s", what, seconds);
    MPI_CHECK(again, "%s: the next time: %s", what, ls_message());
    MPI_CHECK(leaving < AT_ONCE, "%s: leaving took %g s", what, leaving);
}

/* ---- everything that waits */

static char from[1 << 16], into[1 << 20];

typedef void add_to(struct ls_batch *batch);

/* A batch of one message or one collective operation. */
static ls_status run(struct ls_comm *comm, add_to *add)
{
    struct ls_traffic traffic = {0};
    const struct ls_transport transport = ls_transport_of(comm, &traffic);
    struct ls_batch batch;

    LS_TRY(ls_batch_init_collective(&batch, &transport));
    add(&batch);
    return ls_batch_run(&batch); /* MPI may still write to what it holds */
}

static void add_receive(struct ls_batch *batch)
{
    ls_batch_receive(batch, into, sizeof from, 1);
}

/* More than MPI sends before the other side asks for it. */
static void add_send(struct ls_batch *batch)
{
    ls_batch_send(batch, from, sizeof from, 1);
}

static void add_all_reduce(struct ls_batch *batch)
{
    ls_batch_all_reduce(batch, into, LS_F32, 1000, LS_REDUCE_SUM);
}

static void add_all_to_all(struct ls_batch *batch)
{
    ls_batch_all_to_all(batch, into, from, 100);
}

static ls_status receive(struct ls_comm *comm)
{
    return run(comm, add_receive);
}

static ls_status send(struct ls_comm *comm)
{
    return run(comm, add_send);
}

static ls_status all_reduce(struct ls_comm *comm)
{
    return run(comm, add_all_reduce);
}

static ls_status all_to_all(struct ls_comm *comm)
{
    return run(comm, add_all_to_all);
}

static ls_status reduce(struct ls_comm *comm)
{
    double values[2] = {0, 0};

    return ls_comm_reduce(values, comm, 2, LS_REDUCE_SUM);
}

static ls_status broadcast(struct ls_comm *comm)
{
    return ls_comm_broadcast(into, comm, sizeof from, 1);
}

static ls_status gather(struct ls_comm *comm)
{
    return ls_comm_gather(into, comm, from, 100);
}

static ls_status split(struct ls_comm *comm)
{
    struct ls_comm *alone;

    return ls_comm_split(&alone, comm, &rank, 1);
}

static ls_status duplicate(struct ls_comm *comm)
{
    struct ls_comm *copy;

    return ls_comm_duplicate(&copy, comm);
}

static const struct {
    const char *name;
    ls_status (*run)(struct ls_comm *comm);
} waits[] = {
    {"receive", receive},         {"send", send},
    {"barrier", ls_comm_barrier}, {"reduce", reduce},
    {"broadcast", broadcast},     {"gather", gather},
    {"all-reduce", all_reduce},   {"all-to-all", all_to_all},
    {"duplicate", duplicate},     {"split", split},
};

MPI_TEST(timeout, whatever_waits_gives_up)
{
    if (!all_wait_for_one()) MPI_SKIP("this is tried on 2 and 3 ranks");
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        struct ls_comm *comm = impatient();
        const double since = ls_now();
        const ls_status status = rank == 1 ? LS_OK : waits[i].run(comm);

        check_left(comm, status, ls_now() - since, waits[i].name);
    }
}

/* ---- a kernel that never ends, and one that is slow */

static bool is_over(void)
{
    int over;

    MPI_Iprobe(0, 0, MPI_COMM_WORLD, &over, MPI_STATUS_IGNORE);
    return over;
}

static ls_status attend_without_end(struct ls_queue *queue, struct ls_attention_kernel *kernel,
                                    const struct ls_kernel_call *call)
{
    (void)queue, (void)kernel, (void)call;
    while (!is_over()) usleep(1000);
    return LS_OK;
}

static struct descent job_of(const char *method)
{
    struct descent g = {.job = {.shape = {1, size, size, 300 * size, 300 * size, 16, LS_F32, 0},
                                .options = LS_ATTENTION_OPTIONS}};

    g.job.options.method = method;
    g.job.options.threads = 1;
    g.job.options.backward = true;
    return g;
}

/* The other ranks tell the first, which tells rank 1, when they are through. */
static void end_the_kernel(void)
{
    char nothing = 0;

    for (int r = 0; r < size && rank == 0; r++)
        if (r > 1) MPI_Recv(&nothing, 1, MPI_CHAR, r, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (rank > 1) MPI_Send(&nothing, 1, MPI_CHAR, 0, 1, MPI_COMM_WORLD);
    if (rank == 0) MPI_Send(&nothing, 1, MPI_CHAR, 1, 0, MPI_COMM_WORLD);
    if (rank == 1) MPI_Recv(&nothing, 1, MPI_CHAR, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

MPI_TEST(timeout, a_kernel_without_end_is_noticed)
{
    if (!all_wait_for_one()) MPI_SKIP("this is tried on 2 and 3 ranks");
    struct ls_comm *comm = impatient();
    struct descent g = job_of("ring");

    descent_create_whole(&g, 1);
    descent_create_plan(&g, comm);
    struct ls_attention_plan *plan = g.job.plan;
    struct ls_device_ops ops = *plan->problem.device->ops;
    struct ls_attention_ops endless = *ops.attention;

    endless.attend = attend_without_end;
    ops.attention = &endless;
    if (rank == 1) plan->problem.device->ops = &ops;
    descent_load(&g);
    const double since = ls_now();
    const ls_status status = descent_forward(&g);
    const double seconds = ls_now() - since;
    char message[1024];

    snprintf(message, sizeof message, "%s", ls_message());
    end_the_kernel();
    const double before = ls_now();
    if (rank != 1) ls_attention_plan_destroy(plan);
    const double leaving = ls_now() - before;

    MPI_CHECK(rank == 1 || strstr(message, " waits in ring forward, step "), "%s", message);
    MPI_CHECK(leaving < AT_ONCE, "destroying the plan took %g s", leaving);
    ls_fail(LS_ECOMM, "%s", message);
    check_left(comm, status, seconds, "ring forward");
}

static const struct ls_device_ops *real;

/* As a kernel that works for longer than the others wait. */
static void dawdle(struct ls_progress progress)
{
    for (int i = 0; i < 1000; i++) {
        usleep(2000);
        if (progress.call) progress.call(progress.context);
    }
}

static ls_status attend_slowly(struct ls_queue *queue, struct ls_attention_kernel *kernel,
                               const struct ls_kernel_call *call)
{
    dawdle(queue->progress);
    return real->attention->attend(queue, kernel, call);
}

static ls_status gradient_slowly(struct ls_queue *queue, struct ls_gradient_kernel *kernel,
                                 const struct ls_gradient_call *call)
{
    dawdle(queue->progress);
    return real->gradient->compute(queue, kernel, call);
}

/* ulysses has nothing to move while its one kernel works. */
MPI_TEST(timeout, a_slow_kernel_is_waited_for)
{
    if (size < 2) MPI_SKIP("this needs two ranks");
    struct ls_comm *comm = impatient();
    struct descent g = job_of("ulysses");

    descent_create_whole(&g, 1);
    descent_create_plan(&g, comm);
    struct ls_attention_plan *plan = g.job.plan;
    struct ls_device_ops slow = *(real = plan->problem.device->ops);
    struct ls_attention_ops slow_attention = *slow.attention;
    struct ls_gradient_ops slow_gradient = *slow.gradient;

    slow_attention.attend = attend_slowly;
    slow_gradient.compute = gradient_slowly;
    slow.attention = &slow_attention;
    slow.gradient = &slow_gradient;
    if (rank == 1) plan->problem.device->ops = &slow;
    descent_run(&g);
    descent_destroy_plan(&g);
    descent_destroy_whole(&g);
    ls_comm_destroy(comm);
}

/* What two of three ranks or more do together does not need the others, who are away for longer
 * than they would be waited for. */
MPI_TEST(timeout, a_sub_group_does_not_wait_for_the_rest)
{
    if (size < 3) MPI_SKIP("this needs three ranks");
    struct ls_comm *comm = impatient(), *some;
    int list[64], count = 0;
    double until = ls_now() + 2.5;
    ls_status status = LS_OK;

    for (int r = rank < 2 ? 0 : 2; r < (rank < 2 ? 2 : size); r++) list[count++] = r;
    MPI_CHECK_OK(ls_comm_split(&some, comm, list, count));
    MPI_CHECK_OK(ls_comm_reduce(&until, some, 1, LS_REDUCE_MIN));
    if (rank >= 2) usleep(2500000);
    for (double now = 0; rank < 2 && status == LS_OK && now < until;) {
        now = ls_now();
        status = ls_comm_reduce(&now, some, 1, LS_REDUCE_MIN); /* so that both end alike */
    }
    MPI_CHECK_OK(status);
    ls_comm_destroy(some);
    ls_comm_destroy(comm);
}

/* Some of eight ranks hear of the busy one from others only. */
MPI_TEST(timeout, a_busy_rank_is_waited_for_by_all)
{
    struct ls_comm *comm = impatient();
    ls_status status = LS_OK;

    for (int i = 0; i < 1000 && rank == 1 && status == LS_OK; i++) {
        usleep(2000);
        status = ls_comm_beat(comm);
    }
    MPI_CHECK_OK(status == LS_OK ? ls_comm_barrier(comm) : status);
    ls_comm_destroy(comm);
}

/* ---- its value */

MPI_TEST(timeout, is_a_number_of_seconds_that_all_ranks_agree_on)
{
    struct ls_comm *copy;

    check_failure(ls_comm_set_timeout(world, -1), LS_EVALUE, "-1 s", "negative");
    if (size > 1)
        MPI_CHECK(ls_comm_set_timeout(world, rank) == LS_EVALUE, "one of each rank's own");
    MPI_CHECK_OK(ls_comm_set_timeout(world, 1));
    MPI_CHECK_OK(ls_comm_duplicate(&copy, world));
    MPI_CHECK(ls_comm_has_timeout(copy), "of a duplicate");
    MPI_CHECK_OK(ls_comm_set_timeout(world, 0));
    MPI_CHECK(!ls_comm_has_timeout(world) && ls_comm_has_timeout(copy), "after 0");
    if (rank == 0) usleep(1500000);
    MPI_CHECK_OK(ls_comm_barrier(world));
    ls_comm_destroy(copy);
}
