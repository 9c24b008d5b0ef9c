#include "cli/signals.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/progress.h"
#include "tensor/temporary.h"

/* Those that end a process unless it wants otherwise, and do not tell of a fault in it. */
static const struct {
    int number;
    const char *name; /* NULL: nothing is said, since nobody listens */
} ending[] = {
    {SIGHUP, "SIGHUP"},   {SIGINT, "SIGINT"},   {SIGQUIT, "SIGQUIT"}, {SIGTERM, "SIGTERM"},
    {SIGUSR1, "SIGUSR1"}, {SIGUSR2, "SIGUSR2"}, {SIGXCPU, "SIGXCPU"}, {SIGPIPE, NULL},
};

enum { ENDING = sizeof(ending) / sizeof(ending[0]) };

static const struct cli_world *_Atomic world; /* NULL: nothing is to be said */

/* With functions that a signal handler may call. */
static void say(const char *program, const char *name, bool published)
{
    const char *phase = cli_progress_phase();
    char line[256], *end;

    end = stpcpy(stpcpy(stpcpy(line, program), ": "), name);
    if (phase) end = stpcpy(stpcpy(end, " while "), phase);
    end = stpcpy(end, published ? ": what was finished stays\n" : ": nothing was written\n");
    if (write(STDERR_FILENO, line, (size_t)(end - line)) < 0) return; /* nobody can be told */
}

/* A library underneath has called exit, whose status would say what it does not mean. */
static void end_by_library(void)
{
    if (!world) return;
    const bool published = ls_temporary_abandon();

    if (world->rank == 0) say(world->program, "ended by a library", published);
    _exit(CLI_FAILED);
}

/* The signal waits, blocked, until the handler returns; then it ends the process. */
static void end(int number)
{
    const bool published = ls_temporary_abandon();
    const struct cli_world *of = world;

    for (int i = 0; of && of->rank == 0 && i < ENDING; i++)
        if (ending[i].number == number && ending[i].name)
            say(of->program, ending[i].name, published);
    signal(number, SIG_DFL);
    raise(number);
}

void cli_signals_init(const struct cli_world *of)
{
    struct sigaction before, action = {.sa_handler = end};

    world = of;
    sigfillset(&action.sa_mask);
    for (int i = 0; i < ENDING; i++) /* not those that are ignored, as under nohup */
        if (sigaction(ending[i].number, NULL, &before) == 0 && before.sa_handler == SIG_DFL)
            sigaction(ending[i].number, &action, NULL);
    signal(SIGXFSZ, SIG_IGN);
    atexit(end_by_library);
}

void cli_signals_fini(void)
{
    world = NULL;
}
