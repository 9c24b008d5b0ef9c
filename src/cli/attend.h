/* One run of attention: its command line, its stages, its report. `attend` and `bench attend`
 * differ in their defaults. */
#ifndef LS_CLI_ATTEND_H
#define LS_CLI_ATTEND_H

#include "attention/method.h"
#include "base/ledger.h"
#include "cli/gemm.h"
#include "cli/mask_arrays.h"
#include "cli/outputs.h"
#include "cli/quantized.h"
#include "cli/report.h"
#include "longspan/judge.h"
#include "longspan/timeline.h"

struct cli_attend_defaults {
    const char *doc;    /* of --help */
    const char *random; /* value of --random where no input is given; NULL: an error then */
    int repeat;
};

struct cli_attend_options {
    struct cli_options shared;
    int64_t repeat;
    const char *out;
    bool verify;
    int64_t rows;
};

/* What was measured: over all ranks, of the fastest repeat. */
struct cli_attend_result {
    double seconds, backward_seconds;
    struct ls_attention_report report; /* of this rank, of the fastest forward */
    struct ls_attention_work backward; /* of this rank, of the fastest backward */
    double backward_bytes_sent, backward_tiles, backward_exposed; /* as those below */
    double bytes_sent, tiles;                                     /* sums */
    double tiles_most;                                            /* of a rank */
    double exposed, ledger_most, ledger_least;
    double profile[4]; /* sums: pack, tile, merge, finish seconds */
    double tag_most[LS_TAG_COUNT];
};

/* Everything of one run; zeroed, then filled in stage by stage. */
struct cli_attend_run {
    struct cli_world *world;
    struct cli_attend_options options;
    struct cli_report report;
    struct cli_progress *progress;
    struct cli_inputs inputs;
    struct cli_mask_arrays arrays;
    const struct ls_method *method;
    struct ls_problem problem;
    struct ls_cost cost;
    struct ls_output *output;     /* NULL: none was asked for */
    struct ls_timeline *timeline; /* the same */
    int64_t events, dropped;      /* of the timeline of all ranks */
    struct ls_input d_o_source;
    struct ls_tensor qkv[3], o, lse;
    struct cli_quantized quantized;                 /* where keys and values are of 8 bits */
    struct ls_tensor d_o, o_lo, dq, dk, dv;         /* with --backward */
    struct ls_tensor dsinks, ddistance_bias, dbias; /* with what they are of, else of no memory */
    struct cli_gemm gemm;
    struct ls_attention_plan *plan;
    struct cli_attend_result result;
    struct ls_judgement verdict;
    struct ls_judgement as_given; /* against k and v before they were quantized */
};

ls_status cli_attend_with(bool *held, struct cli_world *world, int argc, char **argv,
                          const struct cli_attend_defaults *defaults);

/* What backward starts from and gives, as tensors of the run. */
struct ls_attention_saved cli_attend_saved(const struct cli_attend_run *run);
struct ls_attention_gradients cli_attend_gradients(struct cli_attend_run *run);

/* Computes as often as is asked for and gathers what all ranks saw: run->result. Agreed by all
 * ranks. Errors: those of attention. */
ls_status cli_attend_compute(struct cli_attend_run *run);

/* The text and the JSON of a finished run. Agreed by all ranks. Errors: LS_EIO, LS_ECOMM. */
ls_status cli_attend_report(struct cli_attend_run *run);

#endif
