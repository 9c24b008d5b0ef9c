/* Transport: bulk data between ranks, in batches. A batch is messages, or one collective operation,
 * that are started together and waited for together; several may be under way. Messages between two
 * ranks arrive in the order in which they were started, batch by batch; there are no tags.
 * A device's own transport is ordered by its queue: messages come after the operations that were
 * put in before their start, and operations after the messages whose wait came before them. So
 * start and wait are the events between the two, and on a device with a queue of its own the host
 * waits for neither. A backend fills in the table; collective operations are made of messages here
 * (collective.c), so that every backend has all of them, and sums are in the order of ranks, the
 * same bits on every rank. */
#ifndef LS_COMM_TRANSPORT_H
#define LS_COMM_TRANSPORT_H

#include "base/progress.h"
#include "comm/comm.h"
#include "longspan/tensor.h"

/* What a debug build sends beside a message: its size, and where it was added. */
struct ls_note {
    size_t bytes;
    char site[56];
};

/* One message. The memory stays the caller's and untouched until it is done. */
struct ls_message {
    bool is_send;
    int peer;
    void *data; /* of a send: only read */
    size_t bytes;
    uintptr_t handle;    /* the backend's own while it is under way, else 0 */
    const char *site;    /* where it was added; NULL: nobody knows, there is no note */
    struct ls_note note; /* of the sender */
    uintptr_t note_handle;
};

struct ls_transport_ops {
    const char *name;
    /* messages [n]: all receives, then all sends, each in the order given */
    ls_status (*start)(void *self, struct ls_message *message, int n);
    /* marks messages that are done */
    ls_status (*test)(bool *done, void *self, struct ls_message *message, int n);
    ls_status (*wait)(void *self, struct ls_message *message, int n);
    /* out [n] = part[0] + part[1] + ..., each [n] and `stride` elements after the one before, in
     * f32 and rounded once; or their maximum or minimum. out may be one of the parts. */
    void (*fold)(void *self, void *out, const void *part, int parts, int64_t stride, int64_t n,
                 ls_dtype type, ls_reduction how);
    void (*copy)(void *self, void *to, const void *from, size_t bytes);
    /* memory that fold and copy work on */
    ls_status (*alloc)(void **out, void *self, size_t bytes);
    void (*free)(void *self, void *memory);
};

/* Rows of the table in memory of the host. host.c */
void ls_fold_on_host(void *self, void *out, const void *part, int parts, int64_t stride, int64_t n,
                     ls_dtype type, ls_reduction how);
void ls_copy_on_host(void *self, void *to, const void *from, size_t bytes);
ls_status ls_alloc_on_host(void **out, void *self, size_t bytes);
void ls_free_on_host(void *self, void *memory);

struct ls_batch;

/* What is under way over the transports of one user, and what they have sent. Starts as all zero.
 */
struct ls_traffic {
    struct ls_progress *mover; /* set to what moves it while there is any; NULL: nobody moves it */
    struct ls_progress idle;   /* what mover is set to when there is none */
    struct ls_batch *under_way;
    int64_t bytes_sent;
    double exposed_seconds; /* in waits */
};

/* A view of a group for bulk data. */
struct ls_transport {
    const struct ls_transport_ops *ops;
    void *self;
    int rank, size;
    struct ls_traffic *traffic;
};

/* The host's, between the ranks of comm; both are borrowed. */
struct ls_transport ls_transport_of(const struct ls_comm *comm, struct ls_traffic *traffic);

/* Moves what is under way along, without waiting; wait reports what fails. Takes a struct
 * ls_traffic: for struct ls_progress. */
void ls_traffic_move(void *traffic);

/* ---- batches */

typedef enum {
    LS_ALL_GATHER,
    LS_ALL_TO_ALL,
    LS_BROADCAST,
    LS_REDUCE_SCATTER,
    LS_ALL_REDUCE,
} ls_collective;

/* A collective operation and how far it has come. */
struct ls_collective_call {
    ls_collective what;
    const char *in;
    char *out;
    int64_t n; /* elements of a part */
    ls_dtype type;
    ls_reduction how;
    int root;
    int64_t first; /* of the slice that is under way */
    int phase;
};

struct ls_batch {
    struct ls_transport transport;
    struct ls_message *message; /* [room] */
    int count, room;
    int started; /* of them */
    /* of a collective operation, else NULL: adds what comes after the messages that are done */
    void (*proceed)(struct ls_batch *batch);
    struct ls_collective_call call;
    void *slices;                      /* of sums */
    struct ls_batch *next, **previous; /* under way */
    ls_status failed;                  /* when it was moved along; MPI may tell only once */
    char failure[256];
};

/* Of at most so many messages. fini accepts one of zeros. Errors: LS_ENOMEM. */
ls_status ls_batch_init(struct ls_batch *out, const struct ls_transport *transport, int64_t most);
void ls_batch_fini(struct ls_batch *batch);

/* The same for collective operations, one at a time; and the bytes that one takes between p ranks,
 * from where the transport has memory. */
ls_status ls_batch_init_collective(struct ls_batch *out, const struct ls_transport *transport);
size_t ls_batch_collective_bytes(int p);

/* Bytes that a rank sends in an all_reduce of n values between p ranks. */
int64_t ls_batch_all_reduce_bytes(int p, int rank, int64_t n, ls_dtype type);

/* Adds a message; any number of bytes, 0 included, the same on both sides. A rank may send to
 * itself within one batch. */
#define ls_batch_send(batch, in, bytes, to) ls_batch_send_at(batch, in, bytes, to, LS_SITE)
#define ls_batch_receive(batch, into, bytes, from)                                                 \
    ls_batch_receive_at(batch, into, bytes, from, LS_SITE)

/* The same from a place in the sources (static text "FILE:LINE"), or NULL, on both sides: where
 * sizes differ, the failure names both places. */
void ls_batch_send_at(struct ls_batch *batch, const void *in, size_t bytes, int to,
                      const char *site);
void ls_batch_receive_at(struct ls_batch *batch, void *into, size_t bytes, int from,
                         const char *site);

#ifdef LS_DEBUG
#define LS_SITE __FILE__ ":" LS_SITE_TEXT(__LINE__)
#define LS_SITE_TEXT(line) LS_SITE_DIGITS(line)
#define LS_SITE_DIGITS(line) #line
#else
#define LS_SITE NULL
#endif

/* Adds a collective operation, to an empty batch made for them; the same on all ranks:
 *   all_gather      out [p] blocks of `bytes`, this rank's in place: every rank gets all
 *   all_to_all      in, out [p] blocks of `bytes`: in[r] goes to rank r, out[r] is from it
 *   broadcast       root's bytes to all
 *   reduce_scatter  in [p, n]; out [n]: the sum over ranks of in[this rank]
 *   all_reduce      values [n], in place
 * in and out do not overlap. Values are f32, bf16 or f16; sums are made in f32, in the order of
 * ranks, and rounded once; a NaN of any rank stays one. Bytes that a rank sends: those of p - 1
 * blocks; of a broadcast and an all_reduce about twice the whole. */
void ls_batch_all_gather(struct ls_batch *batch, void *out, size_t bytes);
void ls_batch_all_to_all(struct ls_batch *batch, void *out, const void *in, size_t bytes);
void ls_batch_broadcast(struct ls_batch *batch, void *data, size_t bytes, int root);
void ls_batch_reduce_scatter(struct ls_batch *batch, void *out, const void *in, ls_dtype type,
                             int64_t n);
void ls_batch_all_reduce(struct ls_batch *batch, void *values, ls_dtype type, int64_t n,
                         ls_reduction how);

/* out [n] = the sum of parts [p, n], one of each rank, that have come as messages: what
 * reduce_scatter makes of them. */
void ls_batch_fold(const struct ls_batch *batch, void *out, const void *parts, ls_dtype type,
                   int64_t n);

/* Starts what was added. Errors: LS_ECOMM. */
ls_status ls_batch_start(struct ls_batch *batch);

/* Waits for all of it and empties the batch, and fails as well if moving it along did; the time
 * spent here counts as exposed. A batch that was not started is done. Errors: LS_ECOMM. */
ls_status ls_batch_wait(struct ls_batch *batch);

/* Both. */
ls_status ls_batch_run(struct ls_batch *batch);

#endif
