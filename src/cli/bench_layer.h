/* One run of `bench layer`: its command line, its tensors, its stages, its report. */
#ifndef LS_CLI_BENCH_LAYER_H
#define LS_CLI_BENCH_LAYER_H

#include "cli/gemm.h"
#include "cli/report.h"
#include "layer/as_model.h"
#include "layer/parameters.h"
#include "layer/plan.h"
#include "longspan/timeline.h"
#include "plan/pieces.h"
#include "store/elements.h"
#include "store/order.h"

struct cli_layer_options {
    struct cli_options shared;
    int64_t hidden, heads, kv_heads, mlp, seq, batch, layers, tp, cp, repeat;
    bool sp, strict, causal, post_norm, parallel, no_bias, verify;
    int norm, activation, core, layout, mask; /* numbers of names */
    float dropout, rope;
    const char *recompute, *memory, *method, *weights, *out; /* NULL: as if not given */
    ls_dtype type;
};

/* What a rank was to keep and send, and did. */
struct cli_layer_bytes {
    int64_t kept, peak;       /* of activations */
    int64_t sent;             /* but for attention */
    int64_t weights, vectors; /* of that, for gradients; only planned */
    int64_t attention;        /* that attention sends; planned: of all ranks */
    int64_t ledger, resident; /* peaks of steps, and since start-up; only measured */
};

struct cli_layer_tensors {
    struct ls_tensor weight[LS_LAYER_PARAMETERS], gradient[LS_LAYER_PARAMETERS];
    struct ls_layer_parameters weights, gradients; /* pointers to them */
    struct ls_tensor x, dy;
    struct ls_tensor between[2], d_between[2]; /* layers write them in turn */
};

struct cli_layer_run {
    struct cli_world *world;
    struct cli_layer_options options;
    struct ls_layer_shape shape;
    struct ls_layer_options layer;
    unsigned *pieces; /* [layers] LS_PIECE_* that each computes again */
    bool chooses;     /* them, so that all fits into so many bytes of a rank */
    int64_t memory;
    double again_seconds; /* that this was expected to take */
    struct cli_report report;
    struct ls_output *output;     /* NULL: none was asked for */
    struct ls_timeline *timeline; /* the same */
    int64_t events, dropped;
    struct ls_input source[LS_LAYER_PARAMETERS], x_source, dy_source;
    struct cli_gemm gemm;
    struct ls_layer_plan *plan;
    struct ls_layer_state **state; /* [layers] */
    struct cli_layer_tensors tensors;
    size_t kept_before;     /* bytes of activations that are live before there are states */
    double resident_before; /* at start-up */
    double seconds, forward_seconds, backward_seconds; /* of the fastest repeat */
    struct cli_layer_bytes planned, measured;          /* of this rank */
    bool held;                                         /* by --verify */
};

/* y of the last layer, and dx of the first. */
const struct ls_tensor *cli_layer_y(const struct cli_layer_run *run);
const struct ls_tensor *cli_layer_dx(const struct cli_layer_run *run);

/* ---- tensors */

/* Where x, dy and the weights come from; a tensor of a file of the wrong shape, that is missing or
 * that the layer has not is refused by its name. Agreed by all ranks. Errors: LS_ESHAPE, LS_EVALUE
 * and those of ls_input_open. */
ls_status cli_layer_open_sources(struct cli_layer_run *run);
void cli_layer_close_sources(struct cli_layer_run *run);

/* This rank's parts, and room for what is computed. Agreed by all ranks. Errors: LS_ENOMEM; LS_EIO;
 * LS_EVALUE for what is no number. */
ls_status cli_layer_create_tensors(struct cli_layer_run *run);
void cli_layer_free_tensors(struct cli_layer_run *run);

/* --out: y, dx and the gradients. Agreed by all ranks. */
ls_status cli_layer_create_output(struct cli_layer_run *run);
ls_status cli_layer_write_output(struct cli_layer_run *run);

/* Runs of a rank's part of a tensor, and where they are in the whole. */
struct cli_layer_part {
    struct ls_run *run;
    int64_t count;
};

/* Of a parameter, of x and its like, and all of n elements. The caller frees run. Errors:
 * LS_ENOMEM. */
ls_status cli_layer_part_of(struct cli_layer_part *out, const struct cli_layer_run *run,
                            int parameter);
ls_status cli_layer_rows_of(struct cli_layer_part *out, const struct cli_layer_run *run);

/* Elements [first, first + n) of a source: rounded to the layer's type, and where they are drawn
 * as a layer has them. parameter -1: x or dy. Errors: LS_EIO, LS_EVALUE. */
ls_status cli_layer_read(double *out, const struct cli_layer_run *run,
                         const struct ls_input *source, int parameter, int64_t first, int64_t n);

/* ---- pieces */

/* run->pieces and what they are to fit into, of the command line; fini frees them. Errors:
 * LS_EVALUE, LS_ENOMEM. */
ls_status cli_layer_read_pieces(struct cli_layer_run *run);

/* With --recompute auto: the cheapest that fit beside what the ledger holds now, by rates of this
 * machine, the same on every rank. Agreed by all ranks. Errors: LS_EFIT, with what is missing. */
ls_status cli_layer_choose_pieces(struct cli_layer_run *run);

/* "full", where all layers are alike, or of one after the other "none/full"; the caller frees it.
 * Errors: LS_ENOMEM. */
ls_status cli_layer_name_pieces(char **out, const struct cli_layer_run *run);

/* ---- what is planned */

/* How a layer is run: of this rank's rows once there is a plan, until then of the rank that has
 * most. */
struct ls_model_run cli_layer_how(const struct cli_layer_run *run, unsigned pieces);

/* run->planned. Agreed by all ranks. Errors: LS_ENOMEM. */
ls_status cli_layer_plan(struct cli_layer_run *run);

/* ---- stages */

/* Layers forward and backward, as often as is asked for. Agreed by all ranks. */
ls_status cli_layer_compute(struct cli_layer_run *run);

/* The text and the JSON. Agreed by all ranks. */
ls_status cli_layer_report(struct cli_layer_run *run);

/* Holds all results against the double-precision layer, which every rank computes whole: run->held.
 * Agreed by all ranks. Errors: LS_ENOMEM. */
ls_status cli_layer_verify(struct cli_layer_run *run);

#endif
