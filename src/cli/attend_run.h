/* One run of attention, between the file that makes it and the one that tells of it. */
#ifndef LS_CLI_ATTEND_RUN_H
#define LS_CLI_ATTEND_RUN_H

#include "attention/method.h"
#include "base/ledger.h"
#include "cli/gemm.h"
#include "cli/inputs.h"
#include "cli/outputs.h"
#include "cli/report.h"
#include "cli/verify.h"

struct cli_attend_options {
    struct cli_output_options output;
    cli_progress_mode progress;
    int threads;
    struct cli_input_options input;
    struct ls_attention_options attention;
    int64_t repeat;
    const char *out;
    bool verify;
    int64_t rows;
};

/* What was measured: over all ranks, of the fastest repeat. */
struct cli_attend_result {
    double seconds;
    double gemm; /* GF/s a thread, all threads at once */
    ls_dtype gemm_type;
    struct ls_attention_report report; /* of this rank */
    double bytes_sent, tiles;          /* sums */
    double exposed, ledger_most, ledger_least;
    double tag_most[LS_TAG_COUNT];
};

/* Everything of one run; zeroed, then filled in stage by stage. */
struct cli_attend_run {
    struct cli_world *world;
    struct cli_attend_options options;
    struct cli_report report;
    struct cli_progress *progress;
    struct cli_inputs inputs;
    const struct ls_method *method;
    struct ls_problem problem;
    struct ls_cost cost;
    struct cli_output output;
    struct ls_tensor qkv[3], o, lse;
    struct cli_gemm *gemm;
    struct ls_attention_plan *plan;
    struct cli_attend_result result;
    struct cli_verdict verdict;
};

/* The text and the JSON of a finished run. Agreed by all ranks. Errors: LS_EIO, LS_ECOMM. */
ls_status cli_attend_report(struct cli_attend_run *run);

#endif
