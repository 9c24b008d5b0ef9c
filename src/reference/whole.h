/* The whole of a small problem in double precision on one process. */
#ifndef LS_REFERENCE_WHOLE_H
#define LS_REFERENCE_WHOLE_H

#include "reference/attention.h"

/* o [b, s_q, h, d] and lse [b, h, s_q] in f64, contiguous; q, k, v of any type and strides. mask
 * and scores are made for their shape. Errors: LS_ESHAPE, LS_ETYPE, LS_ENOMEM. */
ls_status ls_reference_attention(struct ls_tensor *o, struct ls_tensor *lse,
                                 const struct ls_tensor *q, const struct ls_tensor *k,
                                 const struct ls_tensor *v, const struct ls_mask *mask,
                                 const struct ls_scores *scores);

#endif
