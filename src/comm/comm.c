#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/profile.h"

struct ls_comm {
    const struct ls_comm_ops *ops;
    void *self;
    int rank, size;
    int64_t bytes_sent;
    double exposed_seconds;
};

ls_status ls_comm_create(struct ls_comm **out, const struct ls_comm_ops *ops, void *self, int rank,
                         int size)
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
    return ls_comm_create(out, comm->ops, self, comm->rank, comm->size);
}

void ls_comm_destroy(struct ls_comm *comm)
{
    if (comm == NULL) return;
    comm->ops->destroy(comm->self);
    free(comm);
}

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

static ls_status check_peer(const struct ls_comm *comm, const char *doing, int peer)
{
    if (peer < 0 || peer >= comm->size)
        return ls_fail(LS_ECOMM, "%s rank %d, the ranks are 0 to %d", doing, peer, comm->size - 1);
    return LS_OK;
}

ls_status ls_comm_send(struct ls_request *out, struct ls_comm *comm, const void *in, size_t bytes,
                       int to, int tag)
{
    LS_TRY(check_peer(comm, "sending to", to));
    LS_TRY(comm->ops->send(out, comm->self, in, bytes, to, tag));
    comm->bytes_sent += (int64_t)bytes;
    return LS_OK;
}

ls_status ls_comm_receive(struct ls_request *out, struct ls_comm *comm, void *into, size_t bytes,
                          int from, int tag)
{
    LS_TRY(check_peer(comm, "receiving from", from));
    return comm->ops->receive(out, comm->self, into, bytes, from, tag);
}

ls_status ls_comm_progress(bool *done, struct ls_comm *comm, struct ls_request *requests, int n)
{
    bool all;

    LS_TRY(comm->ops->test(&all, comm->self, requests, n));
    if (done != NULL) *done = all;
    return LS_OK;
}

ls_status ls_comm_wait(struct ls_comm *comm, struct ls_request *requests, int n)
{
    const double since = ls_now();
    const ls_status status = comm->ops->wait(comm->self, requests, n);

    comm->exposed_seconds += ls_now() - since;
    return status;
}

ls_status ls_comm_barrier(struct ls_comm *comm)
{
    return comm->ops->barrier(comm->self);
}

ls_status ls_comm_reduce(double *values, struct ls_comm *comm, int n, ls_reduction how)
{
    return comm->ops->reduce(values, comm->self, n, how);
}

ls_status ls_comm_broadcast(void *bytes, struct ls_comm *comm, size_t n, int root)
{
    LS_TRY(check_peer(comm, "broadcasting from", root));
    return comm->ops->broadcast(bytes, comm->self, n, root);
}

ls_status ls_comm_gather(void *out, struct ls_comm *comm, const void *in, size_t bytes)
{
    return comm->ops->gather(out, comm->self, in, bytes);
}

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

int64_t ls_comm_bytes_sent(const struct ls_comm *comm)
{
    return comm->bytes_sent;
}

double ls_comm_exposed_seconds(const struct ls_comm *comm)
{
    return comm->exposed_seconds;
}

void ls_comm_reset_counters(struct ls_comm *comm)
{
    comm->bytes_sent = 0;
    comm->exposed_seconds = 0;
}
