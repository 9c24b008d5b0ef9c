#include "attention/plan.h"

ls_status ls_plan_attend(struct ls_attention_plan *plan, struct ls_kernel_call call)
{
    if (!call.q_leaves.leaf) call.q_leaves = plan->q_leaves;
    call.progress = *plan->transport.traffic->mover;
    return ls_attention_kernel_attend(&plan->result, &plan->problem.device, plan->kernel, &call);
}
