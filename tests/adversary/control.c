/* Shows that the adversary finds what it is for. On two ranks, messages and collective operations
 * of every kind that it knows, all done as they should be; an argument names the one fault that is
 * planted. Exit status 0 if all numbers are right in the end.
 *   control [FAULT]
 *   control --list    the faults, and what must be said of each */
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 1000

static const struct {
    const char *name, *says;
} faults[] = {
    {"changed-allgather", "changed before it was done"},
    {"changed-allreduce", "changed before it was done"},
    {"changed-broadcast", "changed before it was done"},
    {"changed-send", "changed before it was done"},
    {"early-allgather", "control: wrong"},
    {"early-allreduce", "control: wrong"},
    {"early-broadcast", "control: wrong"},
    {"early-receive", "control: wrong"},
    {"forgotten-receive", "nobody waited for it"},
    {"forgotten-send", "nobody waited for it"},
    {"freed-communicator", "when its communicator was freed"},
    {"freed-send", "changed before it was done"},
    {"long-receive", "4000 bytes came"},
    {"reused-receive", "written before it was done"},
    {"send-send", "it has not been done for"},
    {"short-receive", "too long"},
    {"stale-request", "done already"},
    {"unknown-call", "not known here"},
};

static const char *fault = "";
static int rank, other;

static bool planted(const char *name)
{
    return strcmp(fault, name) == 0;
}

/* Of the sender's rank r and place i. */
static float number(int r, int i)
{
    return (float)(r * N + i);
}

static float *numbers(void)
{
    float *made = malloc(N * sizeof *made);

    for (int i = 0; made && i < N; i++) made[i] = number(rank, i);
    return made;
}

static void expect(const float *found, int from, const char *what)
{
    for (int i = 0; i < N; i++) {
        if (found[i] == number(from, i)) continue;
        fprintf(stderr, "control: wrong %s: %g\n", what, (double)found[i]);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
}

/* Every second number, in memory of twice the size. */
static MPI_Datatype strided(void)
{
    MPI_Datatype type;

    MPI_Type_vector(N, 1, 2, MPI_FLOAT, &type);
    MPI_Type_commit(&type);
    return type;
}

static void exchange(void)
{
    static float in[N + 1];
    float *out = numbers();
    const int count = planted("long-receive") ? N + 1 : planted("short-receive") ? N - 1 : N;
    MPI_Request request[2], stale;

    MPI_Irecv(in, count, MPI_FLOAT, other, 1, MPI_COMM_WORLD, &request[0]);
    MPI_Isend(out, N, MPI_FLOAT, other, 1, MPI_COMM_WORLD, &request[1]);
    if (planted("changed-send")) out[N / 2] = -1;
    if (planted("freed-send")) free(out), out = NULL;
    if (planted("reused-receive")) in[N / 2] = -1;
    MPI_Barrier(MPI_COMM_WORLD);
    if (planted("early-receive")) expect(in, other, "message");
    stale = request[0];
    if (!planted("forgotten-receive")) MPI_Wait(&request[0], MPI_STATUS_IGNORE);
    if (!planted("forgotten-send")) MPI_Wait(&request[1], MPI_STATUS_IGNORE);
    if (planted("stale-request")) MPI_Wait(&stale, MPI_STATUS_IGNORE);
    if (!planted("forgotten-receive")) expect(in, other, "message");
    free(out);
}

/* Asked for until they are done, one by one or all; a type is freed while it is in use. */
static void exchange_strided(bool all)
{
    static float in[2 * N];
    float *out = numbers(), whole[N];
    MPI_Datatype type = strided();
    MPI_Request request[2];
    MPI_Status status[2];
    int done = 0;

    memset(in, 0, sizeof in);
    MPI_Irecv(in, 1, type, other, 2, MPI_COMM_WORLD, &request[0]);
    MPI_Isend(out, N, MPI_FLOAT, other, 2, MPI_COMM_WORLD, &request[1]);
    MPI_Type_free(&type);
    while (all && !done) MPI_Testall(2, request, &done, status);
    for (int i = 0; !all && i < 2; i++) do
            MPI_Test(&request[i], &done, MPI_STATUS_IGNORE);
        while (!done);
    for (int i = 0; i < N; i++) {
        if (in[2 * i + 1] != 0) whole[0] = -1;
        whole[i] = in[2 * i];
    }
    expect(whole, other, "strided message");
    free(out);
}

static void send_and_receive(void)
{
    float *out = numbers(), in[N];

    if (rank == 0 || planted("send-send")) MPI_Send(out, N, MPI_FLOAT, other, 3, MPI_COMM_WORLD);
    MPI_Recv(in, N, MPI_FLOAT, other, 3, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (rank != 0 && !planted("send-send")) MPI_Send(out, N, MPI_FLOAT, other, 3, MPI_COMM_WORLD);
    expect(in, other, "message");
    if (planted("unknown-call"))
        MPI_Sendrecv(out, N, MPI_FLOAT, other, 4, in, N, MPI_FLOAT, other, 4, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
    free(out);
}

static void gather(void)
{
    float *out = numbers(), in[2 * N];
    MPI_Request request;

    MPI_Iallgather(out, N, MPI_FLOAT, in, N, MPI_FLOAT, MPI_COMM_WORLD, &request);
    if (planted("changed-allgather")) out[0] = -1;
    MPI_Barrier(MPI_COMM_WORLD);
    if (planted("early-allgather")) expect(in + other * N, other, "all-gather");
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    for (int r = 0; r < 2; r++) expect(in + r * N, r, "all-gather");
    MPI_Allgather(out, N, MPI_FLOAT, in, N, MPI_FLOAT, MPI_COMM_WORLD);
    for (int r = 0; r < 2; r++) expect(in + r * N, r, "all-gather");
    free(out);
}

static void broadcast(void)
{
    float *data = numbers();
    MPI_Request request;

    MPI_Ibcast(data, N, MPI_FLOAT, 1, MPI_COMM_WORLD, &request);
    if (planted("changed-broadcast") && rank == 1) data[0] = -1;
    MPI_Barrier(MPI_COMM_WORLD);
    if (planted("early-broadcast")) expect(data, 1, "broadcast");
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    expect(data, 1, "broadcast");
    MPI_Bcast(data, N, MPI_FLOAT, 0, MPI_COMM_WORLD);
    expect(data, 1, "broadcast");
    free(data);
}

static void keep_larger(void *in, void *values, int *n, MPI_Datatype *type)
{
    const float *a = in;
    float *b = values;

    (void)type;
    for (int i = 0; i < *n; i++) b[i] = a[i] > b[i] ? a[i] : b[i];
}

static void reduce(void)
{
    float *values = numbers(), most[N];
    MPI_Request request;
    MPI_Op op;

    MPI_Op_create(keep_larger, 1, &op);
    MPI_Iallreduce(values, most, N, MPI_FLOAT, op, MPI_COMM_WORLD, &request);
    if (planted("changed-allreduce")) values[N - 1] = -1;
    MPI_Barrier(MPI_COMM_WORLD);
    if (planted("early-allreduce")) expect(most, 1, "all-reduce");
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    expect(most, 1, "all-reduce");
    MPI_Allreduce(MPI_IN_PLACE, values, N, MPI_FLOAT, op, MPI_COMM_WORLD);
    expect(values, 1, "all-reduce in place");
    MPI_Op_free(&op);
    free(values);
}

/* Even places go to rank 0, odd ones to rank 1: a type that begins again inside itself. */
static void swap(void)
{
    float *out = numbers(), in[N];
    MPI_Datatype column, type;

    MPI_Type_vector(N / 2, 1, 2, MPI_FLOAT, &column);
    MPI_Type_create_resized(column, 0, sizeof(float), &type);
    MPI_Type_commit(&type);
    MPI_Alltoall(out, 1, type, in, N / 2, MPI_FLOAT, MPI_COMM_WORLD);
    MPI_Alltoall(in, N / 2, MPI_FLOAT, out, 1, type, MPI_COMM_WORLD);
    expect(out, rank, "all-to-all, there and back");
    MPI_Type_free(&column);
    MPI_Type_free(&type);
    free(out);
}

static void leave_group(void)
{
    MPI_Comm group;
    MPI_Request request;

    MPI_Comm_dup(MPI_COMM_WORLD, &group);
    MPI_Ibarrier(group, &request);
    if (!planted("freed-communicator")) MPI_Wait(&request, MPI_STATUS_IGNORE);
    MPI_Comm_free(&group);
}

int main(int argc, char **argv)
{
    if (argc > 1) fault = argv[1];
    if (strcmp(fault, "--list") == 0) {
        for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
            printf("%s %s\n", faults[i].name, faults[i].says);
        return 0;
    }
    MPI_Init(&argc, &argv);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    other = 1 - rank;
    exchange();
    exchange_strided(false);
    exchange_strided(true);
    send_and_receive();
    gather();
    broadcast();
    reduce();
    swap();
    leave_group();
    MPI_Finalize();
    return 0;
}
