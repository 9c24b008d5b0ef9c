/* The program: runs a subcommand on every rank and turns its status into an exit status. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/signals.h"
#include "comm/comm.h"
#include "config.h"

static const struct cli_command commands[] = {
    {"attend", "exact attention over a sequence split over ranks", cli_attend},
    {"check", "judge any program's result by the oracle and the contract", cli_check},
    {"bench", "speed of matrix products (gemm), attention (attend), communication (comm)",
     cli_bench},
    {"plan", "bytes, flops and memory of every method, from shapes alone", cli_plan},
    {"methods", "the ways to compute over several ranks", cli_methods},
    {"info", "this machine as Longspan sees it", cli_info},
};

static const struct cli_menu menu = {
    .head = "       mpirun -n P longspan COMMAND [OPTION...]\n\n"
            "Exact attention over sequences that span many ranks, with an oracle built in.\n",
    .tail = ";\n`longspan --version` prints the version. Exit status: 0 done, 1 a check did not\n"
            "hold, 2 bad usage or input (nothing was written), 3 failure while running",
    .commands = commands,
    .count = sizeof(commands) / sizeof(commands[0]),
};

static ls_status run(bool *held, struct cli_world *world, int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--version") != 0)
        return cli_menu_run(held, world, &menu, argc, argv);
    if (world->rank == 0) printf("longspan %s\n", PACKAGE_VERSION);
    return LS_OK;
}

/* What the shell was promised on stdout must have arrived there. */
static ls_status flush_results(const struct cli_world *world)
{
    const bool lost = fflush(stdout) != 0 || ferror(stdout);

    if (world->rank == 0 && lost) return ls_fail(LS_EIO, "cannot write to standard output: %m");
    return LS_OK;
}

static int exit_status(ls_status status, bool held)
{
    if (status == LS_OK) return held ? CLI_DONE : CLI_NOT_HELD;
    return ls_status_is_input(status) ? CLI_BAD_INPUT : CLI_FAILED;
}

int main(int argc, char **argv)
{
    struct cli_world world;
    bool held = true;
    ls_status status = cli_world_init(&world, &argc, &argv);

    cli_signals_init(&world);
    if (status == LS_OK) status = cli_world_agree(&world, argc, argv);
    if (status == LS_OK) status = run(&held, &world, argc, argv);
    if (status == LS_OK) status = ls_comm_barrier(world.comm); /* MPI_Finalize waits for ever */
    if (status == LS_OK) status = flush_results(&world);
    if (status != LS_OK && (world.rank == 0 || status == LS_ECOMM)) /* then ranks know no others' */
        fprintf(stderr, "%s: %s\n", world.program, ls_message());
    cli_signals_fini();
    cli_world_fini(&world, status, exit_status(status, held));
    return exit_status(status, held);
}
