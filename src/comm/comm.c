#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/profile.h"
#include "base/trace.h"

struct ls_comm {
    const struct ls_control_ops *ops;
    void *self;
    int rank, size;
    bool has_timeout;
};

/* ---- making */

ls_status ls_comm_create(struct ls_comm **out, const struct ls_control_ops *ops, void *self,
                         int rank, int size)
{
    struct ls_comm *comm = malloc(sizeof(*comm));
    double missing = comm == NULL;
    ls_status status = ops->reduce(&missing, self, 1, LS_REDUCE_MAX);

    if (status == LS_OK && missing != 0)
        status = ls_fail(LS_ENOMEM, "no memory for a group of %d ranks", size);
    if (status != LS_OK) {
        free(comm);
        ops->destroy(self);
        return status;
    }
    *comm = (struct ls_comm){.ops = ops, .self = self, .rank = rank, .size = size};
    *out = comm;
    return LS_OK;
}

ls_status ls_comm_duplicate(struct ls_comm **out, const struct ls_comm *comm)
{
    void *self;

    LS_TRY(comm->ops->duplicate(&self, comm->self));
    LS_TRY(ls_comm_create(out, comm->ops, self, comm->rank, comm->size));
    (*out)->has_timeout = comm->has_timeout;
    return LS_OK;
}

ls_status ls_comm_split_off(struct ls_comm **out, struct ls_comm *comm, const int *ranks, int n,
                            int place)
{
    void *self;

    LS_TRY(comm->ops->split(&self, comm->self, ranks, n));
    LS_TRY(ls_comm_create(out, comm->ops, self, place, n));
    (*out)->has_timeout = comm->has_timeout;
    return LS_OK;
}

void ls_comm_destroy(struct ls_comm *comm)
{
    if (comm == NULL) return;
    comm->ops->destroy(comm->self);
    free(comm);
}

/* ---- what it is */

int ls_comm_rank(const struct ls_comm *comm)
{
    return comm->rank;
}

int ls_comm_size(const struct ls_comm *comm)
{
    return comm->size;
}

int ls_comm_node_size(const struct ls_comm *comm)
{
    return comm->ops->node_size(comm->self);
}

int ls_comm_node_run(const struct ls_comm *comm)
{
    return comm->ops->node_run(comm->self);
}

void *ls_comm_backend(const struct ls_transport_ops **ops, const struct ls_comm *comm)
{
    *ops = comm->ops->transport;
    return comm->self;
}

/* ---- silence */

ls_status ls_comm_set_timeout(struct ls_comm *comm, int seconds)
{
    bool same;

    LS_TRY(ls_comm_alike(&same, comm, seconds));
    if (!same) return ls_fail(LS_EVALUE, "timeout: %d s on this rank, not on all", seconds);
    if (seconds < 0) return ls_fail(LS_EVALUE, "timeout: %d s is less than 0", seconds);
    comm->has_timeout = false;
    LS_TRY(comm->ops->set_timeout(comm->self, seconds));
    comm->has_timeout = seconds > 0;
    return LS_OK;
}

bool ls_comm_has_timeout(const struct ls_comm *comm)
{
    return comm->has_timeout;
}

void ls_comm_place(struct ls_comm *comm, const char *what, const char *how)
{
    comm->ops->place(comm->self, what, how);
}

ls_status ls_comm_beat(struct ls_comm *comm)
{
    return comm->ops->beat(comm->self);
}

/* ---- collective operations, in the trace of the first thread */

static const struct ls_trace_kind barrier_kind = {"barrier", "collective", {NULL}};
static const struct ls_trace_kind reduce_kind = {"reduce", "collective", {"values"}};

ls_status ls_comm_barrier(struct ls_comm *comm)
{
    const double since = ls_trace_on ? ls_now() : 0;
    const ls_status status = comm->ops->barrier(comm->self);

    ls_trace_note(&barrier_kind, since, 0);
    return status;
}

ls_status ls_comm_reduce(double *values, struct ls_comm *comm, int n, ls_reduction how)
{
    const double since = ls_trace_on ? ls_now() : 0;
    const ls_status status = comm->ops->reduce(values, comm->self, n, how);

    ls_trace_note(&reduce_kind, since, n);
    return status;
}

ls_status ls_comm_broadcast(void *bytes, struct ls_comm *comm, size_t n, int root)
{
    if (root < 0 || root >= comm->size)
        return ls_fail(LS_ECOMM, "broadcasting from rank %d, the ranks are 0 to %d", root,
                       comm->size - 1);
    return comm->ops->broadcast(bytes, comm->self, n, root);
}

ls_status ls_comm_gather(void *out, struct ls_comm *comm, const void *in, size_t bytes)
{
    return comm->ops->gather(out, comm->self, in, bytes);
}

/* ---- agreement */

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
    double lowest = status == LS_OK ? comm->size : comm->rank;

    LS_TRY(ls_comm_reduce(&lowest, comm, 1, LS_REDUCE_MIN));
    if (lowest == comm->size) return LS_OK;
    return adopt_failure(comm, status, (int)lowest);
}

ls_status ls_comm_alike(bool *same, struct ls_comm *comm, double value)
{
    double bound[] = {value, -value}; /* the least, and minus the most */

    LS_TRY(ls_comm_reduce(bound, comm, 2, LS_REDUCE_MIN));
    *same = bound[0] == -bound[1];
    return LS_OK;
}
