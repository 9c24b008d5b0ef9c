/* What a transformer is, and how it is run. The letters are those of Korthikanti et al. 2022
 * ("Reducing activation recomputation in large transformer models", arXiv 2205.05198), in the files
 * on models of this folder and nowhere else: a attention heads, s sequence, b micro-batch, h hidden
 * size, t tensor-parallel ranks, L layers, p pipeline stages, m interleaved parts of a stage,
 * v vocabulary; and c context-parallel ranks. */
#ifndef LS_PLAN_MODEL_H
#define LS_PLAN_MODEL_H

#include <stdbool.h>

#include "longspan/layer.h"

typedef enum { LS_POSITIONS_NONE, LS_POSITIONS_LEARNED, LS_POSITIONS_ROTARY } ls_position_kind;

/* What a model is, whoever computes it. */
struct ls_model_shape {
    int64_t h, L, v;
    int64_t a, a_kv, d; /* query heads, key/value heads, head dimension */
    int64_t f;          /* width of the MLP */
    ls_norm_kind norm;
    ls_activation activation;
    bool bias;           /* of linears; norms have one unless they are RMS */
    bool bias_qkv;       /* of q, k and v, where others have none */
    bool post_norm;      /* a norm behind each block, not before */
    bool parallel;       /* attention and MLP see the same norm's output */
    bool tied;           /* the output layer's weights are the embedding's */
    bool embedding_norm; /* a norm behind the embedding */
    ls_position_kind positions;
    int64_t most_positions; /* rows of learned ones */
};

/* How it is run. */
struct ls_model_run {
    ls_dtype type; /* of weights and activations */
    int64_t b, s;
    int64_t t, c, p, m;
    bool sp; /* sequence parallelism: t ranks share the rows outside of attention and MLP */
    bool causal;
    ls_layout_kind layout; /* of the sequence on c ranks; LS_LAYOUT_AUTO: what suits rings */
    bool dropout;          /* at the paper's three places */
    ls_core_kind core;
    unsigned pieces; /* LS_PIECE_*: what is computed again */
    /* of a sequence, on this rank: inside attention and MLP, and outside; without them, of the rank
     * that has most */
    bool has_rows;
    int64_t rows, outer_rows;
};

#endif
