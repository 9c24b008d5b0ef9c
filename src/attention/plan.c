#include "attention/plan.h"

static void be_heard(void *comm)
{
    ls_comm_progress(NULL, comm, NULL, 0); /* the next wait reports what fails */
}

struct ls_progress ls_plan_progress(struct ls_attention_plan *plan, struct ls_progress own)
{
    if (own.call || !ls_comm_has_timeout(plan->comm)) return own;
    return (struct ls_progress){be_heard, plan->comm};
}

ls_status ls_plan_attend(struct ls_attention_plan *plan, struct ls_kernel_call call)
{
    if (!call.q_leaves.leaf) call.q_leaves = plan->q_leaves;
    call.progress = ls_plan_progress(plan, call.progress);
    return ls_attention_kernel_attend(&plan->result, &plan->problem.device, plan->kernel, &call);
}
