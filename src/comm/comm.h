/* Control: values of the host on which the ranks agree, compare or that they gather. A table of
 * operations that a backend fills in, and the front that calls it. Bulk data goes by transport.h.
 */
#ifndef LS_COMM_COMM_H
#define LS_COMM_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "longspan/comm.h"

typedef enum { LS_REDUCE_SUM, LS_REDUCE_MAX, LS_REDUCE_MIN } ls_reduction;

/* For backends. A NaN of either stays one: a reduction must not hide it. */
double ls_reduce_two(double a, double b, ls_reduction how);

struct ls_transport_ops;

struct ls_control_ops {
    const char *name;
    ls_status (*duplicate)(void **out, void *self);
    /* ranks [n] of self's, this one among them, as on all of them; collective over all of self */
    ls_status (*split)(void **out, void *self, const int *ranks, int n);
    void (*destroy)(void *self);
    ls_status (*set_timeout)(void *self, int seconds);
    void (*place)(void *self, const char *what, const char *how);
    ls_status (*beat)(void *self);
    ls_status (*barrier)(void *self);
    ls_status (*reduce)(double *values, void *self, int n, ls_reduction how);
    ls_status (*broadcast)(void *bytes, void *self, size_t n, int root);
    ls_status (*gather)(void *out, void *self, const void *in, size_t bytes);
    /* ranks that share this rank's memory, this one included */
    int (*node_size)(void *self);
    int (*node_run)(void *self);
    const struct ls_transport_ops *transport; /* of the host's memory between these ranks */
};

/* For backends: wraps their state; the front owns it from here on, also if this fails. Collective.
 * Errors: LS_ENOMEM, LS_ECOMM; the same on every rank. */
ls_status ls_comm_create(struct ls_comm **out, const struct ls_control_ops *ops, void *self,
                         int rank, int size);

/* For split.c: the sub-group of these ranks, of whom this is number `place`. Collective over all of
 * comm; agreed on by the sub-group alone. Errors: LS_ENOMEM, LS_ECOMM. */
ls_status ls_comm_split_off(struct ls_comm **out, struct ls_comm *comm, const int *ranks, int n,
                            int place);

/* An independent group of the same ranks, whose messages never meet comm's. Collective. */
ls_status ls_comm_duplicate(struct ls_comm **out, const struct ls_comm *comm);

/* Whether a rank that works for long has to let messages move even if it has none of its own, so
 * that the others hear of it: there is a timeout. */
bool ls_comm_has_timeout(const struct ls_comm *comm);

/* Tells the other ranks, if there is a timeout, what this one does from here on, in two words, the
 * second of which may be empty; none: nothing to speak of. Not collective. */
void ls_comm_place(struct ls_comm *comm, const char *what, const char *how);

/* Lets the other ranks hear of this one, if there is a timeout. Not collective. Errors: LS_ECOMM
 * if this or an earlier wait has given up. */
ls_status ls_comm_beat(struct ls_comm *comm);

/* Collective. reduce works in place, elementwise, and gives every rank the same bits; gather puts
 * rank r's bytes at out + r * bytes on every rank. */
ls_status ls_comm_barrier(struct ls_comm *comm);
ls_status ls_comm_reduce(double *values, struct ls_comm *comm, int n, ls_reduction how);
ls_status ls_comm_broadcast(void *bytes, struct ls_comm *comm, size_t n, int root);
ls_status ls_comm_gather(void *out, struct ls_comm *comm, const void *in, size_t bytes);

/* Every rank brings its own status and leaves with the same one: LS_OK if all are, else that of
 * the lowest failing rank, whose message becomes everybody's, headed by its rank unless all ranks
 * brought the same failure. Collective: call it where ranks could otherwise part ways. */
ls_status ls_comm_agree(struct ls_comm *comm, ls_status status);

/* Whether every rank brings the same value. Collective. Errors: LS_ECOMM. */
ls_status ls_comm_alike(bool *same, struct ls_comm *comm, double value);

int ls_comm_node_size(const struct ls_comm *comm);

/* n, the same on every rank, if each node has n of the ranks and they follow each other: the first
 * n, the next n and so on; else 0. */
int ls_comm_node_run(const struct ls_comm *comm);

/* The backend's state and its transport, for transport.c. */
void *ls_comm_backend(const struct ls_transport_ops **ops, const struct ls_comm *comm);

#endif
