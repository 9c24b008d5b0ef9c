/* What a plan holds and what the methods build theirs from. */
#ifndef LS_ATTENTION_PLAN_H
#define LS_ATTENTION_PLAN_H

#include "attention/fingerprint.h"
#include "attention/lists.h"
#include "attention/method.h"
#include "comm/transport.h"

struct ls_redistribution; /* travelling/redistribute.h */
struct ls_bias_gradient;  /* bias_gradient.h */

/* Backward's, see gradient.h. */
struct ls_gradients {
    struct ls_gradient_kernel *kernel; /* made by the method */
    float *lse, *delta;                /* [b, h, s_q_loc] of an execution */
    double *sink;                      /* [h][leaves of all queries] what each adds to a sink */
    double *own_sink;                  /* [h][this rank's leaves] */
    int64_t *sink_first, *sink_rows;   /* [this rank's leaves] */
    int64_t *distance;                 /* [h][distances][limbs], the device's (distances.h) */
    int64_t *limbs;                    /* [distances][limbs] of a head */
    int64_t *of_ranks;                 /* exact_total.h */
    float *biases;                     /* [distances] */
};

struct ls_attention_plan {
    const struct ls_method *method;
    const char *why;
    struct ls_problem problem;
    struct ls_lists lists; /* what problem.rules refer to */
    char fingerprint[LS_FINGERPRINT_LENGTH];
    struct ls_comm *comm; /* the plan's own duplicate */
    struct ls_transport transport;
    struct ls_traffic traffic;
    int rank;
    struct ls_leaf *q_leaf;                   /* storage of q_leaves */
    struct ls_leaf_list q_leaves;             /* of this rank's part */
    int64_t q_rows, k_rows;                   /* of the tensors that this rank's caller has */
    struct ls_redistribution *redistribution; /* NULL: these are the parts */
    struct ls_attention_kernel *kernel;
    struct ls_gradients gradients;
    struct ls_bias_gradient *bias_gradient; /* NULL: there are no such biases, or no backward */
    struct ls_kernel_change now;            /* of the execution that goes on, as is the work */
    struct ls_mask_rule *rules;  /* [entries][heads] of now's masks, as they were asked for */
    struct ls_mask_set mask_set; /* memory of them, if they are not the problem's */
    struct ls_work work;
    struct ls_attention_work forward, backward; /* of the last executions */
    void *own;                                  /* the method's */
};

/* The method's cost and that of bringing callers' rows to it and back. Errors: LS_ENOMEM. */
ls_status ls_plan_cost(struct ls_cost *out, const struct ls_attention_plan *plan);

/* Dimensions of the tensors that this rank's caller has, which their gradients have as well. */
struct ls_part_dims {
    int64_t q[4], k[4], v[4], o[4], lse[3];
};

struct ls_part_dims ls_plan_part_dims(const struct ls_attention_plan *plan);

/* Bulk data between the ranks of comm in the device's memory, by the device's own transport if it
 * has one; and between those of a plan's comm, or a sub-group of it. */
struct ls_transport ls_transport_on(const struct ls_device *device, const struct ls_comm *comm,
                                    struct ls_traffic *traffic);
struct ls_transport ls_plan_transport(struct ls_attention_plan *plan, const struct ls_comm *comm);

/* What the plan computes with. */
struct ls_queue *ls_plan_queue(const struct ls_attention_plan *plan);

/* An execution is four pieces. Take reads what it brings (NULL: nothing) into plan->now; not
 * collective. Agree is told how this rank's call is, and whether it asks for what not all do; it
 * and end are collective, and give every rank the same status. Between them is the work itself. End
 * sees whether an operation failed, keeps what was done in *out, and is told this rank's status. A
 * layer puts agreement off to the end of its step: of each plan it takes and runs, with tensors of
 * which it knows that they are what the plan asks for; then it finishes the queue and has the ranks
 * agree, once. Where an operation fails, those behind it are left out, and what others wait for is
 * sent all the same. Errors: take: LS_EVALUE, LS_ESHAPE, LS_EFIT; agree: those of ls_agree_about;
 * forward and backward: LS_ECOMM; with dsinks or ddistance_bias, which the
 * host adds, those of operations. */
ls_status ls_plan_take(struct ls_attention_plan *plan,
                       const struct ls_attention_execution *execution);
ls_status ls_plan_agree(const struct ls_attention_plan *plan, ls_status status, const char *wish,
                        int asked);
ls_status ls_plan_forward(struct ls_attention_plan *plan, const struct ls_attention_call *call);
ls_status ls_plan_backward(const struct ls_attention_gradients *out, struct ls_attention_plan *plan,
                           const struct ls_attention_saved *saved);
ls_status ls_plan_end(struct ls_attention_work *out, struct ls_attention_plan *plan,
                      ls_status status);

/* For forward and backward: around their work. */
void ls_plan_begin(struct ls_attention_plan *plan, const char *direction);
void ls_plan_leave(struct ls_attention_plan *plan);

/* One kernel step of a method. The queries are this rank's part unless the call lists leaves. */
void ls_plan_attend(struct ls_attention_plan *plan, struct ls_kernel_call call);
/* A whole call in one such step: all its queries, with these keys. */
void ls_plan_attend_all(struct ls_attention_plan *plan, const struct ls_attention_call *call,
                        struct ls_leaf_list keys);

#endif
