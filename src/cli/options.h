/* The command line of a subcommand: groups of options that several share (argp children), and the
 * parsing itself. */
#ifndef LS_CLI_OPTIONS_H
#define LS_CLI_OPTIONS_H

#include <argp.h>
#include <stdbool.h>

#include "base/status.h"
#include "cli/world.h"
#include "longspan/attention.h"

/* Keys of options that have no short form; one range for all, since argp merges the groups. */
enum {
    CLI_KEY_HELP = 'h',
    CLI_KEY_JSON = 256,
    CLI_KEY_QUIET,
    CLI_KEY_THREADS,
    CLI_KEY_PROGRESS,
    CLI_KEY_INPUT,
    CLI_KEY_Q,
    CLI_KEY_K,
    CLI_KEY_V,
    CLI_KEY_RANDOM,
    CLI_KEY_ORDER,
    CLI_KEY_DTYPE,
    CLI_KEY_ALLOW_NONFINITE,
    CLI_KEY_CAUSAL,
    CLI_KEY_SCALE,
    CLI_KEY_METHOD,
    CLI_KEY_LAYOUT,
    CLI_KEY_OWN, /* the first of a subcommand's own */
};

/* --json, --quiet, --help; input: struct cli_output_options. */
struct cli_output_options {
    const char *json; /* NULL: none; "-": standard output */
    bool quiet;
};
extern const struct argp cli_output_argp;

/* --threads; input: int, as many as OpenMP would use unless the option is given. */
extern const struct argp cli_threads_argp;

/* --progress; input: cli_progress_mode. */
typedef enum { CLI_PROGRESS_AUTO, CLI_PROGRESS_ALWAYS, CLI_PROGRESS_NEVER } cli_progress_mode;
extern const struct argp cli_progress_argp;

/* --causal, --scale, --layout; input of each: struct ls_attention_options. */
extern const struct argp cli_causal_argp;
extern const struct argp cli_scale_argp;
extern const struct argp cli_layout_argp;

/* Parses the whole command line into `input`. *done becomes true if --help was asked for and
 * printed. An unknown option is answered with the nearest one. Errors: LS_EVALUE. */
ls_status cli_options_parse(bool *done, const struct cli_world *world, const struct argp *argp,
                            int argc, char **argv, void *input);

/* For parsers: what argp is to be told of a status. */
error_t cli_options_error(ls_status status);

/* For parsers: an argument that is no option, where there can be none. */
error_t cli_options_surplus(const char *argument);

#endif
