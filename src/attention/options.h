/* From what a caller asks for to the mask and the scores that the methods and kernels know. */
#ifndef LS_ATTENTION_OPTIONS_H
#define LS_ATTENTION_OPTIONS_H

#include "longspan/attention.h"
#include "tensor/mask_rule.h"
#include "tensor/scores.h"

/* All of the options: a caller built against an older header has a shorter struct, and what it
 * lacks is zero. Errors: LS_EVALUE. */
ls_status ls_options_read(struct ls_attention_options *out, const struct ls_attention_options *in);

/* Whether these are cumulative lengths of documents in s_k keys, or NULL. Errors: LS_EVALUE. */
ls_status ls_documents_check(const int64_t *documents, int64_t count, int64_t s_k);

/* Of how many entries and heads the options ask for masks, which are not made. */
struct ls_masks ls_options_masks(const struct ls_attention_shape *shape,
                                 const struct ls_attention_options *options);

/* out [ls_masks_count], or NULL: checked alone. Rules refer to the options' lists.
 * Errors: LS_EVALUE. */
ls_status ls_options_mask(struct ls_mask_rule *out, const struct ls_attention_shape *shape,
                          const struct ls_attention_options *options);

/* Query heads that share a key/value head, of all heads. */
int64_t ls_options_group(const struct ls_attention_shape *shape,
                         const struct ls_attention_options *options);

/* The scores refer to the options' arrays. Errors: LS_EVALUE. */
ls_status ls_options_scores(struct ls_scores *out, const struct ls_attention_shape *shape,
                            const struct ls_attention_options *options);

#endif
