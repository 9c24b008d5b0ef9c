/* What `longspan plan model` is asked, and the parts of its answer. */
#ifndef LS_CLI_PLAN_MODEL_H
#define LS_CLI_PLAN_MODEL_H

#include "cli/report.h"
#include "model/presets.h"
#include "plan/model_size.h"
#include "plan/search.h"

struct cli_model_options {
    struct cli_options shared;
    const struct ls_preset *preset;
    const char *config; /* NULL: none */
    struct ls_model_shape model;
    struct ls_model_run run; /* 0: as the preset has it */
    float dropout;
    float rate, bandwidth, link; /* TFLOPS and GB/s of a rank; 0: not said */
    bool measure;                /* rates of this machine */
    struct ls_rates rates;       /* what follows; zeros: none */
    bool choose;                 /* --recompute auto */
    int64_t memory;              /* a rank's budget; 0: none */
    bool search;
    int64_t ranks; /* 0: as many as the run has */
};

static inline bool cli_model_has_rates(const struct cli_model_options *o)
{
    return o->rates.flops > 0;
}

/* ---- plan_model_report.c */

void cli_model_report_model(const struct cli_report *report, const struct cli_model_options *o);
void cli_model_report_run(const struct cli_report *report, const struct cli_model_options *o);

/* Nothing where there are none. */
void cli_model_report_rates(const struct cli_report *report, const struct cli_model_options *o);

/* One layer, item by item. */
void cli_model_report_layer(const struct cli_report *report, const struct cli_model_options *o);
void cli_model_report_bytes(const struct cli_report *report, const struct cli_model_options *o,
                            const struct ls_rank_bytes *bytes);

/* again: what recomputation adds on a rank. */
void cli_model_report_work(const struct cli_report *report, const struct cli_model_options *o,
                           const struct ls_layer_work *again);

/* ---- plan_model_choice.c */

/* The table of pieces. */
void cli_model_report_pieces(const struct cli_report *report, const struct cli_model_options *o);

/* What was chosen, and the frontier that it lies on. Errors: LS_ENOMEM. */
ls_status cli_model_report_choice(const struct cli_report *report,
                                  const struct ls_recompute_problem *problem,
                                  const struct ls_recompute_choice *choice);

void cli_model_report_grids(const struct cli_report *report, const struct cli_model_options *o,
                            const struct ls_grid_plan *grids, int count);

#endif
