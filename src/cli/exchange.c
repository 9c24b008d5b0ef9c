#include "cli/exchange.h"

static void add_sendrecv(struct ls_batch *batch, float *out, float *in, int64_t count)
{
    const int p = batch->transport.size, rank = batch->transport.rank;
    const size_t bytes = sizeof(float) * (size_t)count;

    ls_batch_receive(batch, out, bytes, (rank + p - 1) % p);
    ls_batch_send(batch, in, bytes, (rank + 1) % p);
}

static void add_broadcast(struct ls_batch *batch, float *out, float *in, int64_t count)
{
    (void)in;
    ls_batch_broadcast(batch, out, sizeof(float) * (size_t)count, 0);
}

static void add_all_reduce(struct ls_batch *batch, float *out, float *in, int64_t count)
{
    (void)in;
    ls_batch_all_reduce(batch, out, LS_F32, count, LS_REDUCE_SUM);
}

static void add_reduce_scatter(struct ls_batch *batch, float *out, float *in, int64_t count)
{
    ls_batch_reduce_scatter(batch, out, in, LS_F32, count);
}

static void add_all_gather(struct ls_batch *batch, float *out, float *in, int64_t count)
{
    (void)in;
    ls_batch_all_gather(batch, out, sizeof(float) * (size_t)count);
}

static void add_all_to_all(struct ls_batch *batch, float *out, float *in, int64_t count)
{
    ls_batch_all_to_all(batch, out, in, sizeof(float) * (size_t)count);
}

/* Source of the bus shares: doc/PERFORMANCE.md of nccl-tests. */
const struct cli_exchange cli_exchanges[CLI_EXCHANGES] = {
    {"sendrecv", add_sendrecv, FROM_PREVIOUS, .bus_shares = 0},
    {"broadcast", add_broadcast, FROM_FIRST, .in_place = true, .bus_shares = 0},
    {"all-reduce", add_all_reduce, FROM_ALL_SUMMED, .in_place = true, .bus_shares = 2},
    {"reduce-scatter", add_reduce_scatter, FROM_ALL_SUMMED, .parted = true, .bus_shares = 1},
    {"all-gather", add_all_gather, FROM_EACH_ITS_PART, .in_place = true, .bus_shares = 1},
    {"all-to-all", add_all_to_all, FROM_EACH_ITS_PART, .parted = true, .bus_shares = 1},
};

static int input_parts(const struct cli_exchange *x, int p)
{
    return x->parted ? p : 1;
}

static int output_parts(const struct cli_exchange *x, int p)
{
    return x->source == FROM_EACH_ITS_PART ? p : 1;
}

static int most_parts(const struct cli_exchange *x, int p)
{
    return x->parted ? p : output_parts(x, p);
}

int64_t cli_exchange_count(const struct cli_exchange *exchange, int64_t bytes, int p)
{
    const int64_t part = (int64_t)sizeof(float) * most_parts(exchange, p);

    return (bytes + part - 1) / part;
}

int64_t cli_exchange_bytes(const struct cli_exchange *exchange, int64_t count, int p)
{
    return count * (int64_t)sizeof(float) * most_parts(exchange, p);
}

double cli_exchange_bus_bytes(const struct cli_exchange *exchange, int64_t bytes, int p)
{
    if (exchange->bus_shares == 0) return (double)bytes;
    return (double)bytes * exchange->bus_shares * (p - 1) / p;
}

/* What `rank` has at index i of its input: a different number at each of the indices around, and
 * small enough that the sum over 65,000 ranks is exact. */
static float element(int rank, int64_t i)
{
    const uint32_t mixed = ((uint32_t)i + (uint32_t)rank * 0x9e3779b9U) * 0x85ebca6bU;

    return (float)(mixed >> 24);
}

void cli_exchange_fill(float *out, float *in, const struct cli_exchange *exchange,
                       const struct ls_comm *comm, int64_t count)
{
    const int p = ls_comm_size(comm), rank = ls_comm_rank(comm);
    const int64_t n = count * input_parts(exchange, p), all = count * output_parts(exchange, p);
    float *input = exchange->in_place ? out + (all > n ? rank * count : 0) : in;

    for (int64_t i = 0; i < all; i++) out[i] = -1;
    for (int64_t i = 0; i < n; i++) input[i] = element(rank, i);
}

/* The ranks, first to last, whose elements are summed in this part of the output. */
static void find_sources(int *first, int *last, cli_exchange_source source,
                         const struct ls_comm *comm, int part)
{
    const int p = ls_comm_size(comm);

    *first = 0;
    switch (source) {
    case FROM_PREVIOUS:
        *first = (ls_comm_rank(comm) + p - 1) % p;
        break;
    case FROM_EACH_ITS_PART:
        *first = part;
        break;
    case FROM_FIRST:
    case FROM_ALL_SUMMED:
        break;
    }
    *last = source == FROM_ALL_SUMMED ? p - 1 : *first;
}

int64_t cli_exchange_wrong(const float *out, const struct cli_exchange *exchange,
                           const struct ls_comm *comm, int64_t count)
{
    const int64_t offset = exchange->parted ? count * ls_comm_rank(comm) : 0;
    int64_t wrong = 0;

    for (int part = 0; part < output_parts(exchange, ls_comm_size(comm)); part++) {
        int first, last;

        find_sources(&first, &last, exchange->source, comm, part);
        for (int64_t i = 0; i < count; i++) {
            float expected = 0;

            for (int r = first; r <= last; r++) expected += element(r, offset + i);
            wrong += out[part * count + i] != expected;
        }
    }
    return wrong;
}
