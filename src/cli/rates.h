/* How fast these ranks compute attention and move messages, measured for `plan --measure`, and the
 * time that a method's cost then comes to. */
#ifndef LS_CLI_RATES_H
#define LS_CLI_RATES_H

#include "attention/method.h"
#include "cli/world.h"
#include "plan/layer_work.h"

struct cli_rates {
    double message_bytes;   /* a second, of each rank to the next and from the one before */
    double message_seconds; /* of a message of a few bytes */
};

/* Sends round the ranks, all of them at once. Agreed by all ranks. Errors: LS_EVALUE if there is
 * one rank only; LS_ENOMEM, LS_ECOMM. */
ls_status cli_rates_measure(struct cli_rates *out, const struct cli_world *world);

/* What each rank computes and reads, all of them at work: `bench gemm` and `bench memory`. Agreed
 * by all ranks. Errors: LS_ENOMEM, LS_EINTERNAL. */
ls_status cli_rates_machine(struct ls_rates *out, const struct cli_world *world, ls_dtype type,
                            int threads);

/* GF/s of each rank, all of them at work: one group of heads, as many query rows as the predicted
 * kernel calls have, a rank's keys; of both no more than tell the speed. Agreed by all ranks.
 * Errors: LS_ENOMEM, LS_EINTERNAL. */
ls_status cli_rates_kernel(double *gflops, const struct cli_world *world,
                           const struct ls_attention_shape *shape,
                           const struct ls_attention_options *options,
                           const struct ls_attention_prediction *prediction);

/* Computing, sending and starting messages one after the other: what is hidden behind computing
 * makes it less. rates NULL: one rank, which sends nothing. */
double cli_rates_seconds(const struct cli_rates *rates, const struct ls_cost *cost, int p,
                         double gflops);

#endif
