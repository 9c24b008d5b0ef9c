/* What each thread of each rank did, from when until when. */
#ifndef LONGSPAN_TIMELINE_H
#define LONGSPAN_TIMELINE_H

#include <stdint.h>

#include "longspan/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ls_timeline;

/* Makes room for the events of threads 0 to threads - 1 of this process, those that plans have
 * (others are left out), a bounded number each, and the temporary file; records nothing yet. Path
 * "-" is standard output. A process has one timeline at a time, whatever the communicator.
 * Collective; comm lives until the timeline is destroyed. The caller destroys it.
 * Errors: LS_EVALUE, LS_EFILE, LS_EIO, LS_ENOMEM; the same on every rank. */
LS_API ls_status ls_timeline_create(struct ls_timeline **out, struct ls_comm *comm,
                                    const char *path, int threads);

/* From here on what the library does is recorded, and until here; as often as one likes. Not
 * collective. Accept NULL. */
LS_API void ls_timeline_start(struct ls_timeline *timeline);
LS_API void ls_timeline_stop(struct ls_timeline *timeline);

/* Brings the clocks of the ranks together and writes what was recorded in the Trace Event Format
 * that chrome://tracing and Perfetto read, a process for each rank and a line for each of its
 * threads; the file appears whole or not at all. *events and *dropped: of all ranks, those in the
 * file and those that found no room. Once, while stopped. Collective. Errors: LS_EIO, LS_ECOMM; the
 * same on every rank. */
LS_API ls_status ls_timeline_commit(int64_t *events, int64_t *dropped,
                                    struct ls_timeline *timeline);

/* Leaves nothing behind but what was committed. Not collective. Accepts NULL. */
LS_API void ls_timeline_destroy(struct ls_timeline *timeline);

#ifdef __cplusplus
}
#endif
#endif
