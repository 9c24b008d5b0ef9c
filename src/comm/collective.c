/* Collective operations, made of messages. Each goes in phases: whatever follows from the messages
 * of one is done, and those of the next are added, by the same function on every rank. */
#include "comm/transport.h"

#include <assert.h>

#include "tensor/dtype.h"

/* Elements of one rank's share of the slice of a sum; a slice of all ranks stays in cache. */
#define SLICE_ELEMENTS (1 << 18)

static int64_t slice_width(int p)
{
    return SLICE_ELEMENTS / p + 1;
}

size_t ls_batch_collective_bytes(int p)
{
    return (size_t)(slice_width(p) * p) * sizeof(float);
}

ls_status ls_batch_init_collective(struct ls_batch *out, const struct ls_transport *transport)
{
    LS_TRY(ls_batch_init(out, transport, 2 * (int64_t)transport->size));
    return transport->ops->alloc(&out->slices, transport->self,
                                 ls_batch_collective_bytes(transport->size));
}

static void proceed(struct ls_batch *batch);

static void begin(struct ls_batch *b, struct ls_collective_call call)
{
    assert(b->slices && b->count == 0);
    b->proceed = proceed;
    b->call = call;
}

void ls_batch_all_gather(struct ls_batch *batch, void *out, size_t bytes)
{
    begin(batch, (struct ls_collective_call){LS_ALL_GATHER, .out = out, .n = (int64_t)bytes});
}

void ls_batch_all_to_all(struct ls_batch *batch, void *out, const void *in, size_t bytes)
{
    begin(batch,
          (struct ls_collective_call){LS_ALL_TO_ALL, .out = out, .in = in, .n = (int64_t)bytes});
}

void ls_batch_broadcast(struct ls_batch *batch, void *data, size_t bytes, int root)
{
    begin(batch, (struct ls_collective_call){LS_BROADCAST, .out = data, .n = (int64_t)bytes,
                                             .root = root});
}

void ls_batch_reduce_scatter(struct ls_batch *batch, void *out, const void *in, ls_dtype type,
                             int64_t n)
{
    begin(batch, (struct ls_collective_call){LS_REDUCE_SCATTER, .out = out, .in = in, .type = type,
                                             .n = n});
}

void ls_batch_all_reduce(struct ls_batch *batch, void *values, ls_dtype type, int64_t n,
                         ls_reduction how)
{
    begin(batch, (struct ls_collective_call){LS_ALL_REDUCE, .out = values, .type = type, .n = n,
                                             .how = how});
}

/* ---- the phases */

/* The part of [0, n) that one rank has. */
struct share {
    int64_t first, count;
};

static struct share share_of(int64_t n, int p, int rank)
{
    const int64_t base = n / p, more = n % p;

    return (struct share){rank * base + (rank < more ? rank : more), base + (rank < more)};
}

/* This rank's share of out goes to all, and theirs come. */
static void gather(struct ls_batch *b, char *out, int64_t n, int64_t size)
{
    const struct ls_transport *t = &b->transport;
    const struct share own = share_of(n, t->size, t->rank);

    for (int i = 1; i < t->size; i++) {
        const int from = (t->rank - i + t->size) % t->size;
        const struct share theirs = share_of(n, t->size, from);

        ls_batch_receive(b, out + theirs.first * size, (size_t)(theirs.count * size), from);
    }
    for (int i = 1; i < t->size; i++)
        ls_batch_send(b, out + own.first * size, (size_t)(own.count * size),
                      (t->rank + i) % t->size);
}

static void all_to_all(struct ls_batch *b)
{
    const struct ls_transport *t = &b->transport;
    const struct ls_collective_call *c = &b->call;

    t->ops->copy(t->self, c->out + t->rank * c->n, c->in + t->rank * c->n, (size_t)c->n);
    for (int i = 1; i < t->size; i++) {
        const int from = (t->rank - i + t->size) % t->size;

        ls_batch_receive(b, c->out + from * c->n, (size_t)c->n, from);
    }
    for (int i = 1; i < t->size; i++) {
        const int to = (t->rank + i) % t->size;

        ls_batch_send(b, c->in + to * c->n, (size_t)c->n, to);
    }
}

/* Each rank gets a share from the root, for all to gather. Source: van de Geijn 1994, "On global
 * combine operations". */
static void scatter(struct ls_batch *b)
{
    const struct ls_transport *t = &b->transport;
    const struct ls_collective_call *c = &b->call;

    for (int i = 1; i < t->size; i++) {
        const int r = (c->root + i) % t->size;
        const struct share share = share_of(c->n, t->size, r);

        if (t->rank == c->root)
            ls_batch_send(b, c->out + share.first, (size_t)share.count, r);
        else if (t->rank == r)
            ls_batch_receive(b, c->out + share.first, (size_t)share.count, c->root);
    }
}

/* What is to be summed for a rank in the slice that is under way, and for this one where it is
 * summed: of an all-reduce its share of the slice, else the slice of its part. */
struct slice {
    char *data;
    int64_t count;
};

static int64_t slice_end(const struct ls_batch *b)
{
    const struct ls_collective_call *c = &b->call;
    const int p = b->transport.size;
    const int64_t end = c->first + slice_width(p) * (c->what == LS_ALL_REDUCE ? p : 1);

    return end < c->n ? end : c->n;
}

static struct slice slice_for(const struct ls_batch *b, int rank)
{
    const struct ls_collective_call *c = &b->call;
    const int64_t size = ls_dtype_size(c->type), count = slice_end(b) - c->first;

    if (c->what == LS_REDUCE_SCATTER)
        return (struct slice){(char *)c->in + (rank * c->n + c->first) * size, count};
    const struct share share = share_of(count, b->transport.size, rank);
    return (struct slice){c->out + (c->first + share.first) * size, share.count};
}

/* Where the part of one rank of what this one sums is: a width after the one before. */
static char *summand(const struct ls_batch *b, int rank)
{
    return (char *)b->slices + rank * slice_width(b->transport.size) * ls_dtype_size(b->call.type);
}

static void exchange_slice(struct ls_batch *b)
{
    const struct ls_transport *t = &b->transport;
    const int64_t size = ls_dtype_size(b->call.type);
    const struct slice own = slice_for(b, t->rank);

    t->ops->copy(t->self, summand(b, t->rank), own.data, (size_t)(own.count * size));
    for (int i = 1; i < t->size; i++) {
        const int from = (t->rank - i + t->size) % t->size;

        ls_batch_receive(b, summand(b, from), (size_t)(own.count * size), from);
    }
    for (int i = 1; i < t->size; i++) {
        const int to = (t->rank + i) % t->size;
        const struct slice theirs = slice_for(b, to);

        ls_batch_send(b, theirs.data, (size_t)(theirs.count * size), to);
    }
}

static void fold_slice(struct ls_batch *b)
{
    const struct ls_transport *t = &b->transport;
    const struct ls_collective_call *c = &b->call;
    const struct slice own = slice_for(b, t->rank);
    char *out = c->what == LS_ALL_REDUCE ? own.data : c->out + c->first * ls_dtype_size(c->type);

    t->ops->fold(t->self, out, b->slices, t->size, slice_width(t->size), own.count, c->type,
                 c->how);
}

void ls_batch_fold(const struct ls_batch *batch, void *out, const void *parts, ls_dtype type,
                   int64_t n)
{
    const struct ls_transport *t = &batch->transport;

    t->ops->fold(t->self, out, parts, t->size, n, n, type, LS_REDUCE_SUM);
}

/* Of a slice the others' shares, and then its own sum to each of them. */
static int64_t all_reduced(int p, int rank, int64_t slice)
{
    const int64_t own = share_of(slice, p, rank).count;

    return slice - own + own * (p - 1);
}

int64_t ls_batch_all_reduce_bytes(int p, int rank, int64_t n, ls_dtype type)
{
    const int64_t slice = slice_width(p) * p;

    if (p == 1) return 0;
    return (n / slice * all_reduced(p, rank, slice) + all_reduced(p, rank, n % slice)) *
           ls_dtype_size(type);
}

/* Slice by slice, so that it takes little memory. */
static void reduce(struct ls_batch *b)
{
    const struct ls_transport *t = &b->transport;
    struct ls_collective_call *c = &b->call;
    const bool all = c->what == LS_ALL_REDUCE;
    const int64_t size = ls_dtype_size(c->type);
    const int phases = all ? 2 : 1;

    if (t->size == 1) {
        if (!all) t->ops->copy(t->self, c->out, c->in, (size_t)(c->n * size));
        return;
    }
    if (c->phase > 0 && (c->phase - 1) % phases == 0) fold_slice(b);
    if (all && c->phase % 2 == 1) {
        gather(b, c->out + c->first * size, slice_end(b) - c->first, size);
        return;
    }
    if (c->phase > 0) c->first = slice_end(b);
    if (c->first < c->n) exchange_slice(b);
}

static void proceed(struct ls_batch *batch)
{
    struct ls_collective_call *c = &batch->call;

    switch (c->what) {
    case LS_ALL_GATHER:
        if (c->phase == 0) gather(batch, c->out, c->n * batch->transport.size, 1);
        break;
    case LS_ALL_TO_ALL:
        if (c->phase == 0) all_to_all(batch);
        break;
    case LS_BROADCAST:
        if (c->phase == 0) scatter(batch);
        if (c->phase == 1) gather(batch, c->out, c->n, 1);
        break;
    case LS_REDUCE_SCATTER:
    case LS_ALL_REDUCE:
        reduce(batch);
        break;
    }
    c->phase++;
}
