/* The files that a command line names, and that what is written takes the place of none of them. */
#ifndef LS_CLI_FILES_H
#define LS_CLI_FILES_H

#include "cli/world.h"

#define CLI_MOST_FILES 32

struct cli_file {
    const char *option; /* NULL: an argument */
    const char *path;   /* "-": standard output */
    bool written;
};

struct cli_files {
    struct cli_file at[CLI_MOST_FILES];
    int count;
};

/* An option that was given before names the new file instead. */
void cli_files_add(struct cli_files *files, const char *option, const char *path, bool written);

/* Whether each written file is none of the others, by whatever name, nor where the text goes.
 * *takes_stdout: one of them is standard output. Rank 0 looks, all ranks agree.
 * Errors: LS_EVALUE; the message names both. */
ls_status cli_files_check(bool *takes_stdout, const struct cli_files *files,
                          const struct cli_world *world);

#endif
