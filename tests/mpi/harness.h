/* What MPI tests share. A test runs on every rank. Ranks must fail together: one that left a test
 * alone would keep the others waiting until the timeout. So a test checks with MPI_CHECK, never
 * with a bare assertion. Starting MPI takes longer than most tests: an MPI_SUITE and its MPI_TESTs
 * start once for all of them (run_mpi.sh). A test that needs a process of its own is a Test of an
 * MPI_SUITE_APART. */
#ifndef TESTS_MPI_HARNESS_H
#define TESTS_MPI_HARNESS_H

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/comm.h"
#include "longspan/mpi.h"

/* All ranks, and this one's place among them. */
static struct ls_comm *world;
static int rank, size;

/* Ranks are more than cores here: one that waits sleeps a little, where Open MPI would ask for its
 * turn again at once (mpi_yield_when_idle). */
__attribute__((visibility("default"))) int sched_yield(void)
{
    return usleep(20);
}

/* Collective. Fails the test on every rank if cond is false on any; the rest is a printf format
 * with its values and names the case. Each rank must come by equally often. */
#define MPI_CHECK(cond, ...) mpi_check((cond), #cond, __FILE__, __LINE__, __VA_ARGS__)

__attribute__((format(printf, 5, 6))) static inline void
mpi_check(bool holds, const char *what, const char *file, int line, const char *format, ...)
{
    int everywhere = holds;
    char text[512];
    va_list values;

    MPI_Allreduce(MPI_IN_PLACE, &everywhere, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
    va_start(values, format);
    vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    cr_assert(everywhere, "%s:%d: rank %d: %s: %s", file, line, rank, what,
              holds ? "holds here, not on another rank" : text);
}

/* Collective: the call gives LS_OK on every rank. */
#define MPI_CHECK_OK(call) MPI_CHECK((call) == LS_OK, "%s", ls_message())

/* Ends the test here, aloud; all ranks must decide alike. Not cr_skip_test: a process that leaves
 * without MPI_Finalize is a failed job. */
#define MPI_SKIP(...)                                                                              \
    do {                                                                                           \
        if (rank == 0) fprintf(stderr, "SKIP " __VA_ARGS__), fputc('\n', stderr);                  \
        return;                                                                                    \
    } while (0)

/* Collective: every rank has this status, and the same message that tells of `what`. */
static inline void check_failure(ls_status status, ls_status expected, const char *what,
                                 const char *name)
{
    enum { LENGTH = 256 };
    char mine[LENGTH] = "", *all = malloc((size_t)size * LENGTH);
    bool same = true;

    snprintf(mine, sizeof(mine), "%s", ls_message());
    MPI_CHECK(status == expected, "%s: %s: %s", name, ls_status_name(status), mine);
    MPI_CHECK_OK(ls_comm_gather(all, world, mine, sizeof(mine)));
    for (int r = 0; r < size; r++) same &= strcmp(all + r * LENGTH, mine) == 0;
    MPI_CHECK(same, "%s: this rank says: %s", name, mine);
    MPI_CHECK(strstr(mine, what) != NULL, "%s: no word of \"%s\": %s", name, what, mine);
    free(all);
}

static inline void world_up(void)
{
    MPI_CHECK_OK(ls_comm_create_mpi(&world, MPI_COMM_WORLD));
    /* with and without; an adversary delays signs of life beyond measure */
    if (size % 2 == 1 && !getenv("LS_ADVERSARY_SEED"))
        MPI_CHECK_OK(ls_comm_set_timeout(world, 120));
}

static inline void mpi_up(void)
{
    int level;

    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (getenv("LS_TEST_RANKS")) /* else a launcher of another MPI makes worlds of one rank */
        cr_assert_eq(size, atoi(getenv("LS_TEST_RANKS")));
    world_up();
}

static inline void mpi_down(void)
{
    ls_comm_destroy(world);
    MPI_Finalize();
}

/* Below are the tests of one program, and how they run one after the other. */
struct mpi_test {
    const char *name;
    void (*run)(void);
};
static struct mpi_test mpi_tests[32];
static int mpi_test_count;

static inline void mpi_add_test(const char *name, void (*run)(void))
{
    if (mpi_test_count == sizeof mpi_tests / sizeof *mpi_tests) abort();
    mpi_tests[mpi_test_count++] = (struct mpi_test){name, run};
}

/* With a communicator of its own. */
static inline void mpi_run_test(const char *name)
{
    int i = 0;

    while (i < mpi_test_count && strcmp(mpi_tests[i].name, name) != 0) i++;
    MPI_CHECK(i < mpi_test_count, "there is no test %s", name);
    ls_comm_destroy(world);
    world_up();
    mpi_tests[i].run();
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) fprintf(stderr, "PASSED %s\n", name);
}

/* Those that LS_TESTS names, in its order. */
static inline void mpi_run_together(void)
{
    char *const names = strdup(getenv("LS_TESTS") ? getenv("LS_TESTS") : ""), *rest;

    for (char *name = strtok_r(names, " ", &rest); name; name = strtok_r(NULL, " ", &rest))
        mpi_run_test(name);
    free(names);
}

/* run_mpi.sh has the limit of time: tests may be many, and cases of the fuzz as many as one likes.
 */
#define MPI_SUITE_APART(name) TestSuite(name, .init = mpi_up, .fini = mpi_down, .timeout = 86400)

#define MPI_SUITE(name)                                                                            \
    MPI_SUITE_APART(name);                                                                         \
    Test(name, together)                                                                           \
    {                                                                                              \
        mpi_run_together();                                                                        \
    }

#define MPI_TEST(suite, name)                                                                      \
    static void suite##_##name(void);                                                              \
    __attribute__((constructor)) static void add_##suite##_##name(void)                            \
    {                                                                                              \
        mpi_add_test(#suite "/" #name, suite##_##name);                                            \
    }                                                                                              \
    Test(suite, name)                                                                              \
    {                                                                                              \
        suite##_##name();                                                                          \
    }                                                                                              \
    static void suite##_##name(void)

#endif
