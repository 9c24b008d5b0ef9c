/* The lists and files that options of the mask name, and tensors of the input that need none. */
#ifndef LS_CLI_MASK_ARRAYS_H
#define LS_CLI_MASK_ARRAYS_H

#include "cli/inputs.h"
#include "cli/mask.h"
#include "cli/pair_biases.h"
#include "cli/report.h"
#include "tensor/file.h"

/* The arrays that attention options refer to. */
struct cli_mask_arrays {
    struct ls_integers documents, q_documents, q_lengths, k_lengths, slices;
    uint8_t *pairs; /* bits */
    float *alibi, *sinks, *distance_bias;
    struct cli_pair_biases bias;
    char used[128]; /* tensors of --input that no option named, for people */
};

/* Reads lists, files and, where an option does not say otherwise, tensors of --input, to all of
 * which attention then refers, and checks that all of it fits the shape. Collective, agreed by all
 * ranks; the caller frees the arrays, also after an error. Errors: LS_EVALUE, LS_ESHAPE, LS_ENOMEM
 * and those of files. */
ls_status cli_mask_load(struct cli_mask_arrays *out, struct ls_attention_options *attention,
                        const struct cli_mask_options *options,
                        const struct cli_input_options *input, const struct cli_world *world,
                        const struct cli_inputs *inputs);

/* A line about tensors of --input that no option named, if there are any. */
void cli_mask_report(const struct cli_report *report, const struct cli_mask_arrays *arrays);

/* Accepts zeroed arrays. */
void cli_mask_free(struct cli_mask_arrays *arrays);

#endif
