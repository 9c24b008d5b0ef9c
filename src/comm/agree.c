#include <stdio.h>
#include <string.h>

#include "comm/comm.h"

struct verdict {
    ls_status status;
    char message[1024];
};

/* Makes root's failure everybody's. Which rank it was is worth saying only if the ranks' failures
 * differ; so a failure that was agreed on once is not headed by a rank twice. */
static ls_status adopt_failure(struct ls_comm *comm, ls_status status, int root)
{
    struct verdict own = {.status = status}, theirs;
    double same;

    if (status != LS_OK) snprintf(own.message, sizeof(own.message), "%s", ls_message());
    theirs = own;
    LS_TRY(ls_comm_broadcast(&theirs, comm, sizeof(theirs), root));
    same = own.status == theirs.status && strcmp(own.message, theirs.message) == 0;
    LS_TRY(ls_comm_reduce(&same, comm, 1, LS_REDUCE_MIN));
    if (same != 0) return ls_fail(theirs.status, "%s", theirs.message);
    return ls_fail(theirs.status, "rank %d: %s", root, theirs.message);
}

ls_status ls_comm_agree(struct ls_comm *comm, ls_status status)
{
    double lowest = status == LS_OK ? ls_comm_size(comm) : ls_comm_rank(comm);

    LS_TRY(ls_comm_reduce(&lowest, comm, 1, LS_REDUCE_MIN));
    if (lowest == ls_comm_size(comm)) return LS_OK;
    return adopt_failure(comm, status, (int)lowest);
}

ls_status ls_comm_alike(bool *same, struct ls_comm *comm, double value)
{
    double bound[] = {value, -value}; /* the least, and minus the most */

    LS_TRY(ls_comm_reduce(bound, comm, 2, LS_REDUCE_MIN));
    *same = bound[0] == -bound[1];
    return LS_OK;
}
