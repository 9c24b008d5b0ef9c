/* Nothing grows, however often a plan is executed and however many plans come and go: what the
 * ledger holds, the memory that is resident, the communicators. */
#include "attention.h"

#include <malloc.h>

#include "base/ledger.h"

MPI_SUITE(growth)

enum { BEFORE = 100 };

/* Ranks are more than cores here, and take turns. */
static int executions(void)
{
    return size == 1 ? 10000 : 2000;
}

static int plans(void)
{
    return size == 1 ? 1000 : 200;
}

/* ---- communicators, counted where they are made and freed */

static int communicators;

#define INSTEAD __attribute__((visibility("default")))

INSTEAD int MPI_Comm_dup(MPI_Comm from, MPI_Comm *out)
{
    communicators++;
    return PMPI_Comm_dup(from, out);
}

INSTEAD int MPI_Comm_idup(MPI_Comm from, MPI_Comm *out, MPI_Request *request)
{
    communicators++;
    return PMPI_Comm_idup(from, out, request);
}

INSTEAD int MPI_Comm_split(MPI_Comm from, int color, int key, MPI_Comm *out)
{
    communicators++;
    return PMPI_Comm_split(from, color, key, out);
}

INSTEAD int MPI_Comm_split_type(MPI_Comm from, int type, int key, MPI_Info info, MPI_Comm *out)
{
    communicators++;
    return PMPI_Comm_split_type(from, type, key, info, out);
}

INSTEAD int MPI_Comm_free(MPI_Comm *comm)
{
    communicators--;
    return PMPI_Comm_free(comm);
}

/* ---- what there is */

struct holdings {
    size_t ledger;
    long resident; /* bytes */
    int communicators;
};

/* What malloc keeps for later comes and goes, and is not counted. */
static struct holdings holdings(void)
{
    malloc_trim(0);
    struct holdings now = {.ledger = ls_ledger_live_total(&ls_host_ledger),
                           .communicators = communicators};
    FILE *file = fopen("/proc/self/statm", "r");
    const bool read = file && fscanf(file, "%*d %ld", &now.resident) == 1;

    MPI_CHECK(read, "no /proc/self/statm");
    fclose(file);
    now.resident *= sysconf(_SC_PAGESIZE);
    return now;
}

static void check_growth(const struct holdings *before, const struct job *job)
{
    const struct holdings now = holdings();
    const long grown = now.resident - before->resident;

    MPI_CHECK(now.ledger == before->ledger, "%s: the ledger, from %zu bytes to %zu", job_text(job),
              before->ledger, now.ledger);
    MPI_CHECK(now.communicators == before->communicators, "%s: communicators, from %d to %d",
              job_text(job), before->communicators, now.communicators);
    MPI_CHECK(grown < 1 << 20, "%s: resident memory, by %ld bytes", job_text(job), grown);
}

/* ---- executions, plans */

/* All keys travel, few are seen. */
static struct job job_of(const char *method)
{
    return (struct job){.shape = {1, 2, 2, 260, 260, 4, LS_F32, 0},
                        .options = {.size = sizeof(struct ls_attention_options),
                                    .method = method,
                                    .threads = 1,
                                    .causal = true,
                                    .has_window = true}};
}

static void execute(struct job *job, int times)
{
    ls_status status = LS_OK;

    while (times-- > 0 && status == LS_OK) status = job_forward(job);
    MPI_CHECK(status == LS_OK, "%s", ls_message());
}

MPI_TEST(growth, comes_of_no_execution)
{
    struct job job = job_of("ring");

    job_create(&job, world, 1);
    job_load(&job);
    execute(&job, BEFORE);
    const struct holdings before = holdings();
    execute(&job, executions());
    check_growth(&before, &job);
    job_destroy(&job);
}

static void make_plans(struct job *job, int times)
{
    while (times-- > 0) {
        job_create_plan(job, world);
        job_run(job);
        job_destroy_plan(job);
    }
}

/* With groups of some of the ranks, which swap and make rings. */
MPI_TEST(growth, comes_of_no_plan)
{
    struct job job = job_of("usp");

    job_create_whole(&job, 1);
    make_plans(&job, BEFORE);
    const struct holdings before = holdings();
    make_plans(&job, plans());
    check_growth(&before, &job);
    job_destroy_whole(&job);
}
