/* --random: a shape and a seed. */
#ifndef LS_CLI_RANDOM_H
#define LS_CLI_RANDOM_H

#include <stdbool.h>

#include "longspan/attention.h"

struct cli_random {
    bool given;
    struct ls_attention_shape shape; /* bf16; d_v is set */
    uint64_t seed;
};

/* "B,H,HKV,SQ,SK,D[/DV][,SEED]". Errors: LS_EVALUE. */
ls_status cli_random_set(struct cli_random *out, const char *text);

#endif
