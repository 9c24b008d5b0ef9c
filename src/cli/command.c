#include "cli/command.h"

#include <stdio.h>
#include <string.h>

#include "base/nearest.h"

#define MOST_COMMANDS 16

static void print_help(const struct cli_menu *menu, const char *program)
{
    printf("Usage: %s COMMAND [OPTION...]\n%s\n", program, menu->head);
    for (int i = 0; i < menu->count; i++)
        printf("  %-9s %s\n", menu->commands[i].name, menu->commands[i].summary);
    printf("\n`%s COMMAND --help` lists the options of a command%s.\n", program,
           menu->tail ? menu->tail : "");
}

static ls_status find(const struct cli_command **out, const struct cli_menu *menu,
                      const struct cli_world *world, const char *name)
{
    const char *names[MOST_COMMANDS];

    for (int i = 0; i < menu->count; i++) {
        names[i] = menu->commands[i].name;
        if (strcmp(name, names[i]) != 0) continue;
        *out = &menu->commands[i];
        return LS_OK;
    }
    const char *nearest = ls_nearest(name, names, menu->count);

    if (nearest) return ls_fail(LS_EVALUE, "unknown command '%s'; is '%s' meant?", name, nearest);
    return ls_fail(LS_EVALUE, "unknown command '%s'; see %s --help", name, world->program);
}

ls_status cli_menu_run(bool *held, struct cli_world *world, const struct cli_menu *menu, int argc,
                       char **argv)
{
    const struct cli_command *command = NULL;
    const size_t used = strlen(world->program);

    if (argc < 2) return ls_fail(LS_EVALUE, "no command given; see %s --help", world->program);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        if (world->rank == 0) print_help(menu, world->program);
        return LS_OK;
    }
    LS_TRY(find(&command, menu, world, argv[1]));
    snprintf(world->program + used, sizeof(world->program) - used, " %s", command->name);
    argv[1] = world->program;
    return command->run(held, world, argc - 1, argv + 1);
}
