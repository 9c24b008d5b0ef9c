#include "comm/transport.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/profile.h"
#include "base/trace.h"

/* ---- the trace: only the first thread communicates */

static const struct ls_trace_kind send_kind = {"send", "message", {"bytes", "to"}};
static const struct ls_trace_kind receive_kind = {"receive", "message", {"bytes", "from"}};
static const struct ls_trace_kind wait_kind = {"wait", "message", {"messages"}};

static void trace_messages(const struct ls_message *message, int n, double since)
{
    const double now = ls_trace_on ? ls_now() : 0;

    for (int i = 0; i < n && ls_trace_on; i++)
        ls_trace_add(message[i].is_send ? &send_kind : &receive_kind, 0, since, now,
                     (const int64_t[]){(int64_t)message[i].bytes, message[i].peer, 0});
}

/* ---- what is under way */

struct ls_transport ls_transport_of(const struct ls_comm *comm, struct ls_traffic *traffic)
{
    struct ls_transport t = {
        .rank = ls_comm_rank(comm), .size = ls_comm_size(comm), .traffic = traffic};

    t.self = ls_comm_backend(&t.ops, comm);
    return t;
}

static void link_batch(struct ls_batch *b)
{
    struct ls_traffic *traffic = b->transport.traffic;

    if (b->previous) return;
    b->next = traffic->under_way;
    b->previous = &traffic->under_way;
    if (b->next) b->next->previous = &b->next;
    traffic->under_way = b;
    if (traffic->mover) *traffic->mover = (struct ls_progress){ls_traffic_move, traffic};
}

static void unlink_batch(struct ls_batch *b)
{
    struct ls_traffic *traffic = b->transport.traffic;

    if (!b->previous) return;
    *b->previous = b->next;
    if (b->next) b->next->previous = b->previous;
    b->next = NULL;
    b->previous = NULL;
    if (traffic->mover && !traffic->under_way) *traffic->mover = traffic->idle;
}

/* ---- a batch */

ls_status ls_batch_init(struct ls_batch *out, const struct ls_transport *transport, int64_t most)
{
    *out = (struct ls_batch){.transport = *transport, .room = (int)most};
    if (most < INT_MAX) out->message = calloc((size_t)most + 1, sizeof *out->message);
    if (out->message) return LS_OK;
    return ls_fail(LS_ENOMEM, "no memory for a batch of %lld messages", (long long)most);
}

void ls_batch_fini(struct ls_batch *batch)
{
    unlink_batch(batch);
    if (batch->slices) batch->transport.ops->free(batch->transport.self, batch->slices);
    free(batch->message);
    *batch = (struct ls_batch){0};
}

static void empty(struct ls_batch *b)
{
    b->count = b->started = 0;
    b->proceed = NULL;
}

static void add(struct ls_batch *b, struct ls_message message)
{
    assert(b->count < b->room);
    b->message[b->count++] = message;
}

void ls_batch_send_at(struct ls_batch *batch, const void *in, size_t bytes, int to,
                      const char *site)
{
    add(batch, (struct ls_message){
                   .is_send = true, .peer = to, .data = (void *)in, .bytes = bytes, .site = site});
}

void ls_batch_receive_at(struct ls_batch *batch, void *into, size_t bytes, int from,
                         const char *site)
{
    add(batch, (struct ls_message){.peer = from, .data = into, .bytes = bytes, .site = site});
}

static ls_status check_peers(const struct ls_batch *b)
{
    for (int i = b->started; i < b->count; i++) {
        const struct ls_message *m = &b->message[i];

        if (m->peer < 0 || m->peer >= b->transport.size)
            return ls_fail(LS_ECOMM, "%s rank %d, the ranks are 0 to %d",
                           m->is_send ? "sending to" : "receiving from", m->peer,
                           b->transport.size - 1);
    }
    return LS_OK;
}

/* Starts the messages that were not yet. */
static ls_status start_messages(struct ls_batch *b)
{
    const struct ls_transport *t = &b->transport;
    const double since = ls_trace_on ? ls_now() : 0;
    struct ls_message *first = b->message + b->started;
    const int n = b->count - b->started;

    LS_TRY(check_peers(b));
    if (n > 0) LS_TRY(t->ops->start(t->self, first, n));
    b->started = b->count;
    for (int i = 0; i < n; i++)
        if (first[i].is_send) t->traffic->bytes_sent += (int64_t)first[i].bytes;
    trace_messages(first, n, since);
    return LS_OK;
}

/* The messages are done: those that follow from them are started. *done: there are none. */
static ls_status advance(bool *done, struct ls_batch *b)
{
    b->count = b->started = 0;
    if (b->proceed) b->proceed(b);
    *done = b->count == 0;
    if (*done) b->proceed = NULL;
    return start_messages(b);
}

ls_status ls_batch_start(struct ls_batch *batch)
{
    batch->failed = LS_OK;
    if (batch->proceed) batch->proceed(batch);
    const ls_status status = start_messages(batch);

    if (status == LS_OK && batch->count > 0)
        link_batch(batch);
    else
        empty(batch);
    return status;
}

static void move(struct ls_batch *b)
{
    const struct ls_transport *t = &b->transport;
    bool done = false;
    ls_status status = t->ops->test(&done, t->self, b->message, b->started);

    if (b->failed != LS_OK) return;
    if (status == LS_OK && done && b->proceed) status = advance(&done, b);
    if (status == LS_OK) return;
    b->failed = status;
    snprintf(b->failure, sizeof b->failure, "%s", ls_message());
}

void ls_traffic_move(void *traffic)
{
    for (struct ls_batch *b = ((struct ls_traffic *)traffic)->under_way; b; b = b->next) move(b);
}

static ls_status wait_for_messages(struct ls_batch *b)
{
    const struct ls_transport *t = &b->transport;
    bool done = false;

    while (!done && b->failed == LS_OK) {
        if (b->started > 0) LS_TRY(t->ops->wait(t->self, b->message, b->started));
        LS_TRY(advance(&done, b));
    }
    return LS_OK;
}

ls_status ls_batch_wait(struct ls_batch *batch)
{
    struct ls_traffic *traffic = batch->transport.traffic;
    const int messages = batch->started;

    if (!batch->previous) return LS_OK;
    const double since = ls_now();
    const ls_status status = wait_for_messages(batch);

    traffic->exposed_seconds += ls_now() - since;
    ls_trace_note(&wait_kind, since, messages);
    unlink_batch(batch);
    empty(batch);
    return batch->failed == LS_OK ? status : ls_fail(batch->failed, "%s", batch->failure);
}

ls_status ls_batch_run(struct ls_batch *batch)
{
    LS_TRY(ls_batch_start(batch));
    return ls_batch_wait(batch);
}
