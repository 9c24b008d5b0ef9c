/* What the command is doing: told to the other ranks, and a bar on rank 0's standard error for what
 * takes longer than two seconds. A thread of its own draws it, so that it moves while the main
 * thread computes. */
#ifndef LS_CLI_PROGRESS_H
#define LS_CLI_PROGRESS_H

#include <stdint.h>

#include "cli/world.h"
#include "longspan/progress.h"

typedef enum { CLI_PROGRESS_AUTO, CLI_PROGRESS_ALWAYS, CLI_PROGRESS_NEVER } cli_progress_mode;

struct cli_progress;

/* *out is NULL without memory; every function here accepts that. quiet: draw only if the mode is
 * always. */
void cli_progress_create(struct cli_progress **out, const struct cli_world *world,
                         cli_progress_mode mode, bool quiet);
void cli_progress_destroy(struct cli_progress *progress);

/* Begins a phase, such as "reading", of which cli_progress_set will tell how much is done. Without
 * a bar it is known to cli_progress_phase alone. */
void cli_progress_begin(struct cli_progress *progress, const char *phase);
void cli_progress_set(struct cli_progress *progress, int64_t done, int64_t of);

/* Begins a phase that cannot tell; the bar follows the clock and says "about". */
void cli_progress_begin_timed(struct cli_progress *progress, const char *phase, double seconds);

/* Ends the phase and clears the line. */
void cli_progress_end(struct cli_progress *progress);

/* What functions of the library tell, each phase begun and ended as it comes. */
struct ls_progress_callback cli_progress_callback(struct cli_progress *progress);

/* The phase now, drawn or not, or NULL; for signal handlers, too. */
const char *cli_progress_phase(void);

#endif
