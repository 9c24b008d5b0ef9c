/* The options that several subcommands share, and what their values mean. */
#ifndef LS_CLI_SHARED_OPTIONS_H
#define LS_CLI_SHARED_OPTIONS_H

#include "cli/options.h"

#define CLI_KEY_HELP 'h'

/* The i-th of them; NULL behind the last. *of: CLI_TAKES_ of what it belongs to, 0 if everybody
 * takes it. */
const struct argp_option *cli_shared_option(unsigned *of, int i);

/* Takes one of them, --help apart. Errors: LS_EVALUE. */
ls_status cli_shared_set(struct cli_options *options, int key, const char *value);

#endif
