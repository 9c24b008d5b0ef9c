/* What ls_comm_create_mpi asks of its caller, and what it leaves alone. */
#include "harness.h"

#include <string.h>

TestSuite(comm_caller, .timeout = 60);

Test(comm_caller, lends_a_communicator_that_stays_its_own, .init = mpi_up, .fini = mpi_down)
{
    MPI_Comm half, node;
    MPI_Errhandler handler;
    int half_rank, half_size, node_size, ranks = 1;

    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, -rank, &half);
    MPI_Comm_rank(half, &half_rank);
    MPI_Comm_size(half, &half_size);
    for (int i = 0; i < 50; i++) {
        struct ls_comm *group, *copy;
        double members = 1;

        MPI_CHECK_OK(ls_comm_create_mpi(&group, half));
        MPI_CHECK_OK(ls_comm_duplicate(&copy, group));
        MPI_CHECK(ls_comm_rank(copy) == half_rank && ls_comm_size(copy) == half_size, "copy");
        ls_comm_destroy(group);
        MPI_CHECK_OK(ls_comm_reduce(&members, copy, 1, LS_REDUCE_SUM));
        MPI_CHECK(members == half_size, "a copy without its original: %g", members);
        ls_comm_destroy(copy);
    }
    MPI_Comm_get_errhandler(half, &handler);
    MPI_CHECK(handler == MPI_ERRORS_ARE_FATAL, "the caller's error handler was changed");
    MPI_Allreduce(MPI_IN_PLACE, &ranks, 1, MPI_INT, MPI_SUM, half);
    MPI_CHECK(ranks == half_size, "the caller's communicator no longer works: %d", ranks);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    MPI_Comm_size(node, &node_size);
    MPI_CHECK(ls_comm_node_size(world) == node_size, "%d", ls_comm_node_size(world));
    MPI_CHECK(node_size < size || ls_comm_node_run(world) == size, "%d", ls_comm_node_run(world));
    MPI_Comm_free(&node);
    MPI_Comm_free(&half);
}

static void single_up(void)
{
    MPI_Init(NULL, NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
}

static void single_down(void)
{
    MPI_Finalize();
}

Test(comm_caller, must_have_initialised_mpi)
{
    struct ls_comm *group;

    cr_expect_eq(ls_comm_create_mpi(&group, MPI_COMM_WORLD), LS_EVALUE);
    cr_expect(strstr(ls_message(), "MPI_Init_thread") != NULL, "%s", ls_message());
}

Test(comm_caller, must_ask_for_a_thread_level, .init = single_up, .fini = single_down)
{
    struct ls_comm *group;
    int level;

    MPI_Query_thread(&level);
    if (level > MPI_THREAD_SINGLE) MPI_SKIP("MPI_Init gives thread level %d here", level);
    MPI_CHECK(ls_comm_create_mpi(&group, MPI_COMM_WORLD) == LS_EVALUE, "status");
    MPI_CHECK(strstr(ls_message(), "MPI_THREAD_FUNNELED") != NULL, "%s", ls_message());
}

Test(comm_caller, must_give_a_group_of_ranks, .init = single_up, .fini = single_down)
{
    struct ls_comm *group;

    MPI_CHECK(ls_comm_create_mpi(&group, MPI_COMM_NULL) == LS_EVALUE, "MPI_COMM_NULL");
    MPI_CHECK(strstr(ls_message(), "MPI_COMM_NULL") != NULL, "%s", ls_message());
}
