/* Bytes that a rank sends in one layer, forward and backward, besides what a fused core exchanges
 * (the cost of its plan). Letters as in model.h. */
#ifndef LS_PLAN_LAYER_TRAFFIC_H
#define LS_PLAN_LAYER_TRAFFIC_H

#include "plan/model.h"

/* Whose bytes: number `tensor` of t. Gradients of norms and biases are summed by one tree over all
 * rows (tensor/row_nodes.h): the most nodes that a rank has of the rows outside, and inside; those
 * of weights by one over leaves of tokens in strict mode: the most sums that a rank brings, 1 in
 * fast mode. Likewise those of a materialized core's keys and values, of which a rank brings so
 * many sums for each head of q in strict mode, and one for each of k and v in fast mode: key_sums
 * of all heads together. */
struct ls_layer_place {
    int tensor;
    int64_t outer_nodes, inner_nodes, weight_sums, key_sums;
};

struct ls_layer_traffic {
    int64_t rows;    /* gathers and sums at the borders of attention and MLP */
    int64_t weights; /* sums of the linears' gradients between context-parallel ranks, and of k's
                        and v's between tensor-parallel ones that have the same heads */
    int64_t vectors; /* norms and biases */
    int64_t keys;    /* keys, values and sums of their gradients, of a materialized core */
    int attentions;  /* how often a fused core runs forward: twice where it is computed again */
};

/* The run has rows. In bf16 and without rows that some ranks have more of, `rows` is
 * 16 s b h (t - 1) / t, with sequence parallelism and two gathers more: the inputs of
 * column-parallel linears once more (Korthikanti et al. 2022, section 4.2.2). In parallel one
 * input less is gathered forward and one less backward, and one gradient less is summed. */
struct ls_layer_traffic ls_layer_traffic_of(const struct ls_model_shape *model,
                                            const struct ls_model_run *run,
                                            const struct ls_layer_place *place);

#endif
