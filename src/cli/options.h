/* The command line of a subcommand: the options that several of them share, those of its own, and
 * the parsing. */
#ifndef LS_CLI_OPTIONS_H
#define LS_CLI_OPTIONS_H

#include <argp.h>

#include "cli/inputs.h"
#include "cli/mask.h"

#define CLI_MOST_RANKS 65536

/* What several subcommands share; each takes some of it. */
struct cli_options {
    const char *json; /* NULL: none; "-": standard output */
    bool quiet;
    bool text_aside; /* standard output belongs to a file: the text goes to standard error */
    cli_progress_mode progress;
    const char *trace;    /* NULL: none */
    int threads;          /* of each rank; also in attention */
    bool threads_unasked; /* neither --threads nor OMP_NUM_THREADS says how many */
    int timeout;          /* seconds; 0: none */
    struct cli_input_options input;
    struct cli_mask_options mask;
    struct ls_attention_options attention; /* complete after cli_mask_load */
};

/* Parts of it that a subcommand takes; --timeout, --json, --quiet and --help are everybody's. */
enum {
    CLI_TAKES_INPUT = 1 << 0,    /* --input, --q, --k, --v, --random, --order, --dtype */
    CLI_TAKES_ELEMENTS = 1 << 1, /* --allow-nonfinite: it reads more than shapes */
    CLI_TAKES_MASK = 1 << 2,     /* --causal and all that is in cli/mask.h */
    CLI_TAKES_SCALE = 1 << 3,
    CLI_TAKES_LAYOUT = 1 << 4,
    CLI_TAKES_THREADS = 1 << 5,
    CLI_TAKES_PROGRESS = 1 << 6,
    CLI_TAKES_TRACE = 1 << 7,
    CLI_TAKES_STRICT = 1 << 8,
};

/* Sections of --help, for argp_option.group. */
enum { CLI_SECTION_INPUT = 1, CLI_SECTION_COMPUTATION, CLI_SECTION_RESULTS, CLI_SECTION_COMMON };

/* In argp_option.flags: the file that the value names is written. Any other option of which `arg`
 * says FILE reads one, as do arguments. */
enum { CLI_WRITES = 1 << 16 };

/* Keys: an argument that is no option, and the first of a subcommand's own options. */
enum { CLI_ARGUMENT = 0, CLI_KEY_OWN = 512 };

struct cli_syntax {
    const char *doc;
    const char *arguments; /* files, for --help: "[A B]"; NULL: only options */
    unsigned takes;
    const struct argp_option *own; /* ends with {0}; NULL: none */
    /* Takes one of `own`, or an argument, with its value. Errors: LS_EVALUE. */
    ls_status (*set)(void *own_options, int key, const char *value);
};

/* Parses the command line into `shared` and, by syntax->set, into own_options, and sets the timeout
 * of the ranks. *done becomes true if --help was asked for and printed. An unknown option is
 * answered with the nearest one; an output that would replace an input or another output is
 * refused. Collective. Errors: LS_EVALUE, and those of ls_comm_set_timeout. */
ls_status cli_options_parse(bool *done, struct cli_options *shared, const struct cli_world *world,
                            const struct cli_syntax *syntax, int argc, char **argv,
                            void *own_options);

/* "unexpected argument", for an argument too many. */
ls_status cli_options_surplus(const char *argument);

#endif
