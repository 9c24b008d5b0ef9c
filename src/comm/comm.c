#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/profile.h"
#include "base/trace.h"

struct ls_comm {
    const struct ls_comm_ops *ops;
    void *self;
    int rank, size;
    int64_t bytes_sent;
    double exposed_seconds;
    bool has_timeout;
    struct ls_comm *whole; /* of a view of some of its ranks, to whom messages then go */
    int *member;           /* [size] their ranks there */
    ls_status failed;      /* of a message that ls_comm_progress saw fail; MPI may tell only once */
    char failure[256];
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
    LS_TRY(ls_comm_create(out, comm->ops, self, comm->rank, comm->size));
    (*out)->has_timeout = comm->has_timeout;
    return LS_OK;
}

ls_status ls_comm_view(struct ls_comm **out, struct ls_comm *whole, const int *member, int size)
{
    struct ls_comm *comm = calloc(1, sizeof *comm);

    if (comm != NULL) comm->member = malloc((size_t)size * sizeof *comm->member);
    if (comm == NULL || comm->member == NULL) {
        free(comm);
        return ls_fail(LS_ENOMEM, "no memory for a view of %d ranks", size);
    }
    comm->whole = whole;
    comm->size = size;
    for (int i = 0; i < size; i++) {
        comm->member[i] = member[i];
        if (member[i] == whole->rank) comm->rank = i;
    }
    *out = comm;
    return LS_OK;
}

void ls_comm_destroy(struct ls_comm *comm)
{
    if (comm == NULL) return;
    if (comm->whole == NULL) comm->ops->destroy(comm->self);
    free(comm->member);
    free(comm);
}

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
    return comm->whole ? ls_comm_has_timeout(comm->whole) : comm->has_timeout;
}

void ls_comm_place(struct ls_comm *comm, const char *what, const char *how)
{
    if (comm->whole)
        ls_comm_place(comm->whole, what, how);
    else
        comm->ops->place(comm->self, what, how);
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

int ls_comm_node_run(const struct ls_comm *comm)
{
    return comm->ops->node_run(comm->self);
}

/* ---- the trace: only the first thread communicates */

static const struct ls_trace_kind send_kind = {"send", "message", {"bytes", "to", "tag"}};
static const struct ls_trace_kind receive_kind = {"receive", "message", {"bytes", "from", "tag"}};
static const struct ls_trace_kind wait_kind = {"wait", "message", {"messages"}};
static const struct ls_trace_kind barrier_kind = {"barrier", "collective", {NULL}};
static const struct ls_trace_kind reduce_kind = {"reduce", "collective", {"values"}};
static const struct ls_trace_kind all_reduce_kind = {"all-reduce", "collective", {"bytes"}};
static const struct ls_trace_kind reduce_scatter_kind = {"reduce-scatter", "collective", {"bytes"}};
static const struct ls_trace_kind all_to_all_kind = {"all-to-all", "collective", {"bytes"}};

static double trace_begin(void)
{
    return ls_trace_on ? ls_now() : 0;
}

static void trace_end(const struct ls_trace_kind *kind, double since, int64_t first, int64_t second,
                      int64_t third)
{
    if (ls_trace_on)
        ls_trace_add(kind, 0, since, ls_now(), (const int64_t[]){first, second, third});
}

/* ---- messages */

static ls_status check_peer(const struct ls_comm *comm, const char *doing, int peer)
{
    if (peer < 0 || peer >= comm->size)
        return ls_fail(LS_ECOMM, "%s rank %d, the ranks are 0 to %d", doing, peer, comm->size - 1);
    return LS_OK;
}

ls_status ls_comm_send(struct ls_request *out, struct ls_comm *comm, const void *in, size_t bytes,
                       int to, int tag)
{
    const double since = trace_begin();

    LS_TRY(check_peer(comm, "sending to", to));
    if (comm->whole) return ls_comm_send(out, comm->whole, in, bytes, comm->member[to], tag);
    LS_TRY(comm->ops->send(out, comm->self, in, bytes, to, tag));
    comm->bytes_sent += (int64_t)bytes;
    trace_end(&send_kind, since, (int64_t)bytes, to, tag);
    return LS_OK;
}

ls_status ls_comm_receive(struct ls_request *out, struct ls_comm *comm, void *into, size_t bytes,
                          int from, int tag)
{
    const double since = trace_begin();

    LS_TRY(check_peer(comm, "receiving from", from));
    if (comm->whole) return ls_comm_receive(out, comm->whole, into, bytes, comm->member[from], tag);
    LS_TRY(comm->ops->receive(out, comm->self, into, bytes, from, tag));
    trace_end(&receive_kind, since, (int64_t)bytes, from, tag);
    return LS_OK;
}

ls_status ls_comm_progress(bool *done, struct ls_comm *comm, struct ls_request *requests, int n)
{
    bool all;

    if (comm->whole) return ls_comm_progress(done, comm->whole, requests, n);
    const ls_status status = comm->ops->test(&all, comm->self, requests, n);

    if (status != LS_OK) {
        comm->failed = status;
        snprintf(comm->failure, sizeof(comm->failure), "%s", ls_message());
        return status;
    }
    if (done != NULL) *done = all;
    return LS_OK;
}

ls_status ls_comm_wait(struct ls_comm *comm, struct ls_request *requests, int n)
{
    if (comm->whole) return ls_comm_wait(comm->whole, requests, n);
    const double since = ls_now();
    const ls_status status = comm->ops->wait(comm->self, requests, n);
    const ls_status earlier = comm->failed;

    comm->exposed_seconds += ls_now() - since;
    trace_end(&wait_kind, since, n, 0, 0);
    comm->failed = LS_OK;
    return earlier == LS_OK ? status : ls_fail(earlier, "%s", comm->failure);
}

/* ---- collectives */

ls_status ls_comm_barrier(struct ls_comm *comm)
{
    const double since = trace_begin();
    const ls_status status = comm->ops->barrier(comm->self);

    trace_end(&barrier_kind, since, 0, 0, 0);
    return status;
}

ls_status ls_comm_reduce(double *values, struct ls_comm *comm, int n, ls_reduction how)
{
    const double since = trace_begin();
    const ls_status status = comm->ops->reduce(values, comm->self, n, how);

    trace_end(&reduce_kind, since, n, 0, 0);
    return status;
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

/* The end of bulk communication that began at `since` and sent this many bytes. */
static ls_status account_bulk(struct ls_comm *comm, const struct ls_trace_kind *kind, double since,
                              int64_t bytes, ls_status status)
{
    comm->exposed_seconds += ls_now() - since;
    if (status == LS_OK) comm->bytes_sent += bytes;
    trace_end(kind, since, bytes, 0, 0);
    return status;
}

ls_status ls_comm_all_reduce(float *values, struct ls_comm *comm, int64_t n, ls_reduction how)
{
    const int64_t bytes = 2 * (comm->size - 1) * n * (int64_t)sizeof(float) / comm->size;
    const double since = ls_now();

    return account_bulk(comm, &all_reduce_kind, since, bytes,
                        comm->ops->all_reduce(values, comm->self, n, how));
}

ls_status ls_comm_reduce_scatter(float *out, struct ls_comm *comm, const float *in, int64_t n)
{
    const int64_t bytes = (comm->size - 1) * n * (int64_t)sizeof(float);
    const double since = ls_now();

    return account_bulk(comm, &reduce_scatter_kind, since, bytes,
                        comm->ops->reduce_scatter(out, comm->self, in, n));
}

ls_status ls_comm_all_to_all(void *out, struct ls_comm *comm, const void *in, size_t bytes)
{
    const int64_t sent = (comm->size - 1) * (int64_t)bytes;
    const double since = ls_now();

    return account_bulk(comm, &all_to_all_kind, since, sent,
                        comm->ops->all_to_all(out, comm->self, in, bytes));
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
