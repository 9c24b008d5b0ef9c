/* One computation of attention from a command line; `attend` and `bench attend` differ in their
 * defaults. */
#ifndef LS_CLI_ATTEND_H
#define LS_CLI_ATTEND_H

#include <stdbool.h>

#include "cli/world.h"

struct cli_attend_defaults {
    const char *doc;    /* of --help */
    const char *random; /* value of --random where no input is given; NULL: an error then */
    int repeat;
};

ls_status cli_attend_with(bool *held, struct cli_world *world, int argc, char **argv,
                          const struct cli_attend_defaults *defaults);

#endif
