/* What an adversary does with a message or collective operation between its call and its end. */
#ifndef TESTS_ADVERSARY_OPERATION_H
#define TESTS_ADVERSARY_OPERATION_H

#include <mpi.h>
#include <stdbool.h>

/* The caller's memory. */
struct area {
    void *data;
    int count;
    MPI_Datatype type;
};

/* One operation under way. The packed buffers stand between MPI and the caller's memory; each is
 * NULL where there is nothing of its kind. */
struct operation {
    const char *name;
    MPI_Comm comm;
    int peer, tag;       /* of a message */
    bool message;        /* it has a peer and a tag, and is started later */
    MPI_Request request; /* what the caller holds */

    struct area in, out;
    bool in_place; /* one area is both */
    char *copy;    /* of what is sent */
    char *hidden;  /* where MPI writes what the caller gets at the end */

    bool started;
    int calls;    /* of MPI that pass before it is started */
    int refusals; /* how many times it is not done yet when asked */
    int asked;    /* in vain */
    double since; /* it was first */
    struct operation *next;
};

/* Reads the environment. From here on memory is changed when it is freed, and not given back to the
 * system: whoever frees a buffer that is still needed is found out. Not for the launcher, which is
 * loaded with the layer as well and does such things. */
void adversary_start(void);

/* A new one, the last in line. `in` and `out` are the caller's memory, or NULL; what goes out is
 * copied, and what comes in is filled with NaN until it has come. */
struct operation *operation_create(const char *name, MPI_Comm comm, const struct area *in,
                                   const struct area *out);

/* Bytes of memory that is sent or received. */
int area_bytes(const struct area *area);

/* Dies of a request that it does not know. */
struct operation *operation_find(MPI_Request request);

/* Starts what has waited for enough calls, in the order of creation; or all. */
void operations_start(bool all);

/* Whether it is done, which it denies a few times. */
bool operation_test(struct operation *operation);

/* Gives the caller what came, and ends; the caller's memory must not have been touched. */
void operation_finish(struct operation *operation, MPI_Status *status);

/* Waits, but not for ever, and finishes it. */
void operation_wait(struct operation *operation, MPI_Status *status);

/* Dies of operations of this communicator, MPI_COMM_NULL for any, that nobody waited for. */
void operations_expect_none(MPI_Comm comm, const char *when);

/* Ends the job; the line says what the caller did wrong, of an operation unless NULL. */
__attribute__((format(printf, 2, 3), noreturn)) void accuse(const struct operation *operation,
                                                            const char *format, ...);

#endif
