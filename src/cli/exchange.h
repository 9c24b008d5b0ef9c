/* The exchanges that `bench comm` measures: who gets what, with data that tells whether it came. */
#ifndef LS_CLI_EXCHANGE_H
#define LS_CLI_EXCHANGE_H

#include "comm/transport.h"

/* Whose numbers a part of the output holds. */
typedef enum { FROM_PREVIOUS, FROM_FIRST, FROM_EACH_ITS_PART, FROM_ALL_SUMMED } cli_exchange_source;

struct cli_exchange {
    const char *name;
    /* adds it to a batch made for collective operations */
    void (*add)(struct ls_batch *batch, float *out, float *in, int64_t count);
    cli_exchange_source source;
    bool parted; /* the input has a part for each rank, of which this rank's arrives here */
    bool in_place;
    int bus_shares; /* a rank must send this many times (p-1)/p of the size; 0: the size */
};

#define CLI_EXCHANGES 6

extern const struct cli_exchange cli_exchanges[CLI_EXCHANGES];

/* Floats of one part, so that the larger side has `bytes`, rounded up to whole parts. */
int64_t cli_exchange_count(const struct cli_exchange *exchange, int64_t bytes, int p);

/* Bytes of the larger side, input or output. */
int64_t cli_exchange_bytes(const struct cli_exchange *exchange, int64_t count, int p);

/* Bytes of this size per second of the busiest link, by the convention of nccl-tests. */
double cli_exchange_bus_bytes(const struct cli_exchange *exchange, int64_t bytes, int p);

/* Fills the input, and the output with what must not stay there; of an all-gather the input is
 * this rank's part of the output. Both have room for the larger side. */
void cli_exchange_fill(float *out, float *in, const struct cli_exchange *exchange,
                       const struct ls_comm *comm, int64_t count);

/* Elements of the output that are not what the ranks filled in. */
int64_t cli_exchange_wrong(const float *out, const struct cli_exchange *exchange,
                           const struct ls_comm *comm, int64_t count);

#endif
