/* What a subcommand is, and how one is found: `longspan`, `longspan bench` and `longspan plan` are
 * each a menu of commands. */
#ifndef LS_CLI_COMMAND_H
#define LS_CLI_COMMAND_H

#include "cli/world.h"

/* Exit status of the program. */
enum { CLI_DONE = 0, CLI_NOT_HELD = 1, CLI_BAD_INPUT = 2, CLI_FAILED = 3 };

struct cli_command {
    const char *name;
    const char *summary; /* one line */
    /* Collective; argv[0] is the program's name for messages. *held becomes false if a check that
     * was asked for did not hold. Every rank returns the same status. */
    ls_status (*run)(bool *held, struct cli_world *world, int argc, char **argv);
};

struct cli_menu {
    const char *head, *tail; /* of --help, around the commands; tail may be NULL */
    const struct cli_command *commands;
    int count;
};

/* Runs the command that argv[1] names, or prints the menu's help.
 * Errors: LS_EVALUE if there is no such command, with the nearest one; those of the command. */
ls_status cli_menu_run(bool *held, struct cli_world *world, const struct cli_menu *menu, int argc,
                       char **argv);

ls_status cli_attend(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_check(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_bench(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_bench_linear(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_bench_layer(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_bench_memory(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_bench_comm(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_plan_model(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_plan(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_methods(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_info(bool *held, struct cli_world *world, int argc, char **argv);

#endif
