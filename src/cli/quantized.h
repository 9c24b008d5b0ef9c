/* Keys and values of 8 bits: made of those of the input (--kv-dtype), or brought by it as numbers
 * of type I8 or F8_E4M3 with k_scale, v_scale and perhaps k_mean. */
#ifndef LS_CLI_QUANTIZED_H
#define LS_CLI_QUANTIZED_H

#include "cli/inputs.h"
#include "cli/report.h"

/* This rank's part of them. */
struct cli_quantized {
    struct ls_tensor rows[2];  /* k and v as attention takes them, each row with its scale */
    struct ls_tensor exact[2]; /* what they stand for, f32 */
    float *mean;               /* [b, h_kv, d], taken out of keys; NULL: nothing */
};

/* Of inputs whose k and v are open: their type becomes that of the shape, and what belongs to
 * numbers of 8 bits is opened, beside k. Not collective. Errors: LS_EVALUE, LS_ESHAPE, LS_ETYPE. */
ls_status cli_quantized_open(struct cli_inputs *inputs, const struct cli_input_options *options);

/* Bytes of what is kept of one rank's keys and values beside the rows; 0 of others. */
double cli_quantized_bytes(const struct cli_inputs *inputs, const struct ls_layout *k_layout,
                           int rank);

/* Rows, if they are brought, of the numbers that cli_inputs_load has read as k and v, qkv[1] and
 * qkv[2]. The caller frees what is made, also after an error. Agreed by all ranks.
 * Errors: LS_EVALUE for a scale that is NaN, infinite, 0 or negative; LS_ENOMEM, LS_EIO. */
ls_status cli_quantized_load(struct cli_quantized *out, const struct cli_inputs *inputs,
                             const struct cli_world *world, const struct ls_tensor qkv[3],
                             const struct ls_layout *k_layout, struct cli_progress *progress);

/* Rows of k and v of the plan's type. Errors: those of ls_attention_quantize. Agreed. */
ls_status cli_quantized_make(struct cli_quantized *out, const struct cli_inputs *inputs,
                             const struct cli_world *world, struct ls_attention_plan *plan,
                             const struct ls_tensor qkv[3]);

/* What rows stand for. Agreed. Errors: LS_ENOMEM. */
ls_status cli_quantized_widen(struct cli_quantized *quantized, const struct cli_inputs *inputs,
                              const struct cli_world *world);

void cli_quantized_free(struct cli_quantized *quantized);

#endif
