#include "attention/plan.h"

struct ls_queue *ls_plan_queue(const struct ls_attention_plan *plan)
{
    return &plan->problem.device->queue;
}

struct ls_transport ls_transport_on(const struct ls_device *device, const struct ls_comm *comm,
                                    struct ls_traffic *traffic)
{
    if (device->ops->transport) return device->ops->transport(device->self, comm, traffic);
    return ls_transport_of(comm, traffic);
}

struct ls_transport ls_plan_transport(struct ls_attention_plan *plan, const struct ls_comm *comm)
{
    return ls_transport_on(plan->problem.device, comm, &plan->traffic);
}

void ls_plan_attend(struct ls_attention_plan *plan, struct ls_kernel_call call)
{
    if (!call.q_leaves.leaf) call.q_leaves = plan->q_leaves;
    call.change = &plan->now;
    ls_attend(ls_plan_queue(plan), plan->kernel, &call);
}

void ls_plan_attend_all(struct ls_attention_plan *plan, const struct ls_attention_call *call,
                        struct ls_leaf_list keys)
{
    ls_plan_attend(plan, (struct ls_kernel_call){.o = call->o,
                                                 .o_lo = call->o_lo,
                                                 .lse = call->lse,
                                                 .q = call->q,
                                                 .k = call->k,
                                                 .v = call->v,
                                                 .k_leaves = keys});
}
