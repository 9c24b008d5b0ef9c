/* Which keys a query sees and what becomes of a logit: the options of it. */
#ifndef LS_CLI_MASK_H
#define LS_CLI_MASK_H

#include "longspan/attention.h"

/* Keys of the options, below CLI_KEY_OWN. */
enum {
    CLI_KEY_CAUSAL = 400,
    CLI_KEY_ALIGN,
    CLI_KEY_WINDOW,
    CLI_KEY_DOCUMENTS,
    CLI_KEY_CU_SEQLENS_Q,
    CLI_KEY_CU_SEQLENS_K,
    CLI_KEY_Q_LENGTHS,
    CLI_KEY_K_LENGTHS,
    CLI_KEY_PADDING,
    CLI_KEY_IGNORE,
    CLI_KEY_SLICES,
    CLI_KEY_PAIRS,
    CLI_KEY_PREFIX,
    CLI_KEY_QUERY_OFFSET,
    CLI_KEY_ALIBI,
    CLI_KEY_SOFT_CAP,
    CLI_KEY_SINKS,
    CLI_KEY_DISTANCE_BIAS,
    CLI_KEY_BIAS,
    CLI_KEY_DROPOUT,
    CLI_KEY_MASK_END,
};

/* Tensors of --input that are used without an option. */
enum {
    CLI_MASK_Q_LENGTHS,
    CLI_MASK_K_LENGTHS,
    CLI_MASK_CU_SEQLENS_Q,
    CLI_MASK_CU_SEQLENS_K,
    CLI_MASK_SINKS,
    CLI_MASK_DISTANCE_BIAS,
    CLI_MASK_BIAS,
    CLI_MASK_TENSORS
};

extern const char *const cli_mask_tensors[CLI_MASK_TENSORS];

/* What is known only with the shape. */
struct cli_mask_options {
    /* lists or files; NULL: none */
    const char *documents, *cu_seqlens_q, *cu_seqlens_k, *q_lengths, *k_lengths, *slices, *pairs,
        *sinks, *slopes, *distance_bias, *bias;
    bool alibi; /* by these slopes, else by the standard ones */
    bool ignored[CLI_MASK_TENSORS];
};

/* Takes one of the options. Errors: LS_EVALUE. */
ls_status cli_mask_set(struct cli_mask_options *out, struct ls_attention_options *attention,
                       int key, const char *value);

/* Whether any of them was given. */
bool cli_mask_given(const struct cli_mask_options *options,
                    const struct ls_attention_options *attention);

#endif
