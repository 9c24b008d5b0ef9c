#include "mpi/watch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/profile.h"
#include "mpi/checked.h"

#define BEAT_SECONDS 1.0  /* between two beats */
#define BEATS_A_TIMEOUT 4 /* at least, where the timeout is short */
#define BEAT_TAG 0
#define PLACE_LENGTH 24

/* What is known of a rank. */
struct record {
    uint32_t beats; /* that it had made */
    int32_t step;   /* its waits since it came to this place */
    char place[PLACE_LENGTH];
};

/* A rank with which this one exchanges beats. Sends are synchronous, and the next one waits until
 * the last has arrived: of a rank that does not listen no more than one lies there. */
struct contact {
    int records; /* that it is told: its own, or those of all ranks; 0: no contact */
    struct record *message, own;
    MPI_Request sending;
};

/* Partners are the ranks 1, 2, 4, ... before and behind this one. They pass on what they hear, so
 * that everything is known everywhere after log2 p beats at most, and it costs a rank 2 log2 p
 * messages a second. Ranks that exchange messages of their own become contacts, too, but are told
 * of each other alone. */
struct mpi_watch {
    MPI_Comm comm;
    int rank, size, users;
    double timeout, interval, due;
    double awake;            /* since when this rank has been listening without a gap */
    struct contact *contact; /* [size] */
    struct record *known;    /* [size], this rank's own among them */
    double *heard;           /* [size] when: of a contact from itself, of others from anybody */
    struct record *heap, *incoming; /* the partners' messages; [size] */
    MPI_Request receiving;
    bool failed;
    char failure[960];
};

/* ---- start and end */

static int partners(int size)
{
    int n = 0;

    for (int step = 1; step < size; step *= 2) n += 2;
    return n;
}

static void add_contact(struct mpi_watch *w, int peer)
{
    struct contact *c = &w->contact[peer];

    if (peer == w->rank || c->records > 0) return;
    c->records = 1;
    c->message = &c->own;
    c->sending = MPI_REQUEST_NULL;
}

static void add_partner(struct mpi_watch *w, int peer, struct record *message)
{
    add_contact(w, peer);
    w->contact[peer].records = w->size;
    w->contact[peer].message = message;
}

static void add_partners(struct mpi_watch *w)
{
    struct record *message = w->heap;

    for (int step = 1; step < w->size; step *= 2) {
        add_partner(w, (w->rank + step) % w->size, message);
        add_partner(w, (w->rank + w->size - step) % w->size, message + w->size);
        message += 2 * w->size;
    }
}

static void free_watch(struct mpi_watch *w)
{
    if (!w) return;
    free(w->incoming);
    free(w->heap);
    free(w->heard);
    free(w->known);
    free(w->contact);
    free(w);
}

/* NULL without memory. */
static struct mpi_watch *allocate(int size)
{
    struct mpi_watch *w = calloc(1, sizeof *w);
    const size_t n = (size_t)size;

    if (!w) return NULL;
    w->contact = calloc(n, sizeof *w->contact);
    w->known = calloc(n, sizeof *w->known);
    w->heard = calloc(n, sizeof *w->heard);
    w->heap = calloc(n * (size_t)partners(size) + 1, sizeof *w->heap);
    w->incoming = calloc(n, sizeof *w->incoming);
    if (w->contact && w->known && w->heard && w->heap && w->incoming) return w;
    free_watch(w);
    return NULL;
}

static ls_status start(struct mpi_watch *w, MPI_Comm comm, int seconds)
{
    w->comm = comm;
    MPI_Comm_rank(comm, &w->rank);
    MPI_Comm_size(comm, &w->size);
    w->users = 1;
    w->timeout = seconds;
    w->interval = fmin(BEAT_SECONDS, w->timeout / BEATS_A_TIMEOUT);
    w->due = w->awake = ls_now();
    add_partners(w);
    LS_TRY(mpi_checked(MPI_Recv_init(w->incoming, w->size * (int)sizeof *w->incoming, MPI_BYTE,
                                     MPI_ANY_SOURCE, BEAT_TAG, comm, &w->receiving),
                       "preparing to hear of the other ranks"));
    return mpi_checked(MPI_Start(&w->receiving), "preparing to hear of the other ranks");
}

ls_status mpi_watch_create(struct mpi_watch **out, MPI_Comm from, int seconds)
{
    MPI_Comm comm;
    int size, everybody;
    ls_status status;

    LS_TRY(mpi_checked(MPI_Comm_dup(from, &comm), "duplicating a communicator"));
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    MPI_Comm_size(comm, &size);
    struct mpi_watch *w = allocate(size);

    everybody = w != NULL;
    status = mpi_checked(MPI_Allreduce(MPI_IN_PLACE, &everybody, 1, MPI_INT, MPI_LAND, comm),
                         "setting a timeout");
    if (status == LS_OK && !everybody)
        status = ls_fail(LS_ENOMEM, "no memory to watch %d ranks", size);
    LS_TRY_GOTO(status, status, free_all);
    LS_TRY_GOTO(status, start(w, comm, seconds), free_all);
    *out = w;
    return LS_OK;
free_all:
    free_watch(w);
    MPI_Comm_free(&comm);
    return status;
}

/* ---- beats */

/* A contact is told, unless it has not taken the last beat yet. */
static void tell(struct mpi_watch *w, int peer)
{
    struct contact *c = &w->contact[peer];
    const struct record *news = c->records == 1 ? &w->known[w->rank] : w->known;
    const size_t bytes = (size_t)c->records * sizeof *news;
    int done = 1;

    MPI_Test(&c->sending, &done, MPI_STATUS_IGNORE);
    if (!done) return;
    memcpy(c->message, news, bytes);
    MPI_Issend(c->message, (int)bytes, MPI_BYTE, peer, BEAT_TAG, w->comm, &c->sending);
}

static void hear(struct mpi_watch *w, int from, int bytes, double now)
{
    w->heard[from] = now;
    add_contact(w, from);
    if (bytes == (int)sizeof *w->known) w->known[from] = w->incoming[0];
    if (bytes < w->size * (int)sizeof *w->known) return;
    for (int r = 0; r < w->size; r++) {
        if (w->incoming[r].beats <= w->known[r].beats) continue;
        w->known[r] = w->incoming[r];
        if (w->contact[r].records == 0) w->heard[r] = now;
    }
}

/* MPI need not tell of a beat that failed; it is one that nobody heard. */
static void listen(struct mpi_watch *w, double now)
{
    MPI_Status status;
    int arrived = 0, bytes;

    for (;;) {
        if (MPI_Test(&w->receiving, &arrived, &status) != MPI_SUCCESS || !arrived) return;
        MPI_Get_count(&status, MPI_BYTE, &bytes);
        hear(w, status.MPI_SOURCE, bytes, now);
        MPI_Start(&w->receiving);
    }
}

ls_status mpi_watch_status(const struct mpi_watch *w)
{
    return w && w->failed ? ls_fail(LS_ECOMM, "%s", w->failure) : LS_OK;
}

/* After a gap, such as one of a stopped process, what the others sent lies there, and the time in
 * which this rank could not hear is not held against them. */
ls_status mpi_watch_beat(struct mpi_watch *w)
{
    if (!w) return LS_OK;
    LS_TRY(mpi_watch_status(w));
    const double now = ls_now();

    if (now < w->due) return LS_OK;
    if (now > w->due + w->interval) w->awake = now;
    w->due = now + w->interval;
    w->known[w->rank].beats++;
    w->heard[w->rank] = now;
    listen(w, now);
    for (int r = 0; r < w->size; r++)
        if (w->contact[r].records > 0) tell(w, r);
    return LS_OK;
}

void mpi_watch_place(struct mpi_watch *w, const char *what, const char *how)
{
    if (!w) return;
    struct record *own = &w->known[w->rank];

    memset(own->place, 0, sizeof own->place);
    snprintf(own->place, sizeof own->place, "%s%s%s", what, *how ? " " : "", how);
    own->step = 0;
}

ls_status mpi_watch_meet(struct mpi_watch *w, int peer)
{
    if (!w) return LS_OK;
    add_contact(w, peer);
    return mpi_watch_status(w);
}

/* ---- waiting */

bool mpi_watch_is_due(const struct mpi_watch *w)
{
    return w && (w->failed || ls_now() >= w->due);
}

/* Seconds, without those in which this rank could not hear. */
static double silence(const struct mpi_watch *w, int r, double now)
{
    return now - fmax(w->heard[r], w->awake);
}

/* "in ring forward, step 3"; nothing before the first phase. */
static void print_place(char *out, size_t length, const struct record *of)
{
    *out = '\0';
    if (*of->place) snprintf(out, length, " in %s, step %d", of->place, (int)of->step);
}

static bool is_alike(const struct mpi_watch *w, int a, int b, double now)
{
    return w->known[a].step == w->known[b].step &&
           strcmp(w->known[a].place, w->known[b].place) == 0 &&
           floor(silence(w, a, now)) == floor(silence(w, b, now));
}

/* What is known of all ranks, those that follow each other and are alike together. */
static void print_ranks(char *out, size_t length, const struct mpi_watch *w, double now)
{
    size_t used = 0;

    for (int r = 0, end; r < w->size && used < length; r = end) {
        char last[16] = "", place[64];

        for (end = r + 1; end < w->size && is_alike(w, r, end, now);) end++;
        if (end - r > 1) snprintf(last, sizeof last, " to %d", end - 1);
        print_place(place, sizeof place, &w->known[r]);
        used += (size_t)snprintf(out + used, length - used, "%srank%s %d%s %.0f s ago%s",
                                 r > 0 ? "; " : "", end - r > 1 ? "s" : "", r, last,
                                 floor(silence(w, r, now)), place);
    }
    if (used >= length) snprintf(out + length - 4, 4, "...");
}

/* Fails if nothing was heard of `peer` for too long. */
static ls_status judge(struct mpi_watch *w, int peer, size_t bytes)
{
    const double now = ls_now();
    char place[64], ranks[640];

    if (silence(w, peer, now) <= w->timeout) return LS_OK;
    print_place(place, sizeof place, &w->known[w->rank]);
    print_ranks(ranks, sizeof ranks, w, now);
    snprintf(
        w->failure, sizeof w->failure,
        "rank %d waits%s for rank %d, of which it has heard nothing for %.0f s (the timeout is "
        "%.0f s), %zu bytes outstanding; last heard of: %s",
        w->rank, place, peer, silence(w, peer, now), w->timeout, bytes, ranks);
    w->failed = true;
    return mpi_watch_status(w);
}

ls_status mpi_watch_judge(struct mpi_watch *w, const struct ls_message *message, int n,
                          struct mpi_ranks ranks)
{
    size_t bytes = 0;
    int worst = w->rank;

    for (int i = 0; i < n; i++) {
        const int peer = ranks.rank[message[i].peer];

        if (message[i].handle == 0) continue;
        bytes += message[i].bytes;
        if (w->heard[peer] < w->heard[worst]) worst = peer;
    }
    return judge(w, worst, bytes);
}

/* Who never waits for long is heard of as well; the next wait reports what fails. */
void mpi_watch_step(struct mpi_watch *w)
{
    if (!w) return;
    w->known[w->rank].step++;
    mpi_watch_beat(w);
}

/* MPI_Test sets a request that is done to MPI_REQUEST_NULL, as one of a blocking operation is. */
ls_status mpi_watch_finish(struct mpi_watch *w, struct mpi_ranks ranks, MPI_Request collective,
                           size_t bytes)
{
    while (collective != MPI_REQUEST_NULL) {
        int done, worst = w->rank;

        LS_TRY(mpi_checked(MPI_Test(&collective, &done, MPI_STATUS_IGNORE),
                           "completing an exchange of all ranks"));
        if (done || !mpi_watch_is_due(w)) continue;
        LS_TRY(mpi_watch_beat(w));
        for (int i = 0; i < (ranks.count > 0 ? ranks.count : w->size); i++) {
            const int r = ranks.count > 0 ? ranks.rank[i] : i;

            if (w->heard[r] < w->heard[worst]) worst = r;
        }
        LS_TRY(judge(w, worst, bytes));
    }
    mpi_watch_step(w);
    return LS_OK;
}

/* ---- sharing, and the end */

struct mpi_watch *mpi_watch_share(struct mpi_watch *w)
{
    if (w) w->users++;
    return w;
}

/* Listens until the request is done, or for too long. */
static bool is_done_in_time(struct mpi_watch *w, MPI_Request *request, double until)
{
    int done = 0;

    while (!done) {
        const double now = ls_now();

        if (now > until || MPI_Test(request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
        listen(w, now);
    }
    return true;
}

/* Nobody stops telling before all ranks are here, or listening before all were told everything.
 * Source of the second half: Hoefler, Siebert, Lumsdaine 2010 (synchronous sends, then a
 * non-blocking barrier). */
static bool part(struct mpi_watch *w)
{
    MPI_Request barrier;

    if (MPI_Ibarrier(w->comm, &barrier) != MPI_SUCCESS) return false;
    if (mpi_watch_finish(w, (struct mpi_ranks){0}, barrier, 0) != LS_OK) return false;
    const double until = ls_now() + w->timeout;

    for (int r = 0; r < w->size; r++)
        if (w->contact[r].records > 0 && !is_done_in_time(w, &w->contact[r].sending, until))
            return false;
    if (MPI_Ibarrier(w->comm, &barrier) != MPI_SUCCESS) return false;
    if (!is_done_in_time(w, &barrier, until)) return false;
    MPI_Cancel(&w->receiving);
    MPI_Wait(&w->receiving, MPI_STATUS_IGNORE);
    MPI_Request_free(&w->receiving);
    MPI_Comm_free(&w->comm);
    return true;
}

/* What MPI may still write to is left to it. */
void mpi_watch_release(struct mpi_watch *w)
{
    if (!w || --w->users > 0) return;
    if (!w->failed && part(w)) free_watch(w);
}
