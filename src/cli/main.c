/* The program: finds the subcommand, runs it on every rank, turns its status into an exit status.
 */
#include <stdio.h>
#include <string.h>

#include "base/nearest.h"
#include "cli/command.h"
#include "config.h"

static const struct cli_command commands[] = {
    {"attend", "exact attention over a sequence split over ranks", cli_attend},
    {"check", "judge any program's result by the oracle and the contract", cli_check},
    {"bench", "speed of the matrix products (gemm) and of attention (attend)", cli_bench},
    {"plan", "bytes, flops and memory of every method, from shapes alone", cli_plan},
    {"methods", "the ways to compute over several ranks", cli_methods},
    {"info", "this machine as Longspan sees it", cli_info},
};

#define COMMANDS ((int)(sizeof(commands) / sizeof(commands[0])))

static void print_help(FILE *to)
{
    fprintf(to,
            "Usage: longspan COMMAND [OPTION...]\n"
            "       mpirun -n P longspan COMMAND [OPTION...]\n\n"
            "Exact attention over sequences that span many ranks, with an oracle built in.\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n`longspan COMMAND --help` lists the options of a command; `longspan --version`\n"
                "prints the version. Exit status: 0 done, 1 a check did not hold, 2 bad usage or\n"
                "input (nothing was written), 3 failure while running.\n");
}

static ls_status find_command(const struct cli_command **out, const char *name)
{
    const char *names[COMMANDS];

    for (int i = 0; i < COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(name, names[i]) == 0) {
            *out = &commands[i];
            return LS_OK;
        }
    }
    const char *nearest = ls_nearest(name, names, COMMANDS);
    if (nearest) return ls_fail(LS_EVALUE, "unknown command '%s'; is '%s' meant?", name, nearest);
    return ls_fail(LS_EVALUE, "unknown command '%s'; see longspan --help", name);
}

/* --help and --version in the place of a command; false if argument is neither. */
static bool answer(const struct cli_world *world, const char *argument)
{
    const bool help = strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
    const bool version = strcmp(argument, "--version") == 0;

    if (help && world->rank == 0) print_help(stdout);
    if (version && world->rank == 0) printf("longspan %s\n", PACKAGE_VERSION);
    return help || version;
}

static ls_status run(bool *held, struct cli_world *world, int argc, char **argv)
{
    const struct cli_command *command = NULL;
    static char program[64];

    if (argc < 2) return ls_fail(LS_EVALUE, "no command given; see longspan --help");
    if (answer(world, argv[1])) return LS_OK;
    LS_TRY(find_command(&command, argv[1]));
    snprintf(program, sizeof(program), "longspan %s", command->name);
    world->program = program;
    argv[1] = program;
    return command->run(held, world, argc - 1, argv + 1);
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

    if (status == LS_OK) status = run(&held, &world, argc, argv);
    if (status == LS_OK) status = flush_results(&world);
    if (status != LS_OK && world.rank == 0)
        fprintf(stderr, "%s: %s\n", world.program, ls_message());
    cli_world_fini(&world, status, exit_status(status, held));
    return exit_status(status, held);
}
