/* A distributed result held against the oracle. Every rank computes the double-precision partial
 * results of its own keys; nobody needs the whole of K and V, and memory is O(rows x d). */
#ifndef LS_CLI_VERIFY_H
#define LS_CLI_VERIFY_H

#include "cli/progress.h"
#include "cli/report.h"
#include "reference/contract.h"
#include "reference/gradient_contract.h"

enum { CLI_DQ, CLI_DK, CLI_DV, CLI_GRADIENTS };

/* Of dq, dk and dv what is to be judged; the exact gradients of dk and dv take lse and o of the
 * result for what they are. */
struct cli_verify_gradients {
    struct ls_tensor d_o;  /* gradient of o */
    struct ls_tensor o_lo; /* what rounding took from o, if it was used */
    bool has_o_lo;
    struct ls_tensor of[CLI_GRADIENTS]; /* this rank's parts */
    bool has[CLI_GRADIENTS];            /* dk and dv only with lse */
};

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
    const struct cli_verify_gradients *gradients; /* NULL: none */
};

struct cli_verdict {
    struct ls_verdict verdict;
    struct ls_errors errors;
    struct ls_gradient_verdict gradients[CLI_GRADIENTS];
    struct ls_gradient_errors gradient_errors[CLI_GRADIENTS];
    ls_dtype contract;
    bool has_lse, has_gradient[CLI_GRADIENTS];
    bool ok; /* all of it */
};

/* Collective; agreed by all ranks, which get the same verdict. Errors: LS_ENOMEM, LS_ECOMM. */
ls_status cli_verify(struct cli_verdict *out, const struct cli_world *world,
                     const struct cli_verify *what, struct cli_progress *progress);

/* Errors beside limits, then the last line "verified: ok" or "verified: FAILED"; `verify` in the
 * JSON. */
void cli_verify_report(const struct cli_report *report, const struct cli_verdict *v);

#endif
