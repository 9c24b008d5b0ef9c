/* What a subcommand is. */
#ifndef LS_CLI_COMMAND_H
#define LS_CLI_COMMAND_H

#include <stdbool.h>

#include "base/status.h"
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

ls_status cli_attend(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_check(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_bench(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_plan(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_methods(bool *held, struct cli_world *world, int argc, char **argv);
ls_status cli_info(bool *held, struct cli_world *world, int argc, char **argv);

#endif
