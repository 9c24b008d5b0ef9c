/* Which keys a query sees and what becomes of a logit: the options of it, and the lists and files
 * that they name. */
#ifndef LS_CLI_MASK_H
#define LS_CLI_MASK_H

#include "cli/names.h"
#include "cli/world.h"
#include "longspan/attention.h"
#include "tensor/file.h"

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
    CLI_KEY_SLICES,
    CLI_KEY_PREFIX,
    CLI_KEY_QUERY_OFFSET,
    CLI_KEY_ALIBI,
    CLI_KEY_SOFT_CAP,
    CLI_KEY_SINKS,
    CLI_KEY_DROPOUT,
    CLI_KEY_MASK_END,
};

/* What is known only with the shape. */
struct cli_mask_options {
    /* lists or files; NULL: none */
    const char *documents, *cu_seqlens_q, *cu_seqlens_k, *q_lengths, *k_lengths, *slices, *sinks,
        *slopes;
    bool alibi; /* by these slopes, else by the standard ones */
};

/* The arrays that attention options refer to. */
struct cli_mask_arrays {
    struct ls_integers documents, q_documents, q_lengths, k_lengths, slices;
    float *alibi, *sinks;
};

/* Takes one of the options. Errors: LS_EVALUE. */
ls_status cli_mask_set(struct cli_mask_options *out, struct ls_attention_options *attention,
                       int key, const char *value);

/* Whether any of them was given. */
bool cli_mask_given(const struct cli_mask_options *options,
                    const struct ls_attention_options *attention);

/* Reads lists and files, which attention then refers to, and checks that all of it fits the shape.
 * Agreed by all ranks; the caller frees the arrays, also after an error. Errors: LS_EVALUE,
 * LS_ESHAPE, LS_ENOMEM and those of files. */
ls_status cli_mask_load(struct cli_mask_arrays *out, struct ls_attention_options *attention,
                        const struct cli_mask_options *options, const struct cli_names *names,
                        const struct cli_world *world, const struct ls_attention_shape *shape);

/* Accepts zeroed arrays. */
void cli_mask_free(struct cli_mask_arrays *arrays);

#endif
