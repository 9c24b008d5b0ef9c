#include "cli/world.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "cli/mpi_start.h"
#include "comm/comm.h"
#include "config.h"

/* Where launchers say how many processes they started; the first that is set is of the nearest one,
 * as srun may have started an mpirun. */
static const char *const launcher_counts[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
                                              "SLURM_STEP_NUM_TASKS"};

/* How many processes were started with this one, as far as is known; `name` says so. */
static int launched_processes(const char **name)
{
    for (size_t i = 0; i < sizeof launcher_counts / sizeof *launcher_counts; i++) {
        const char *count = getenv(launcher_counts[i]);

        *name = launcher_counts[i];
        if (count) return atoi(count);
    }
    return 1;
}

static bool wanted_single(void)
{
    const char *single = getenv("LONGSPAN_SINGLE");

    return single && strcmp(single, "1") == 0;
}

/* A step of a single SLURM task is treated as a process on its own unless it brings PMI. Of several
 * tasks without, Open MPI knows nothing and ends them; an MPI that uses SLURM's PMI-1 needs no
 * variables. */
static bool slurm_step_of_several(void)
{
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS");
    char mpi[256];

    cli_mpi_version(mpi, sizeof mpi);
    return getenv("SLURM_PROCID") && getenv("SLURM_STEP_ID") && tasks && atoi(tasks) > 1 &&
           strncmp(mpi, "Open MPI", strlen("Open MPI")) != 0;
}

static bool launched(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") || getenv("PMI_RANK") ||
           getenv("PMI_PORT") || slurm_step_of_several();
}

ls_status cli_world_init(struct cli_world *world, int *argc, char ***argv)
{
    *world = (struct cli_world){.size = 1, .program = "longspan"};
    if (launched() && !wanted_single())
        LS_TRY(cli_mpi_start(&world->comm, &world->rank, argc, argv));
    else
        LS_TRY(ls_comm_create_self(&world->comm));
    world->rank = ls_comm_rank(world->comm);
    world->size = ls_comm_size(world->comm);
    return LS_OK;
}

/* How a rank was started. */
struct start {
    uint64_t hash;  /* of all arguments */
    char text[400]; /* program and arguments in one line, as far as there is room */
};

static uint64_t hash_arguments(int argc, char **argv)
{
    uint64_t hash = 0;

    for (int i = 1; i < argc; i++) hash = XXH3_64bits_withSeed(argv[i], strlen(argv[i]) + 1, hash);
    return hash;
}

static void describe_start(char *out, size_t length, int argc, char **argv)
{
    struct stat program = {0};
    size_t used;

    stat("/proc/self/exe", &program); /* 0 bytes where there is no such name */
    used = (size_t)snprintf(out, length, "longspan %s (%ld bytes)", PACKAGE_VERSION,
                            (long)program.st_size);
    for (int i = 1; i < argc && used < length; i++)
        used += (size_t)snprintf(out + used, length - used, " %s", argv[i]);
}

ls_status cli_world_agree(const struct cli_world *world, int argc, char **argv)
{
    struct start own = {.hash = hash_arguments(argc, argv)}, first;
    ls_status status = LS_OK;

    describe_start(own.text, sizeof own.text, argc, argv);
    first = own;
    LS_TRY(ls_comm_broadcast(&first, world->comm, sizeof first, 0));
    if (own.hash != first.hash || strcmp(own.text, first.text) != 0)
        status = ls_fail(LS_EVALUE, "it was started as `%s`, rank 0 as `%s`: start all ranks alike",
                         own.text, first.text);
    return ls_comm_agree(world->comm, status);
}

void cli_world_beat(const struct cli_world *world)
{
    ls_comm_beat(world->comm); /* whoever waits next hears of failures */
}

ls_status cli_world_complete(const struct cli_world *world)
{
    const char *name;
    const int processes = launched_processes(&name);
    char mpi[256];

    if (world->size > 1 || processes <= 1 || wanted_single()) return LS_OK;
    cli_mpi_version(mpi, sizeof mpi);
    return ls_fail(LS_EVALUE,
                   "%d processes were started (%s), but %s sees one, and each would compute "
                   "everything: %s, or set LONGSPAN_SINGLE=1 for runs on their own",
                   processes, name, mpi, cli_mpi_way_out);
}

void cli_world_fini(struct cli_world *world, ls_status status, int exit_status)
{
    if (status == LS_ECOMM) cli_mpi_abort(exit_status);
    ls_comm_destroy(world->comm);
    cli_mpi_end();
}
