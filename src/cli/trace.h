/* --trace: the timeline of all ranks in the Trace Event Format that chrome://tracing and Perfetto
 * read, a process for each rank and a line for each of its threads. */
#ifndef LS_CLI_TRACE_H
#define LS_CLI_TRACE_H

#include <stdint.h>

#include "cli/world.h"
#include "tensor/target.h"

struct cli_trace {
    const char *path;        /* NULL: none was asked for */
    struct ls_target target; /* rank 0's */
    int threads;
    int64_t events, dropped; /* of all ranks, once committed */
};

/* Makes the temporary file and room for the events of so many threads; ls_trace_start then records
 * them. path NULL: the rest does nothing. Agreed by all ranks. Errors: LS_EFILE, LS_EIO, LS_ENOMEM.
 */
ls_status cli_trace_create(struct cli_trace *out, const struct cli_world *world, const char *path,
                           int threads);

/* Brings the ranks' clocks together and writes what was recorded: the file appears whole or not at
 * all. Agreed by all ranks. Errors: LS_EIO, LS_ECOMM. */
ls_status cli_trace_commit(struct cli_trace *trace, const struct cli_world *world);

/* Leaves nothing behind. */
void cli_trace_fini(struct cli_trace *trace);

#endif
