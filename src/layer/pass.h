/* One way through a layer: forward, or what of it has to be made again before backward. */
#ifndef LS_LAYER_PASS_H
#define LS_LAYER_PASS_H

#include "layer/plan.h"

struct ls_layer_pass {
    struct ls_layer_plan *plan;
    struct ls_layer_state *state;
    const struct ls_layer_parameters *parameters;
    bool makes[LS_KEPT_KINDS]; /* of what is kept, what is to be made */
    struct ls_tensor *y;       /* the layer's output; NULL: not wanted */
};

/* Makes it, in the order of the layer. Operations are put into the device's queue. Errors:
 * LS_ECOMM. */
ls_status ls_layer_make(const struct ls_layer_pass *pass);

/* What backward shares with it: */

/* q, k and v in what they are together, and what attention makes of them, [b, rows, heads, d]. */
struct ls_layer_heads {
    struct ls_tensor q, k, v;
};

struct ls_layer_heads ls_layer_heads_of(const struct ls_layer_plan *plan,
                                        const struct ls_tensor *qkv);
struct ls_tensor ls_layer_output_heads(const struct ls_layer_plan *plan,
                                       const struct ls_tensor *all);

/* q and k are turned by their positions' angles, or back; nothing without rotary positions. */
void ls_layer_rotate(struct ls_layer_plan *plan, const struct ls_tensor *qkv, bool back);

/* Of the rows that a norm was given, [b, outer rows]; mean NULL: RMSNorm. */
struct ls_layer_statistics {
    float *mean, *rstd;
};

struct ls_layer_statistics ls_layer_statistics_of(const struct ls_layer_state *state,
                                                  ls_kept_kind kind);

/* [b, rows, width] as [b rows, width], for linears; and a piece of that. */
struct ls_tensor ls_layer_flat(const struct ls_tensor *t);
struct ls_tensor ls_layer_piece(const struct ls_tensor *t, const struct ls_exchange_piece *piece);

/* out = residual + dropout(x), outside; mask says behind which block. Backward: without a residual,
 * of the gradient. */
void ls_layer_dropout(struct ls_tensor *out, struct ls_layer_plan *plan,
                      const struct ls_layer_state *state, const struct ls_tensor *residual,
                      const struct ls_tensor *x, ls_kept_kind mask);

/* The mask is drawn, if the state keeps it. */
void ls_layer_draw_mask(struct ls_layer_plan *plan, const struct ls_layer_state *state,
                        ls_kept_kind mask);

/* A call is three pieces: the check of its tensors (operands.h), on which the ranks agree, the work
 * itself, and its end, where the queue is finished and every rank gets the same status. A step of
 * many layers may check all their calls and agree, run them one after the other, and end once.
 * Where an operation fails, those behind it are left out, and what others wait for is sent all the
 * same. Collective, but for the check. Errors: run: LS_ECOMM; end: those of operations as well. */
ls_status ls_layer_run_forward(struct ls_tensor *y, struct ls_layer_plan *plan,
                               struct ls_layer_state *state,
                               const struct ls_layer_parameters *parameters,
                               const struct ls_tensor *x, uint64_t seed);
ls_status ls_layer_run_backward(struct ls_tensor *dx, const struct ls_layer_parameters *gradients,
                                struct ls_layer_plan *plan, struct ls_layer_state *state,
                                const struct ls_layer_parameters *parameters,
                                const struct ls_tensor *dy);
ls_status ls_layer_end(struct ls_layer_plan *plan, ls_status status);

#endif
