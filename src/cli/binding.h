/* Whether launchers leave this process the processors that it has threads for. */
#ifndef LS_CLI_BINDING_H
#define LS_CLI_BINDING_H

#include "cli/options.h"

/* Rank 0 says in one line, on standard error, that it is bound to fewer processors than there are
 * threads, or to the one core that Open MPI gives a rank unasked; and how to get more. */
void cli_binding_hint(const struct cli_world *world, const struct cli_options *options);

#endif
