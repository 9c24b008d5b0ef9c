/* Communication between ranks: a table of operations that a backend fills in, and the front that
 * calls it, counts bytes and measures waiting. */
#ifndef LS_COMM_COMM_H
#define LS_COMM_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "longspan/comm.h"

/* A message on its way: the backend's own handle, 0 when it is done, and with whom. */
struct ls_request {
    uintptr_t handle;
    size_t bytes;
    int peer;
};

typedef enum { LS_REDUCE_SUM, LS_REDUCE_MAX, LS_REDUCE_MIN } ls_reduction;

struct ls_comm_ops {
    const char *name;
    ls_status (*duplicate)(void **out, void *self);
    void (*destroy)(void *self);
    ls_status (*set_timeout)(void *self, int seconds);
    void (*place)(void *self, const char *what, const char *how);
    ls_status (*send)(struct ls_request *out, void *self, const void *in, size_t bytes, int to,
                      int tag);
    ls_status (*receive)(struct ls_request *out, void *self, void *into, size_t bytes, int from,
                         int tag);
    /* completed requests are marked and may be passed again */
    ls_status (*test)(bool *done, void *self, struct ls_request *requests, int n);
    ls_status (*wait)(void *self, struct ls_request *requests, int n);
    ls_status (*barrier)(void *self);
    ls_status (*reduce)(double *values, void *self, int n, ls_reduction how);
    ls_status (*broadcast)(void *bytes, void *self, size_t n, int root);
    ls_status (*gather)(void *out, void *self, const void *in, size_t bytes);
    ls_status (*all_reduce)(float *values, void *self, int64_t n, ls_reduction how);
    ls_status (*reduce_scatter)(float *out, void *self, const float *in, int64_t n);
    ls_status (*all_to_all)(void *out, void *self, const void *in, size_t bytes);
    /* ranks that share this rank's memory, this one included */
    int (*node_size)(void *self);
    int (*node_run)(void *self);
};

/* For backends: wraps their state; the front owns it from here on, also if this fails. Collective.
 * Errors: LS_ENOMEM, LS_ECOMM; the same on every rank. */
ls_status ls_comm_create(struct ls_comm **out, const struct ls_comm_ops *ops, void *self, int rank,
                         int size);

/* An independent group of the same ranks, whose messages never meet comm's. Collective. */
ls_status ls_comm_duplicate(struct ls_comm **out, const struct ls_comm *comm);

/* Some of the ranks of another one, this one among them, numbered anew: messages alone, which go
 * through the other one and are counted there. Not collective. Errors: LS_ENOMEM. */
ls_status ls_comm_view(struct ls_comm **out, struct ls_comm *whole, const int *member, int size);

/* Whether a rank that works for long has to let messages move even if it has none of its own, so
 * that the others hear of it: there is a timeout. */
bool ls_comm_has_timeout(const struct ls_comm *comm);

/* Tells the other ranks, if there is a timeout, what this one does from here on, in two words, the
 * second of which may be empty; none: nothing to speak of. Not collective. */
void ls_comm_place(struct ls_comm *comm, const char *what, const char *how);

/* Non-blocking; the memory stays the caller's and untouched until the request is done. Any number
 * of bytes, 0 included, the same on both sides; a rank may send to itself. Not collective.
 * Errors: LS_ECOMM. */
ls_status ls_comm_send(struct ls_request *out, struct ls_comm *comm, const void *in, size_t bytes,
                       int to, int tag);
ls_status ls_comm_receive(struct ls_request *out, struct ls_comm *comm, void *into, size_t bytes,
                          int from, int tag);

/* Moves messages along without waiting; *done (may be NULL) tells whether all have arrived. */
ls_status ls_comm_progress(bool *done, struct ls_comm *comm, struct ls_request *requests, int n);

/* Waits for all of them, and fails as well if ls_comm_progress did since the last wait; the time
 * spent here counts as exposed. */
ls_status ls_comm_wait(struct ls_comm *comm, struct ls_request *requests, int n);

/* Collective. reduce works in place, elementwise, and gives every rank the same bits; gather puts
 * rank r's bytes at out + r * bytes on every rank. */
ls_status ls_comm_barrier(struct ls_comm *comm);
ls_status ls_comm_reduce(double *values, struct ls_comm *comm, int n, ls_reduction how);
ls_status ls_comm_broadcast(void *bytes, struct ls_comm *comm, size_t n, int root);
ls_status ls_comm_gather(void *out, struct ls_comm *comm, const void *in, size_t bytes);

/* Collective, for bulk data of any size: the backend chooses order and algorithm, so the rounding
 * of a sum may depend on both. They count as bytes sent what each rank has to send at least, and
 * their time as exposed.
 *   all_reduce      values [n], elementwise, in place; 2 (p-1)/p n floats
 *   reduce_scatter  in [p, n]; out [n]: the sum over ranks of in[this rank]; (p-1) n floats
 *   all_to_all      in, out [p] blocks of `bytes`: in[r] goes to rank r, out[r] is from it
 * in and out do not overlap. Errors: LS_ECOMM. */
ls_status ls_comm_all_reduce(float *values, struct ls_comm *comm, int64_t n, ls_reduction how);
ls_status ls_comm_reduce_scatter(float *out, struct ls_comm *comm, const float *in, int64_t n);
ls_status ls_comm_all_to_all(void *out, struct ls_comm *comm, const void *in, size_t bytes);

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

/* Bytes that this rank sent in messages and in bulk, and seconds it spent in ls_comm_wait and in
 * bulk communication, since the last reset. */
int64_t ls_comm_bytes_sent(const struct ls_comm *comm);
double ls_comm_exposed_seconds(const struct ls_comm *comm);
void ls_comm_reset_counters(struct ls_comm *comm);

#endif
