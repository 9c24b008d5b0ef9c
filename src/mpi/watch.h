/* Whether the other ranks are still there. With a timeout, a rank tells a few others about once a
 * second that it is alive, what it does, and what it has been told of all the rest; one that waits
 * for a rank of which it has heard nothing for that long gives up. Functions accept NULL, the watch
 * of ranks without a timeout, who send nothing and wait for ever. */
#ifndef LS_MPI_WATCH_H
#define LS_MPI_WATCH_H

#include <mpi.h>

#include "comm/transport.h"

struct mpi_watch;

/* Some of those that are watched, as the watch numbers them; none: all. */
struct mpi_ranks {
    const int *rank;
    int count;
};

/* Collective over comm, which is duplicated. Errors: LS_ECOMM, LS_ENOMEM, the same on every rank.
 */
ls_status mpi_watch_create(struct mpi_watch **out, MPI_Comm comm, int seconds);

/* Groups of these ranks, or some of them, share one: what a rank does for one of them is a sign of
 * life to all. The last release is collective, unless the watch has failed. */
struct mpi_watch *mpi_watch_share(struct mpi_watch *watch);
void mpi_watch_release(struct mpi_watch *watch);

/* After a failure nobody can be waited for any more: the failure, again. */
ls_status mpi_watch_status(const struct mpi_watch *watch);

/* What this rank does from here on; its waits are counted anew. */
void mpi_watch_place(struct mpi_watch *watch, const char *what, const char *how);

/* A message to or from this rank begins: both are to hear of each other directly from now on, since
 * what lies between the two may fail alone. Errors: mpi_watch_status. */
ls_status mpi_watch_meet(struct mpi_watch *watch, int peer);

/* Tells and listens, if that is due. For whoever works and lets messages move. Errors:
 * mpi_watch_status. */
ls_status mpi_watch_beat(struct mpi_watch *watch);

/* While waiting for messages: whether a beat is due, and after it whether those still under way are
 * worth waiting for, of a group of these ranks; then one more wait is over. Errors: LS_ECOMM. */
bool mpi_watch_is_due(const struct mpi_watch *watch);
ls_status mpi_watch_judge(struct mpi_watch *watch, const struct ls_message *message, int n,
                          struct mpi_ranks ranks);
void mpi_watch_step(struct mpi_watch *watch);

/* All of a wait for a collective operation, which needs these ranks. bytes: that this one has in
 * it. Errors: LS_ECOMM. */
ls_status mpi_watch_finish(struct mpi_watch *watch, struct mpi_ranks ranks, MPI_Request collective,
                           size_t bytes);

#endif
