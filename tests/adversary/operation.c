#include "operation.h"

#include <limits.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* NaN in every floating-point type, -1 in integers. */
#define POISON 0xff

/* More than a kernel makes while it lets messages move. */
#define MANY_CALLS 300

static struct operation *first;
static uint64_t seed;
static double patience = 60; /* seconds that a wait may last */

void adversary_start(void)
{
    const char *text = getenv("LS_ADVERSARY_SEED");

    if (text) seed = strtoull(text, NULL, 10);
    text = getenv("LS_ADVERSARY_PATIENCE");
    if (text) patience = strtod(text, NULL);
    mallopt(M_PERTURB, 0xa5);
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
}

static int own_rank(void)
{
    int rank;

    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}

/* 0 to sides - 1. Source: Steele, Lea, Flood 2014 (SplitMix). */
static int roll(int sides)
{
    static uint64_t state;

    if (state == 0) state = (seed + 1) * UINT64_C(0xd1342543de82ef95) + (uint64_t)own_rank();
    uint64_t x = state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (int)((x >> 32) % (uint64_t)sides);
}

/* Mostly a few; now and then so many that nothing happens before somebody waits for it. */
static int roll_delay(void)
{
    return roll(4) == 0 ? MANY_CALLS : roll(6);
}

/* ---- accusations */

static int describe(char *out, size_t size, const struct operation *operation)
{
    const struct area *area = operation->copy ? &operation->in : &operation->out;
    const bool moves = operation->copy || operation->hidden;

    if (!moves) return snprintf(out, size, "%s: ", operation->name);
    if (!operation->message)
        return snprintf(out, size, "%s of %d bytes: ", operation->name, area_bytes(area));
    return snprintf(out, size, "%s of %d bytes, rank %d, tag %d: ", operation->name,
                    area_bytes(area), operation->peer, operation->tag);
}

void accuse(const struct operation *operation, const char *format, ...)
{
    char line[512];
    va_list values;
    int used = snprintf(line, sizeof line, "adversary: rank %d, seed %llu: ", own_rank(),
                        (unsigned long long)seed);

    if (operation) used += describe(line + used, sizeof line - (size_t)used, operation);
    va_start(values, format);
    vsnprintf(line + used, sizeof line - (size_t)used, format, values);
    va_end(values);
    fprintf(stderr, "%s\n", line);
    PMPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    abort();
}

/* ---- memory */

int area_bytes(const struct area *area)
{
    MPI_Count size;

    PMPI_Type_size_x(area->type, &size);
    if (size * area->count > INT_MAX) accuse(NULL, "messages over 2 GiB are not known here");
    return (int)size * area->count;
}

static char *allocate(int bytes)
{
    char *memory = malloc((size_t)bytes + 1); /* NULL means that there is no buffer */

    if (!memory) accuse(NULL, "there is no memory for %d bytes", bytes);
    return memory;
}

static char *pack(const struct area *area, MPI_Comm comm)
{
    const int bytes = area_bytes(area);
    char *packed = allocate(bytes);
    int at = 0;

    PMPI_Pack(area->data, area->count, area->type, packed, bytes, &at, comm);
    if (at != bytes) accuse(NULL, "%d bytes are packed in %d", bytes, at);
    return packed;
}

static void unpack(const struct area *area, const char *packed, MPI_Comm comm)
{
    int at = 0;

    PMPI_Unpack(packed, area_bytes(area), &at, area->data, area->count, area->type, comm);
}

/* The caller may free the type before the end. */
static struct area hold(const struct area *area)
{
    struct area held = *area;

    PMPI_Type_dup(area->type, &held.type);
    return held;
}

static void check_sent(const struct operation *operation)
{
    const int bytes = area_bytes(&operation->in);
    char *now = pack(&operation->in, operation->comm);
    int same = 0;

    while (same < bytes && now[same] == operation->copy[same]) same++;
    if (same < bytes)
        accuse(operation, "byte %d of what is sent was changed before it was done", same);
    free(now);
}

static void check_poisoned(const struct operation *operation)
{
    const int bytes = area_bytes(&operation->out);
    char *now = pack(&operation->out, operation->comm);
    int same = 0;

    while (same < bytes && (unsigned char)now[same] == POISON) same++;
    if (same < bytes)
        accuse(operation, "byte %d of where it goes was written before it was done", same);
    free(now);
}

/* ---- the line of operations */

struct operation *operation_create(const char *name, MPI_Comm comm, const struct area *in,
                                   const struct area *out)
{
    struct operation *operation = calloc(1, sizeof *operation), **last = &first;

    if (!operation) accuse(NULL, "there is no memory for an operation");
    *operation = (struct operation){.name = name,
                                    .comm = comm,
                                    .started = true,
                                    .calls = roll_delay(),
                                    .refusals = roll_delay()};
    if (in) {
        operation->in = hold(in);
        operation->copy = pack(in, comm);
        operation->in_place = out && in->data == out->data;
    }
    if (out) {
        operation->out = hold(out);
        operation->hidden = allocate(area_bytes(out));
        memset(operation->hidden, POISON, (size_t)area_bytes(out));
        unpack(out, operation->hidden, comm);
    }
    while (*last) last = &(*last)->next;
    return *last = operation;
}

struct operation *operation_find(MPI_Request request)
{
    struct operation *operation = first;

    while (operation && operation->request != request) operation = operation->next;
    if (!operation) accuse(NULL, "a request is asked for that was not made, or is done already");
    return operation;
}

/* One that is not due holds back all that were made after it: messages keep their order. */
void operations_start(bool all)
{
    for (struct operation *o = first; o; o = o->next) {
        if (o->started) continue;
        if (!all && o->calls-- > 0) return;
        PMPI_Start(&o->request);
        o->started = true;
    }
}

static bool is_done(const struct operation *operation)
{
    MPI_Status status;
    int done;

    PMPI_Request_get_status(operation->request, &done, &status);
    return done;
}

/* Whoever waits, or asks again and again, lets the others work, and does not do so for ever. */
static void hold_up(struct operation *operation, bool waits)
{
    if (operation->asked++ == 0) operation->since = PMPI_Wtime();
    if (!waits && operation->asked < MANY_CALLS) return;
    if (PMPI_Wtime() - operation->since > patience)
        accuse(operation, "it has not been done for %g s", patience);
    usleep(20);
}

bool operation_test(struct operation *operation)
{
    if (operation->started && operation->refusals-- <= 0 && is_done(operation)) return true;
    hold_up(operation, false);
    return false;
}

static void operation_destroy(struct operation *operation)
{
    struct operation **link = &first;

    while (*link != operation) link = &(*link)->next;
    *link = operation->next;
    if (operation->copy) PMPI_Type_free(&operation->in.type);
    if (operation->hidden) PMPI_Type_free(&operation->out.type);
    free(operation->copy);
    free(operation->hidden);
    free(operation);
}

static void check_received(const struct operation *operation, int code, const MPI_Status *status)
{
    int bytes;

    if (code != MPI_SUCCESS) accuse(operation, "it fails, as by a message that is too long");
    if (!operation->message || !operation->hidden) return;
    PMPI_Get_count(status, MPI_PACKED, &bytes);
    if (bytes != area_bytes(&operation->out)) accuse(operation, "%d bytes came", bytes);
}

void operation_finish(struct operation *operation, MPI_Status *status)
{
    MPI_Status own;
    const int code = PMPI_Wait(&operation->request, &own);

    check_received(operation, code, &own);
    if (operation->message) PMPI_Request_free(&operation->request);
    if (operation->copy && !operation->in_place) check_sent(operation);
    if (operation->hidden) {
        check_poisoned(operation);
        unpack(&operation->out, operation->hidden, operation->comm);
    }
    if (status != MPI_STATUS_IGNORE) *status = own;
    operation_destroy(operation);
}

/* Now and then it is late. */
void operation_wait(struct operation *operation, MPI_Status *status)
{
    operations_start(true);
    if (roll(8) == 0) usleep((useconds_t)roll(300));
    while (!is_done(operation)) hold_up(operation, true);
    operation_finish(operation, status);
}

void operations_expect_none(MPI_Comm comm, const char *when)
{
    for (const struct operation *o = first; o; o = o->next)
        if (comm == MPI_COMM_NULL || o->comm == comm) accuse(o, "nobody waited for it %s", when);
}
