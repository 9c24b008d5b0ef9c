#include "comm/comm.h"

#include <stdlib.h>

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

/* *place: of this rank in the list. */
static ls_status check_members(int *place, const struct ls_comm *comm, const int *ranks, int n)
{
    bool *named = calloc((size_t)comm->size, sizeof *named);
    ls_status status =
        named ? LS_OK : ls_fail(LS_ENOMEM, "no memory for a list of %d ranks", comm->size);

    *place = -1;
    for (int i = 0; i < n && status == LS_OK; i++) {
        if (ranks[i] < 0 || ranks[i] >= comm->size)
            status = ls_fail(LS_EVALUE, "sub-group: rank %d, the ranks are 0 to %d", ranks[i],
                             comm->size - 1);
        else if (named[ranks[i]])
            status = ls_fail(LS_EVALUE, "sub-group: rank %d is named twice", ranks[i]);
        else
            named[ranks[i]] = true;
        if (ranks[i] == comm->rank) *place = i;
    }
    free(named);
    if (status == LS_OK && *place < 0)
        status = ls_fail(LS_EVALUE,
                         "sub-group: rank %d is not among its %d ranks: each rank names those of "
                         "its own sub-group",
                         comm->rank, n);
    return status;
}

/* Every rank that this one names must have named the same, in the same order. */
static ls_status compare_members(struct ls_comm *comm, const int *ranks, int n)
{
    const size_t p = (size_t)comm->size;
    int *own = calloc(p, sizeof *own), *all = calloc(p * p, sizeof *all);
    ls_status status =
        own && all ? LS_OK : ls_fail(LS_ENOMEM, "no memory for lists of %d ranks", comm->size);

    LS_TRY_GOTO(status, ls_comm_agree(comm, status), free_all);
    for (int i = 0; i < comm->size; i++) own[i] = i < n ? ranks[i] : -1;
    LS_TRY_GOTO(status, ls_comm_gather(all, comm, own, p * sizeof *own), free_all);
    for (int i = 0; i < n && status == LS_OK; i++)
        for (size_t k = 0; k < p && status == LS_OK; k++)
            if (all[(size_t)ranks[i] * p + k] != own[k])
                status = ls_fail(
                    LS_EVALUE, "sub-group: rank %d names other ranks than rank %d, which names it",
                    ranks[i], comm->rank);
    status = ls_comm_agree(comm, status);
free_all:
    free(all);
    free(own);
    return status;
}

/* Those of one sub-group have agreed; here all of them do. */
static ls_status agree_on_split(struct ls_comm **out, struct ls_comm *comm, struct ls_comm *some,
                                ls_status status)
{
    const ls_status agreed = status == LS_ECOMM ? status : ls_comm_agree(comm, status);

    if (agreed == LS_OK)
        *out = some;
    else if (status == LS_OK)
        ls_comm_destroy(some);
    return agreed;
}

ls_status ls_comm_split(struct ls_comm **out, struct ls_comm *comm, const int *ranks, int n)
{
    struct ls_comm *some = NULL;
    void *self;
    int place;

    LS_TRY(ls_comm_agree(comm, check_members(&place, comm, ranks, n)));
    LS_TRY(compare_members(comm, ranks, n));
    ls_status status = comm->ops->split(&self, comm->self, ranks, n);

    if (status == LS_OK) status = ls_comm_create(&some, comm->ops, self, place, n);
    if (status == LS_OK) some->has_timeout = comm->has_timeout;
    return agree_on_split(out, comm, some, status);
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

static void trace(const struct ls_trace_kind *kind, double since, int64_t number)
{
    if (ls_trace_on) ls_trace_add(kind, 0, since, ls_now(), (const int64_t[]){number, 0, 0});
}

ls_status ls_comm_barrier(struct ls_comm *comm)
{
    const double since = ls_trace_on ? ls_now() : 0;
    const ls_status status = comm->ops->barrier(comm->self);

    trace(&barrier_kind, since, 0);
    return status;
}

ls_status ls_comm_reduce(double *values, struct ls_comm *comm, int n, ls_reduction how)
{
    const double since = ls_trace_on ? ls_now() : 0;
    const ls_status status = comm->ops->reduce(values, comm->self, n, how);

    trace(&reduce_kind, since, n);
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
