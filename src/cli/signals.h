/* What becomes of the command when something else than its own main ends it. */
#ifndef LS_CLI_SIGNALS_H
#define LS_CLI_SIGNALS_H

#include "cli/world.h"

/* From now on a signal that ends this process, but one that nobody can catch, leaves no temporary
 * file; rank 0 says what was running and whether anything was written. A library that calls exit
 * makes it a failure. A limit on the size of files fails the write instead of ending the process.
 */
void cli_signals_init(const struct cli_world *world);

/* Rank 0 has said how the command ended; signals, which launchers send to those that end later than
 * others, add nothing to that. */
void cli_signals_fini(void);

#endif
