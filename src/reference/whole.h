/* The whole of a small problem in double precision on one process. */
#ifndef LS_REFERENCE_WHOLE_H
#define LS_REFERENCE_WHOLE_H

#include "reference/gradient_contract.h"

/* o [b, s_q, h, d] and lse [b, h, s_q] in f64, contiguous; q, k, v of any type and strides. mask
 * and scores are made for their shape. Errors: LS_ESHAPE, LS_ETYPE, LS_ENOMEM. */
ls_status ls_reference_attention(struct ls_tensor *o, struct ls_tensor *lse,
                                 const struct ls_tensor *q, const struct ls_tensor *k,
                                 const struct ls_tensor *v, const struct ls_masks *masks,
                                 const struct ls_scores *scores);

/* Gradients in f64, contiguous, dsinks [h], ddistance_bias [h, distances], dbias [b|1, h|1, s_q,
 * s_k]. Of what forward saved,
 * q, k, v, d_o and dlse are read; o and lse are found anew. Errors: LS_ESHAPE, LS_ETYPE, LS_ENOMEM.
 */
ls_status ls_reference_attention_backward(const struct ls_attention_gradients *out,
                                          const struct ls_attention_saved *saved,
                                          const struct ls_masks *masks,
                                          const struct ls_scores *scores);

/* Verdicts of dq, dk, dv, dsinks, ddistance_bias and dbias. */
enum { LS_GRADIENTS = 6 };

/* Holds gradients of the whole problem, of any type and strides, against the oracle by the
 * contract of a storage type. Without o_lo delta may come of an o of that type. Without dsinks,
 * ddistance_bias or dbias their verdict is good, and so is that of a gradient without rows. Errors:
 * LS_ESHAPE, LS_ENOMEM. */
ls_status ls_reference_judge_gradients(struct ls_gradient_verdict out[LS_GRADIENTS],
                                       const struct ls_attention_gradients *gradients,
                                       ls_dtype storage, const struct ls_attention_saved *saved,
                                       const struct ls_masks *masks,
                                       const struct ls_scores *scores);

#endif
