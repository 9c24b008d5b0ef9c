/* A distributed result held against the oracle. Every rank computes the double-precision partial
 * results of its own keys; nobody needs the whole of K and V, and memory is O(rows x d). */
#ifndef LS_CLI_VERIFY_H
#define LS_CLI_VERIFY_H

#include "cli/progress.h"
#include "cli/report.h"
#include "reference/contract.h"

struct cli_verify {
    struct ls_attention_shape shape;
    struct ls_mask mask;
    struct ls_scores scores;
    struct ls_layout q_layout, k_layout;
    struct ls_tensor q, k, v; /* this rank's parts of the inputs */
    struct ls_tensor o;       /* this rank's part of the result */
    const float *lse;         /* [b, h, s_loc]; NULL: o alone is judged */
    ls_dtype contract;        /* the type whose limits hold */
    int64_t rows;             /* of each head: the first and last of every part, the rest seeded;
                               * 0: all */
    int threads;
};

struct cli_verdict {
    struct ls_verdict verdict;
    struct ls_errors errors;
    ls_dtype contract;
    bool has_lse;
};

/* Collective; agreed by all ranks, which get the same verdict. Errors: LS_ENOMEM, LS_ECOMM. */
ls_status cli_verify(struct cli_verdict *out, const struct cli_world *world,
                     const struct cli_verify *what, struct cli_progress *progress);

/* Errors beside limits, then the last line "verified: ok" or "verified: FAILED"; `verify` in the
 * JSON. */
void cli_verify_report(const struct cli_report *report, const struct cli_verdict *v);

#endif
