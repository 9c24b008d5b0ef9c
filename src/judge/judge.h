/* What is judged, and what was found so far. */
#ifndef LS_JUDGE_JUDGE_H
#define LS_JUDGE_JUDGE_H

#include "attention/problem.h"
#include "comm/comm.h"
#include "longspan/judge.h"
#include "reference/contract.h"
#include "reference/gradient_contract.h"

enum {
    LS_JUDGE_Q,
    LS_JUDGE_K,
    LS_JUDGE_V,
    LS_JUDGE_O,
    LS_JUDGE_LSE,
    LS_JUDGE_D_O,
    LS_JUDGE_O_LO,
    LS_JUDGE_DLSE,
    LS_JUDGE_DQ,
    LS_JUDGE_DK,
    LS_JUDGE_DV,
    LS_JUDGE_DSINKS,
    LS_JUDGE_DDISTANCE_BIAS,
    LS_JUDGE_DBIAS,
    LS_JUDGE_TENSORS
};
enum { LS_JUDGE_GRADIENTS = LS_JUDGE_TENSORS - LS_JUDGE_DQ };

struct ls_judge {
    struct ls_comm *comm;
    int p, rank;
    struct ls_problem problem; /* shape, mask, scores and threads of it */
    struct ls_layout q_layout, k_layout;
    bool has[LS_JUDGE_TENSORS];
    struct ls_tensor tensor[LS_JUDGE_TENSORS]; /* [b, s_loc, heads, d or d_v]; of lse and dlse
                                                * that is 1, of dsinks b and s_loc as well, and
                                                * b and s_loc of ddistance_bias; dbias
                                                * [b or 1, h or 1, s_loc, s_k] */
    ls_dtype contract;
    int64_t rows;
    const struct ls_progress_callback *progress;
    struct ls_errors errors;
    struct ls_gradient_errors gradient_errors[LS_JUDGE_GRADIENTS]; /* from dq on */
};

/* Add the errors of o, lse and dq, of dk and dv, of dsinks, of ddistance_bias, and of dbias, as far
 * as they are there, to those of the judge. Collective; the same on every rank. Errors: LS_ENOMEM,
 * LS_ECOMM. */
ls_status ls_judge_queries(struct ls_judge *judge);
ls_status ls_judge_keys(struct ls_judge *judge);
ls_status ls_judge_sinks(struct ls_judge *judge);
ls_status ls_judge_distances(struct ls_judge *judge);
ls_status ls_judge_biases(struct ls_judge *judge);

#endif
